"""torchvision's other detectors: the same names of parameters, the same answers; and what ``weights`` may be."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fastcv.models import detection
from fastcv.nn import FrozenBatchNorm2d

BUILDERS = [
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "maskrcnn_resnet50_fpn_v2",
]
OPTIONS: dict[str, Any] = {
    "num_classes": 5,
    "min_size": 96,
    "max_size": 128,
    "box_detections_per_img": 10,
    "box_score_thresh": 0.01,
    "box_batch_size_per_image": 12,
    "rpn_batch_size_per_image": 32,
    "rpn_pre_nms_top_n_train": 40,
    "rpn_post_nms_top_n_train": 20,
    "rpn_pre_nms_top_n_test": 40,
    "rpn_post_nms_top_n_test": 20,
}


@pytest.fixture(scope="module")
def peer() -> ModuleType:
    torchvision = pytest.importorskip("torchvision")
    try:
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except RuntimeError as error:
        pytest.skip(f"torchvision's operators do not load here: {str(error).splitlines()[0]}")
    return torchvision.models.detection


def shapes(model: nn.Module) -> dict[str, Any]:
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


@pytest.mark.parametrize("name", BUILDERS)
def test_names_shapes_and_defaults(peer: ModuleType, name: str) -> None:
    with torch.device("meta"):
        ours = getattr(detection, name)()
        theirs = getattr(peer, name)(weights=None, weights_backbone=None)
    assert list(shapes(ours).items()) == list(shapes(theirs).items())
    trained = [{key for key, value in model.named_parameters() if value.requires_grad} for model in (ours, theirs)]
    assert trained[0] == trained[1]
    assert ours.rpn.score_thresh == theirs.rpn.score_thresh
    assert ours.rpn._pre_nms_top_n == theirs.rpn._pre_nms_top_n
    assert ours.transform.min_size == tuple(theirs.transform.min_size)
    assert ours.transform.max_size == theirs.transform.max_size
    assert list(inspect.signature(getattr(detection, name)).parameters) == list(
        inspect.signature(inspect.unwrap(getattr(peer, name))).parameters
    )


def image() -> Tensor:
    return torch.rand(3, 96, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def target(name: str) -> dict[str, Tensor]:
    made = {"boxes": torch.tensor([[10.0, 12, 60, 70], [30, 20, 120, 90]]).double(), "labels": torch.tensor([1, 4])}
    if "mask" in name:
        made["masks"] = torch.zeros(2, 96, 128, dtype=torch.uint8)
        made["masks"][:, 20:60, 30:50] = 1
    return made


def spread(model: Any, name: str) -> None:
    """Give a model without training statistics of an image, and scores that differ."""
    generator = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.double().train()([image(), image().flip(1)], [target(name)] * 2)
        model.roi_heads.box_predictor.cls_score.weight.normal_(0, 0.1, generator=generator)
        model.roi_heads.box_predictor.bbox_pred.weight.normal_(0, 0.02, generator=generator)
        model.rpn.head.cls_logits.weight.normal_(0, 0.1, generator=generator)
    model.eval()


@pytest.mark.parametrize("name", BUILDERS)
def test_same_answers_and_losses_in_float64(peer: ModuleType, name: str) -> None:
    torch.manual_seed(0)
    theirs = getattr(peer, name)(weights=None, weights_backbone=None, **OPTIONS)
    spread(theirs, name)
    ours = getattr(detection, name)(**OPTIONS).double().eval()
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        expected, actual = theirs([image()])[0], ours([image()])[0]
    assert len(expected["boxes"]) == 10
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, rtol=1e-5, atol=1e-5)
    results = []
    for model in (theirs, ours):
        torch.manual_seed(3)
        losses = model.train()([image()] * 2, [target(name)] * 2)
        sum(losses.values()).backward()
        results.append((losses, {key: value.grad for key, value in model.named_parameters()}))
    torch.testing.assert_close(
        results[1][0], {key: value.double() for key, value in results[0][0].items()}, rtol=1e-6, atol=1e-6
    )
    for key, gradient in results[0][1].items():
        difference = (results[1][1][key] - gradient).norm()
        assert difference <= 1e-5 * gradient.norm() + 1e-9, key


@pytest.mark.parametrize("name", [BUILDERS[0], BUILDERS[3]])
def test_optimized_models_answer_the_same(name: str) -> None:
    torch.manual_seed(0)
    model = getattr(detection, name)(**OPTIONS)
    spread(model, name)
    with torch.no_grad():
        expected, actual = model([image()])[0], model.optimize()([image()])[0]
    assert len(expected["boxes"]) == 10
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, rtol=1e-4, atol=1e-4)


# ---- weights ---------------------------------------------------------------------------------------------------------


def small(**changes: Any) -> Any:
    return detection.create("fasterrcnn_tiny_fpn", **{"num_classes": 3, **changes})


def wrappings() -> dict[str, Callable[[dict[str, Tensor]], Any]]:
    def prefixed(prefix: str) -> Callable[[dict[str, Tensor]], Any]:
        return lambda state: {prefix + key: value for key, value in state.items()}

    return {
        "plain": lambda state: state,
        "model": lambda state: {"model": state, "optimizer": {"state": {}}, "epoch": 3},
        "model_state_dict": lambda state: {"model_state_dict": state, "loss": 0.5},
        "lightning": lambda state: {"state_dict": prefixed("model.")(state), "epoch": 1},
        "twice": lambda state: {"model": {"state_dict": state}},
        "parallel": prefixed("module."),
        "compiled": prefixed("_orig_mod."),
        "all": prefixed("module._orig_mod.model."),
        "compiled part": lambda state: {key.replace("rpn.head.", "rpn.head._orig_mod."): v for key, v in state.items()},
    }


@pytest.mark.parametrize("kind", wrappings())
def test_wrapped_checkpoints(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(1)
    state = small().state_dict()
    wrapped = wrappings()[kind](state)
    torch.save(wrapped, tmp_path / "model.pth")
    for weights in (tmp_path / "model.pth", str(tmp_path / "model.pth"), wrapped):
        for model in (
            detection.create("fasterrcnn_tiny_fpn", weights=weights),
            detection.load_weights(small(), weights),
        ):
            own = model.state_dict()
            for key, value in state.items():
                assert key.endswith("num_batches_tracked") or torch.equal(own[key], value)


def test_a_wrapped_checkpoint_loads_wholly_or_not_at_all(tmp_path: Path) -> None:
    model = small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(1)
    state = {f"model.{key}": value for key, value in small().state_dict().items()}
    for extra in ({"criterion.weight": torch.zeros(3)}, {"model.more": torch.zeros(3)}):
        torch.save({"state_dict": {**state, **extra}}, tmp_path / "model.pth")
        with pytest.raises(KeyError, match="checkpoint of another model"):
            detection.load_weights(model, tmp_path / "model.pth")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_weights_freeze_and_backbones_load(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision").models
    state = models.mobilenet_v3_large().state_dict()
    torch.save(state, tmp_path / "mobile.pth")
    model = detection.fasterrcnn_mobilenet_v3_large_fpn(weights_backbone=tmp_path / "mobile.pth")
    own = model.backbone.body.state_dict()
    assert all(torch.equal(own[key], state[f"features.{key}"]) for key in own)
    assert any(isinstance(module, FrozenBatchNorm2d) for module in model.modules())
    frozen = {int(key.split(".")[0]) for key, p in model.backbone.body.named_parameters() if not p.requires_grad}
    assert frozen == set(range(7))
    second = detection.fasterrcnn_resnet50_fpn_v2(weights_backbone=models.resnet50().state_dict())
    assert not any(isinstance(module, FrozenBatchNorm2d) for module in second.modules())
    assert not second.backbone.body.conv1.weight.requires_grad


@pytest.fixture(autouse=True)
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torchvision keeps what it has downloaded: nothing, so far."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def test_what_torchvision_has_downloaded_is_taken(peer: ModuleType, torch_home: Path) -> None:
    """The program that asked torchvision for it, with one import changed."""
    enum = peer.FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.DEFAULT
    theirs = peer.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    torch_home.mkdir(parents=True)
    torch.save(theirs.state_dict(), torch_home / enum.url.rsplit("/", 1)[1])
    again = peer.fasterrcnn_mobilenet_v3_large_320_fpn(weights=enum)  # torchvision finds it there
    own = detection.FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.DEFAULT
    for options in ({"weights": enum}, {"weights": own}, {"weights": "DEFAULT"}, {"pretrained": True}):
        model = detection.fasterrcnn_mobilenet_v3_large_320_fpn(**options)
        state = model.state_dict()
        assert all(torch.equal(state[key], value) for key, value in again.state_dict().items())
        assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in again.parameters()]
    backbone = pytest.importorskip("torchvision").models.mobilenet_v3_large(weights=None)
    torch.save(backbone.state_dict(), torch_home / "mobilenet_v3_large-5c1a4163.pth")
    model = detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights_backbone="DEFAULT")
    assert torch.equal(model.backbone.body["0"][0].weight, backbone.features[0][0].weight)


@pytest.mark.parametrize("name", [*BUILDERS, "fasterrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn"])
def test_nothing_is_downloaded(peer: ModuleType, name: str) -> None:
    enum = next(
        value
        for key, value in vars(peer).items()
        if key.endswith("_Weights") and key.lower().removesuffix("_weights") == name
    ).DEFAULT
    builder = getattr(detection, name)
    for options in ({"weights": enum}, {"weights": "DEFAULT"}, {"weights": str(enum)}, {"pretrained": True}):
        with pytest.raises(ValueError, match="nothing is downloaded") as caught:
            builder(**options)
        file = enum.url.rsplit("/", 1)[1]
        assert f"curl -LO {enum.url} and pass weights='{file}'" in str(caught.value)
    with pytest.raises(ValueError, match="nothing is downloaded"):
        builder(True)
    path = importlib.import_module(f"fastcv.models.detection.{name.split('rcnn_')[0]}_rcnn")
    assert getattr(path, name) is builder
    own = getattr(path, type(enum).__name__)
    assert own is getattr(detection, type(enum).__name__)
    assert [(m.name, m.url) for m in own] == [(m.name, m.value.url) for m in type(enum)]
    assert own.DEFAULT.url == enum.url
    with pytest.raises(ValueError, match=f"got {own.__name__}.COCO_V1: nothing is downloaded.*curl -LO {enum.url}"):
        builder(weights=own.DEFAULT)
    with pytest.raises(
        FileNotFoundError, match=rf"there is no checkpoint nowhere\.pth.*curl -LO {re.escape(enum.url)}"
    ):
        builder(weights="nowhere.pth")
    with torch.device("meta"):
        assert builder(pretrained=False, pretrained_backbone=False)


@pytest.mark.parametrize("name", [*BUILDERS, "fasterrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn"])
def test_what_programs_ask_weights_for(peer: ModuleType, name: str) -> None:
    """The names of the classes, and what is done to an image: as in the examples of torchvision's pages."""
    key = next(key for key in vars(peer) if key.endswith("_Weights") and key.lower().removesuffix("_weights") == name)
    ours, theirs = getattr(detection, key).DEFAULT, getattr(peer, key).DEFAULT
    assert {entry: theirs.meta[entry] for entry in ours.meta} == ours.meta
    assert ours.meta["categories"] == theirs.meta["categories"]
    assert ("keypoint_names" in ours.meta) == ("keypoint_names" in theirs.meta)
    prepare, wanted = ours.transforms(), theirs.transforms()
    pixels = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3) * 8
    plain = torch.from_numpy(pixels).permute(2, 0, 1)
    pictures = [Image.fromarray(pixels), Image.fromarray(pixels[..., 0]), Image.fromarray(pixels).convert("1")]
    kinds = (torch.uint8, torch.int16, torch.int32, torch.bool, torch.float32, torch.float64, torch.float16)
    for image in [*pictures, *(plain.to(kind) for kind in kinds), plain[None]]:
        assert torch.equal(prepare(image), wanted(image)), image
        assert prepare(image).dtype is torch.float32
    with pytest.raises(ValueError, match=r"img must be an image \(H, W\) or \(H, W, C\), got an array of shape \(3,\)"):
        prepare([1, 2, 3])


def test_other_weights_that_are_refused() -> None:
    with pytest.raises(ValueError, match="There is no published checkpoint of fasterrcnn_tiny_fpn"):
        small(weights="DEFAULT")
    with pytest.raises(ValueError, match=r"weights_backbone must be .*curl -LO .*resnet50-11ad3fa6\.pth"):
        detection.fasterrcnn_resnet50_fpn(pretrained_backbone=True)
    with pytest.raises(ValueError, match=r"curl -LO .*resnet18-f37072fd\.pth"):
        detection.resnet_fpn_backbone("resnet18", True)
    with pytest.raises(TypeError, match="weights must be the path of a checkpoint, a state_dict or None, got int"):
        small(weights=3)
    with pytest.raises(TypeError, match="'trained'"):
        small(trained=True)
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint nowhere\.pth\.$"):
        small(weights="nowhere.pth")


# ---- backbones -------------------------------------------------------------------------------------------------------


def test_arguments_of_resnet_fpn_backbone(peer: ModuleType) -> None:
    """By position, as programs from before torchvision 0.13 call it."""
    from torchvision.ops import feature_pyramid_network as pyramids

    torch.manual_seed(0)
    ours = detection.resnet_fpn_backbone("resnet18", False, nn.BatchNorm2d, 5, [2, 3, 4], fastcv_p6p7())
    theirs = peer.backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=pyramids.LastLevelP6P7(256, 256),
    )
    theirs.load_state_dict(ours.state_dict())
    x = torch.rand(2, 3, 64, 96)
    expected, actual = theirs.eval()(x), ours.eval()(x)
    assert list(actual) == list(expected) == ["0", "1", "2", "p6", "p7"]
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, rtol=1e-3, atol=1e-4)
    with pytest.raises(TypeError, match="there is no argument 'layers'"):
        detection.resnet_fpn_backbone("resnet18", layers=3)


def fastcv_p6p7() -> nn.Module:
    from fastcv.ops.feature_pyramid_network import LastLevelP6P7

    return LastLevelP6P7(256, 256)


def test_backbone_with_fpn_of_any_network(peer: ModuleType) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)).double()
    arguments = (network, {"0": "fine", "1": "coarse"}, [4, 6], 5)
    torch.manual_seed(0)
    theirs = peer.backbone_utils.BackboneWithFPN(*arguments).double()
    ours = detection.BackboneWithFPN(*arguments).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(ours(x), dict(theirs(x)))
    with pytest.raises(ValueError, match=r"return_layers must name children of the model, \['0', '1', '2'\], got"):
        detection.BackboneWithFPN(network, {"5": "0"}, [4], 5)


@pytest.mark.parametrize("fpn", [True, False])
def test_mobilenet_backbone(peer: ModuleType, fpn: bool) -> None:
    options: dict[str, Any] = {"backbone_name": "mobilenet_v3_large", "weights": None, "fpn": fpn}
    options |= {"returned_layers": [1, 3], "trainable_layers": 4} if fpn else {}
    theirs = peer.backbone_utils.mobilenet_backbone(**options).double().eval()
    ours = detection.mobilenet_backbone(**options).double().eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    expected = theirs(x)
    torch.testing.assert_close(ours(x), dict(expected) if fpn else expected)
    assert ours.out_channels == theirs.out_channels == 256
    frozen = [{k for k, p in model.named_parameters() if not p.requires_grad} for model in (ours, theirs)]
    assert frozen[0] == frozen[1] != set()
    for changed, text in (
        ({"backbone_name": "mobilenet_v2"}, "backbone_name must be mobilenet_v3_large"),
        ({"trainable_layers": 7}, "trainable_layers must be 0 to 6, got 7"),
        ({"fpn": True, "returned_layers": [6]}, r"returned_layers must be between 0 and 5, got \[6\]"),
    ):
        with pytest.raises(ValueError, match=text):
            detection.mobilenet_backbone(**{**options, **changed})

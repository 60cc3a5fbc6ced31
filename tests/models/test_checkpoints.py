"""Names of parameters, checkpoints old and new, and those of other models."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastcv.models import detection
from fastcv.models.detection import load_weights
from fastcv.models.detection.weights import lacks_eps
from fastcv.nn.batch_norm import FrozenBatchNorm2d

OPTIONS: dict[str, Any] = {"num_classes": 4, "min_size": 96, "max_size": 128}


def tiny(kind: str = "maskrcnn", seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return detection.create(f"{kind}_tiny_fpn", **OPTIONS)


@pytest.mark.parametrize(("kind", "norm_keys", "frozen_keys"), [
    ("fasterrcnn", 348, 295), ("maskrcnn", 360, 307), ("keypointrcnn", 366, 313),
])  # fmt: skip
def test_names_and_shapes_are_torchvisions(kind: str, norm_keys: int, frozen_keys: int) -> None:
    theirs = pytest.importorskip("torchvision").models
    from torchvision.ops import FrozenBatchNorm2d as TheirFrozen

    builder, peer = getattr(detection, f"{kind}_resnet50_fpn"), getattr(theirs.detection, f"{kind}_resnet50_fpn")
    with torch.device("meta"):
        ours, reference = builder(), peer(weights=None, weights_backbone=None)
    shapes = {key: value.shape for key, value in reference.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == shapes
    assert list(ours.state_dict()) == list(shapes)
    assert len(shapes) == norm_keys
    with torch.device("meta"):
        frozen = detection.resnet_fpn_backbone(backbone_name="resnet50")
        their_frozen = theirs.detection.backbone_utils.resnet_fpn_backbone(
            backbone_name="resnet50", weights=None, norm_layer=TheirFrozen
        )
    assert list(frozen.state_dict()) == list(their_frozen.state_dict())
    rest = [key for key in shapes if not key.startswith("backbone.")]
    assert len(rest) + len(frozen.state_dict()) == frozen_keys
    trained = {name for name, parameter in their_frozen.named_parameters() if parameter.requires_grad}
    assert {name for name, parameter in frozen.named_parameters() if parameter.requires_grad} == trained


def test_the_small_models_are_small() -> None:
    for kind in ("fasterrcnn", "maskrcnn", "keypointrcnn"):
        model = detection.create(f"{kind}_tiny_fpn")
        assert sum(parameter.numel() for parameter in model.parameters()) <= 1_000_000


@pytest.mark.parametrize("name", detection.MODELS)
def test_every_name_makes_a_model(name: str) -> None:
    with torch.device("meta"):
        model = detection.create(name)
    assert isinstance(model, detection.FasterRCNN)


def test_an_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"name must be one of fasterrcnn_tiny_fpn.* got 'yolo'"):
        detection.create("yolo")


def assert_loaded(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    own = model.state_dict()
    for key, value in state.items():
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(own[key], value, rtol=0, atol=0)


def test_pth_and_its_wrapping(tmp_path: Path) -> None:
    state = tiny(seed=1).state_dict()
    torch.save(state, tmp_path / "plain.pth")
    torch.save({"model": state, "epoch": 3}, tmp_path / "trained.pth")
    for name in ("plain.pth", "trained.pth"):
        model = tiny()
        assert load_weights(model, tmp_path / name) is model
        assert_loaded(model, state)


def test_safetensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    state = tiny(seed=1).state_dict()
    safetensors.save_file(state, tmp_path / "model.safetensors")
    assert_loaded(load_weights(tiny(), tmp_path / "model.safetensors"), state)
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        load_weights(tiny(), tmp_path / "broken.safetensors")


def test_safetensors_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ImportError, match=r"pip install safetensors"):
        load_weights(tiny(), tmp_path / "model.safetensors")


OLD_NAMES = {
    "backbone.fpn.inner_blocks.2.0.": "backbone.fpn.inner_blocks.2.",
    "backbone.fpn.layer_blocks.0.0.": "backbone.fpn.layer_blocks.0.",
    "rpn.head.conv.0.0.": "rpn.head.conv.",
    "roi_heads.mask_head.1.0.": "roi_heads.mask_head.mask_fcn2.",
}


def test_checkpoints_of_old(tmp_path: Path) -> None:
    """Names of before torchvision 0.13, and statistics without a count of batches."""
    state = tiny(seed=1).state_dict()
    old = {}
    for key, value in state.items():
        for new, former in OLD_NAMES.items():
            key = key.replace(new, former) if key.startswith(new) else key
        if not key.endswith("num_batches_tracked"):
            old[key] = value
    assert len(set(old) - set(state)) == 2 * len(OLD_NAMES)
    torch.save(old, tmp_path / "old.pth")
    assert_loaded(load_weights(tiny(), tmp_path / "old.pth"), state)
    model = tiny()  # load_state_dict understands them as well
    assert not model.load_state_dict(dict(old), strict=False).unexpected_keys
    assert_loaded(model, state)


def test_weights_bring_frozen_normalisation_and_their_number_of_classes(tmp_path: Path) -> None:
    state = tiny("keypointrcnn", seed=1).state_dict()
    torch.save(state, tmp_path / "model.pth")
    model = detection.create("keypointrcnn_tiny_fpn", weights=tmp_path / "model.pth")
    assert model.roi_heads.box_predictor.cls_score.out_features == 4
    frozen = [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]
    assert len(frozen) == 12
    assert {module.eps for module in frozen} == {1e-5}
    assert not any("num_batches_tracked" in key for key in model.state_dict())
    trained = {name for name, parameter in model.backbone.body.named_parameters() if parameter.requires_grad}
    assert trained == {name for name in trained if name.startswith(("layer2", "layer3", "layer4"))} != set()
    other = detection.create("keypointrcnn_tiny_fpn", weights=tmp_path / "model.pth", norm_eps=0.0)
    assert {module.eps for module in other.modules() if isinstance(module, FrozenBatchNorm2d)} == {0.0}


def test_weights_of_the_backbone(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision").models
    state = models.resnet18().state_dict()
    torch.save(state, tmp_path / "resnet18.pth")
    model = detection.create("fasterrcnn_resnet18_fpn", weights_backbone=tmp_path / "resnet18.pth")
    assert_loaded(model.backbone.body, {key: value for key, value in state.items() if not key.startswith("fc.")})


def test_torchvisions_own_checkpoints_lack_eps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some.pth").write_bytes(b"content")
    assert not lacks_eps(tmp_path / "some.pth")
    digest = hashlib.sha256(b"content").hexdigest()
    monkeypatch.setattr("fastcv.models.detection.weights._WITHOUT_EPS", (digest[:8],))
    assert lacks_eps(tmp_path / "some.pth")


def test_a_checkpoint_of_another_model(tmp_path: Path) -> None:
    torch.save(tiny("fasterrcnn").state_dict(), tmp_path / "faster.pth")
    model = tiny()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(KeyError, match=r"another model: 8 missing \(roi_heads.mask_head.0.0.weight.*; 0 unexpected"):
        load_weights(model, tmp_path / "faster.pth")
    torch.save(model.state_dict(), tmp_path / "mask.pth")
    with pytest.raises(KeyError, match=r"0 missing; 8 unexpected \(roi_heads.mask_head.0.0.weight"):
        load_weights(tiny("fasterrcnn"), tmp_path / "mask.pth")
    torch.save(detection.create("maskrcnn_tiny_fpn", num_classes=7).state_dict(), tmp_path / "seven.pth")
    with pytest.raises(ValueError, match=r"cls_score.weight must have shape \(4, 128\), got \(7, 128\).*classes"):
        load_weights(model, tmp_path / "seven.pth")
    assert_loaded(model, before)


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("evil"),))


def test_files_that_are_no_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*nowhere\.pth"):
        load_weights(tiny(), "nowhere.pth")
    Path("text.pth").write_text("not a checkpoint")
    Path("empty.pth").write_bytes(b"")
    Path("evil.pth").write_bytes(pickle.dumps({"weight": Evil()}))
    torch.save({"weight": Evil()}, "evil_too.pth")
    why = {
        "text.pth": "it was not written by torch.save", "empty.pth": "it is empty",
        "evil.pth": "it is damaged, or holds other things than tensors",
        "evil_too.pth": "it is damaged, or holds other things than tensors",
    }  # fmt: skip
    for name, reason in why.items():
        with pytest.raises(ValueError, match=f"{name} cannot be read as a checkpoint of tensors: {reason}"):
            load_weights(tiny(), name)
    assert not Path("evil").exists()
    torch.save([1, 2], "list.pth")
    with pytest.raises(ValueError, match="must hold a state_dict"):
        load_weights(tiny(), "list.pth")


KEY, BIAS = "backbone.body.conv1.weight", "roi_heads.box_predictor.cls_score.bias"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("key", "change", "message"), [
    (3, lambda _: torch.zeros(1), "must hold tensors by name, got the key 3"),
    (BIAS, lambda bias: bias[0], r"cls_score.bias must have shape \(4,\), got \(\)"),
    (KEY, Tensor.to_sparse, "conv1.weight must be a dense tensor, got one that is sparse"),
    (KEY, lambda w: torch.nested.nested_tensor(list(w)), "conv1.weight must be a dense .* is sparse or nested"),
    (KEY, lambda w: w.to("meta"), "conv1.weight must be a dense tensor, got one that is without data"),
    (KEY, lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8), "conv1.weight must be a dense .* is quantized"),
    (KEY, lambda w: w.to(torch.complex64), "conv1.weight must hold real numbers, got complex64"),
    (KEY, Tensor.long, "conv1.weight must be of a dtype like float32, got int64"),
])  # fmt: skip
def test_tensors_that_no_model_has(tmp_path: Path, key: Any, change: Any, message: str) -> None:
    """Each is the last of the file, after all that fits: nothing of it is loaded."""
    state: dict[Any, Any] = tiny(seed=1).state_dict()
    state[key] = change(state.pop(key, None))
    torch.save(state, tmp_path / "model.pth")
    model = tiny()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_weights(model, tmp_path / "model.pth")
    assert_loaded(model, before)
    with pytest.raises(ValueError, match=r"model\.pth"):
        detection.create("maskrcnn_tiny_fpn", weights=tmp_path / "model.pth")


def test_dtypes_of_the_same_kind_are_converted(tmp_path: Path) -> None:
    state = tiny(seed=1).state_dict()
    torch.save(
        {key: value.double() if value.is_floating_point() else value for key, value in state.items()},
        tmp_path / "m.pth",
    )
    assert_loaded(load_weights(tiny(), tmp_path / "m.pth"), state)


def test_a_model_without_memory_loads_nothing(tmp_path: Path) -> None:
    torch.save(tiny().state_dict(), tmp_path / "model.pth")
    with pytest.raises(ValueError, match="on the device meta"):
        load_weights(tiny().to("meta"), tmp_path / "model.pth")


def test_an_optimized_model_loads_nothing(tmp_path: Path) -> None:
    torch.save(tiny().state_dict(), tmp_path / "model.pth")
    with pytest.raises(ValueError, match="optimized model cannot load weights"):
        load_weights(tiny().optimize(), tmp_path / "model.pth")

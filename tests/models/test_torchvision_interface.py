"""Methods of torchvision's detectors that programs call and replace, batches of images, and gradients to images."""

from __future__ import annotations

import copy
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Backend
from rcnn_problems import CLASSES, KINDS, OPTIONS, images, make_pair, targets
from torch import Tensor, nn

from fastcv.models import detection
from fastcv.models.detection import region_proposal, roi_heads


@pytest.fixture(scope="module")
def peer() -> ModuleType:
    torchvision = pytest.importorskip("torchvision")
    try:
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except RuntimeError as error:
        pytest.skip(f"torchvision's operators do not load here: {str(error).splitlines()[0]}")
    return torchvision.models.detection


def small(kind: str = "fasterrcnn", seed: int = 2) -> Any:
    torch.manual_seed(seed)
    return detection.create(f"{kind}_tiny_fpn", num_classes=CLASSES, **OPTIONS)


PATHS = "rpn roi_heads transform generalized_rcnn anchor_utils _utils image_list backbone_utils faster_rcnn mask_rcnn"


@pytest.mark.parametrize("path", PATHS.split())
def test_paths_and_methods(peer: ModuleType, path: str) -> None:
    """Each class of ours has the public methods of torchvision's, with the same names of arguments."""
    theirs = importlib.import_module(f"torchvision.models.detection.{path}")
    ours = importlib.import_module(f"fastcv.models.detection.{path}")
    compared = 0
    for name, value in vars(theirs).items():
        if not inspect.isclass(value) or not value.__module__.startswith("torchvision.models.detection"):
            continue
        mine = getattr(ours, name, None)
        if mine is None or name.endswith("_Weights"):
            continue
        compared += 1
        for method, function in vars(value).items():
            if method.startswith("_") or not inspect.isfunction(function) or method == "set_low_quality_matches_":
                continue
            left, right = (list(inspect.signature(f).parameters) for f in (getattr(mine, method), function))
            assert left[: len(right)] == right or method in ("forward", "__call__"), (name, method)
    assert compared


def test_names_of_modules(peer: ModuleType) -> None:
    """The common imports, such as the one of the tutorial that finetunes a detector."""
    for path, names in {
        "faster_rcnn": ("FasterRCNN", "FastRCNNPredictor", "TwoMLPHead", "FastRCNNConvFCHead", "AnchorGenerator"),
        "mask_rcnn": ("MaskRCNN", "MaskRCNNPredictor", "MaskRCNNHeads"),
        "keypoint_rcnn": ("KeypointRCNN", "KeypointRCNNPredictor", "KeypointRCNNHeads"),
        "rpn": ("RegionProposalNetwork", "RPNHead", "AnchorGenerator", "concat_box_prediction_layers"),
        "transform": ("GeneralizedRCNNTransform", "paste_masks_in_image"),
        "roi_heads": ("RoIHeads", "fastrcnn_loss", "paste_masks_in_image"),
        "image_list": ("ImageList",),
        "_utils": ("BoxCoder", "Matcher", "BalancedPositiveNegativeSampler"),
    }.items():
        module = importlib.import_module(f"fastcv.models.detection.{path}")
        for name in names:
            assert hasattr(module, name), (path, name)
    made = {info.name for info in pkgutil.iter_modules(detection.__path__)}
    assert made >= {"rpn", "anchor_utils", "backbone_utils", "image_list", "_utils"}


def evaluate(model: Any, batch: list[Tensor], wanted: list[dict[str, Tensor]], helpers: tuple[Any, Any]) -> Any:
    """The function that many programs have, for losses and detections at once: it calls everything by hand."""
    concat, loss = helpers
    sizes = [tuple(image.shape[-2:]) for image in batch]
    torch.manual_seed(4)
    transformed, moved = model.transform(batch, wanted)
    features = model.backbone(transformed.tensors)
    maps = list(features.values())
    logits, offsets = model.rpn.head(maps)
    anchors = model.rpn.anchor_generator(transformed, maps)
    counts = [level[0].numel() for level in logits]
    objectness, deltas = concat(logits, offsets)
    proposals = model.rpn.box_coder.decode(deltas.detach(), anchors).view(len(anchors), -1, 4)
    boxes, scores = model.rpn.filter_proposals(proposals, objectness, transformed.image_sizes, counts)
    labels, matched = model.rpn.assign_targets_to_anchors(anchors, moved)
    rpn = model.rpn.compute_loss(objectness, deltas, labels, model.rpn.box_coder.encode(matched, anchors))
    heads = model.roi_heads
    chosen, indices, classes, wanted_offsets = heads.select_training_samples(boxes, moved)
    pooled = heads.box_head(heads.box_roi_pool(features, chosen, transformed.image_sizes))
    class_logits, regression = heads.box_predictor(pooled)
    box = loss(class_logits, regression, classes, wanted_offsets)
    found = heads.postprocess_detections(class_logits, regression, chosen, transformed.image_sizes)
    detections = [dict(zip(("boxes", "scores", "labels"), image, strict=True)) for image in zip(*found, strict=True)]
    model.transform.eval()
    detections = model.transform.postprocess(detections, transformed.image_sizes, sizes)
    model.transform.train(model.training)
    own, own_loss = model.rpn(transformed, features, moved)
    return {
        "losses": [*rpn, *box],
        "proposals": (*boxes, *scores, *own),
        "matches": (*labels, *indices, *classes),
        "detections": [[image[key] for key in ("boxes", "scores", "labels")] for image in detections],
        "own": list(own_loss.values()),
    }


@pytest.mark.parametrize("training", [False, True])
def test_everything_called_by_hand(peer: ModuleType, training: bool) -> None:
    ours, theirs = (model.double().train(training) for model in make_pair(peer, "fasterrcnn"))
    helpers = [
        (importlib.import_module("torchvision.models.detection.rpn").concat_box_prediction_layers,
         importlib.import_module("torchvision.models.detection.roi_heads").fastrcnn_loss),
        (region_proposal.concat_box_prediction_layers, roi_heads.fastrcnn_loss),
    ]  # fmt: skip
    batch, wanted = images(torch.float64, flat=False), targets("fasterrcnn", torch.float64)
    expected, actual = (evaluate(m, batch, wanted, h) for m, h in zip((theirs, ours), helpers, strict=True))
    assert sum(len(image[0]) for image in expected["detections"]) > 5
    assert expected["losses"][1] > 0

    def check(left: Any, right: Any, name: str) -> None:
        if isinstance(right, Tensor):
            torch.testing.assert_close(left.double(), right.double(), rtol=1e-5, atol=1e-5, msg=lambda m: name + m)
            return
        for a, b in zip(left, right, strict=True):
            check(a, b, name)

    for name, value in expected.items():
        check(actual[name], value, name)


REPLACED: dict[str, Callable[[Any], None]] = {
    "nothing": lambda model: None,
    "filter_proposals": lambda model: wrap(model.rpn, "filter_proposals"),
    "compute_loss": lambda model: wrap(model.rpn, "compute_loss"),
    "assign_targets_to_anchors": lambda model: wrap(model.rpn, "assign_targets_to_anchors"),
    "post_nms_top_n": lambda model: setattr(model.rpn, "post_nms_top_n", lambda: 60),
    "anchors": lambda model: wrap(model.rpn.anchor_generator, "grid_anchors"),
    "postprocess_detections": lambda model: wrap(model.roi_heads, "postprocess_detections"),
    "select_training_samples": lambda model: wrap(model.roi_heads, "select_training_samples"),
    "assign_targets_to_proposals": lambda model: wrap(model.roi_heads, "assign_targets_to_proposals"),
    "hooks": lambda model: (model.rpn.register_forward_hook(note), model.roi_heads.register_forward_hook(note)),
    "postprocess": lambda model: wrap(model.transform, "postprocess"),
    "batch_images": lambda model: wrap(model.transform, "batch_images"),
    "resize": lambda model: wrap(model.transform, "resize"),
}
CALLS: list[str] = []


def note(*_: Any) -> None:
    CALLS.append("hooks")


def wrap(part: Any, name: str) -> None:
    """Replace a method as a program does, by one that calls it."""
    own = getattr(part, name)

    def replaced(*arguments: Any, **options: Any) -> Any:
        CALLS.append(name)
        return own(*arguments, **options)

    setattr(part, name, replaced)


@pytest.mark.parametrize("name", REPLACED)
def test_what_a_program_replaces_is_called(name: str) -> None:
    """And where it does the same, so does the model."""
    plain, changed = small("maskrcnn"), small("maskrcnn")
    REPLACED[name](changed)
    results = []
    for model in (plain, changed):
        CALLS.clear()
        torch.manual_seed(1)
        losses = model.train()(images(), targets("maskrcnn"))
        with torch.no_grad():
            results.append((losses, model.eval()(images())))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)
    expected = {"nothing": None, "post_nms_top_n": None, "anchors": "grid_anchors"}.get(name, name)
    assert set(CALLS) == ({expected} - {None})


def test_parts_of_other_makers() -> None:
    """A network of proposals and heads with torchvision's results, which know nothing of this package."""

    class Proposals(nn.Module):
        def forward(self, images: Any, features: Any, targets: Any = None) -> Any:
            boxes = torch.tensor([[5.0, 5, 50, 60], [10, 10, 90, 80]])
            losses = {"loss_objectness": torch.ones(())} if self.training else {}
            return [boxes for _ in images.image_sizes], losses

    class Heads(nn.Module):
        def forward(self, features: Any, proposals: Any, sizes: Any, targets: Any = None) -> Any:
            found = [{"boxes": b, "labels": torch.ones(len(b)).long(), "scores": torch.ones(len(b))} for b in proposals]
            return ([], {"loss_classifier": torch.zeros(())}) if self.training else (found, {})

    model = small()
    model.rpn = Proposals()
    found = model.eval()(images())
    assert len(found) == 3
    assert set(model.train()(images(), targets("fasterrcnn"))) >= {"loss_objectness", "loss_box_reg"}
    model.roi_heads = Heads()
    found = model.eval()(images()[:1])
    torch.testing.assert_close(found[0]["boxes"][0], torch.tensor([5.0, 5, 50, 60]) * 120 / 90)
    assert set(model.train()(images(), targets("fasterrcnn"))) == {"loss_objectness", "loss_classifier"}


def test_thresholds_are_read_from_their_objects(peer: ModuleType) -> None:
    ours, theirs = make_pair(peer, "fasterrcnn")
    for model in (ours, theirs):
        model.rpn.proposal_matcher.high_threshold = 0.4
        model.roi_heads.proposal_matcher.high_threshold = 0.3
        model.roi_heads.proposal_matcher.low_threshold = 0.2
        model.roi_heads.box_coder.weights = (5.0, 5.0, 2.0, 2.0)
    boxes, wanted = [torch.rand(80, 4).cumsum(1) * 40], targets("fasterrcnn")[:1]
    expected, actual = (m.rpn.assign_targets_to_anchors(boxes, wanted) for m in (theirs, ours))
    torch.testing.assert_close(actual, tuple(expected))
    expected, actual = (
        m.roi_heads.assign_targets_to_proposals(boxes, [wanted[0]["boxes"]], [wanted[0]["labels"]])
        for m in (theirs, ours)
    )
    torch.testing.assert_close(actual, tuple(expected))
    with torch.no_grad():
        for left, right in zip(ours(images()), theirs(images()), strict=True):
            torch.testing.assert_close(left["boxes"], right["boxes"], rtol=0, atol=1e-2)


def test_matcher_and_sampler(peer: ModuleType) -> None:
    from torchvision.models.detection import _utils as theirs

    ours = importlib.import_module("fastcv.models.detection._utils")
    quality = torch.rand(5, 90, generator=torch.Generator().manual_seed(0)).mul(8).round() / 8
    for low in (False, True):
        assert torch.equal(ours.Matcher(0.9, 0.4, low)(quality), theirs.Matcher(0.9, 0.4, low)(quality))
    for empty in (quality[:0], quality[:, :0]):
        with pytest.raises(ValueError, match="boxes available"):
            ours.Matcher(0.9, 0.4)(empty)
    with pytest.raises(ValueError, match=r"low_threshold must be at most high_threshold 0.4, got 0.9"):
        ours.Matcher(0.4, 0.9)
    labels = [torch.randint(-1, 3, (50,), generator=torch.Generator().manual_seed(1)), torch.zeros(9).float()]
    results = []
    for module in (theirs, ours):
        torch.manual_seed(2)
        results.append(module.BalancedPositiveNegativeSampler(16, 0.5)(labels))
    torch.testing.assert_close(results[1], results[0])
    boxes, codes = torch.rand(6, 4).cumsum(1) * 9, torch.randn(6, 12)
    for weights in ((10.0, 10.0, 5.0, 5.0), (1.0, 1.0, 1.0, 1.0)):
        mine, coder = ours.BoxCoder(weights), theirs.BoxCoder(weights)
        torch.testing.assert_close(
            mine.decode(codes, [boxes[:2], boxes[2:]]), coder.decode(codes, [boxes[:2], boxes[2:]])
        )
        encoded = (c.encode([boxes[:2], boxes[2:]], [boxes[:2] + 1, boxes[2:] + 2]) for c in (mine, coder))
        torch.testing.assert_close(*(list(e) for e in encoded))


# ---- batches and gradients -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_in_one_tensor(kind: str, backend: Backend) -> None:
    made = small(kind).to(backend.device)
    batch = torch.stack([images()[0], images()[0].flip(2)]).to(backend.device)
    wanted = [{k: v.to(backend.device) for k, v in targets(kind)[0].items()}] * 2
    results = []
    for given in (batch, list(batch)):
        model = copy.deepcopy(made)
        torch.manual_seed(3)
        losses = model.train()(given, wanted)
        with torch.no_grad():
            results.append((losses, model.eval()(given)))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    with pytest.raises(TypeError, match=r"images must be a list of tensors \(C, H, W\)"):
        model(batch[0])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_images(peer: ModuleType, kind: str, training: bool) -> None:
    """As those who attack or explain a detector want them."""
    gradients = []
    for model in make_pair(peer, kind):
        model.double().train(training)
        leaves = [image.requires_grad_() for image in images(torch.float64, flat=False)]
        torch.manual_seed(4)
        if training:
            values = list(model(leaves, targets(kind, torch.float64)).values())
        else:
            found = model(leaves)
            keys = [key for key in ("boxes", "scores", "keypoints_scores") if key in found[0]]
            values = [image[key].sum() for image in found for key in keys]
        gradients.append(torch.autograd.grad(torch.stack([value.double() for value in values]).sum(), leaves))
    for actual, expected in zip(*gradients, strict=True):
        assert expected.abs().max() > 0
        assert (actual - expected).norm() <= 1e-4 * expected.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_targets_that_torchvision_takes(peer: ModuleType, kind: str) -> None:
    """Boxes in whole pixels, and nothing of an image without objects in the shapes that datasets write."""
    ours, theirs = (model.train() for model in make_pair(peer, kind))
    whole = [{**target, "boxes": target["boxes"].round().long()} for target in targets(kind)]
    nothing: dict[str, Tensor] = {
        "boxes": torch.zeros(0, 4, dtype=torch.int64),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, 7, 9, dtype=torch.uint8),
        "keypoints": torch.zeros(17, 0, 3),
    }
    for batch in (whole, [nothing, *whole[1:]], [nothing] * len(whole)):
        losses = []
        for model in (ours, theirs):
            torch.manual_seed(4)
            losses.append({name: value.detach() for name, value in model(images(), batch).items()})
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-3, atol=1e-4)


def test_pasting_by_the_name_of_torchvision(peer: ModuleType) -> None:
    masks = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[3.0, 4, 30, 40], [10, 10, 20, 15], [-5, -5, 60, 60]])
    for options in ({}, {"padding": 2}):
        expected = peer.roi_heads.paste_masks_in_image(masks, boxes, (50, 60), **options)
        actual = roi_heads.paste_masks_in_image(masks, boxes, img_shape=(50, 60), **options)
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor, np.array])
def test_options_of_any_kind(kind: Callable[[Any], Any]) -> None:
    """Means of images that are normalised already, for one; numbers of numpy."""
    torch.manual_seed(0)
    own = {"image_mean": kind([0.0, 0.0, 0.0]), "image_std": kind([1.0, 1.0, 1.0])}
    own |= {"bbox_reg_weights": kind([10.0, 10.0, 5.0, 5.0])}
    backbone = detection.resnet_fpn_backbone(backbone_name="tiny", out_channels=32, returned_layers=kind([2, 3]))
    assert backbone.body.returned_layers == [2, 3]
    model = detection.create("fasterrcnn_tiny_fpn", num_classes=CLASSES, **{**OPTIONS, "min_size": np.int64(90)}, **own)
    assert model.eval().transform.min_size == (90,)
    image = 4 * images()[0]
    assert torch.equal(model.transform.normalize(image), image)
    with torch.no_grad():
        assert len(model([image])) == 1

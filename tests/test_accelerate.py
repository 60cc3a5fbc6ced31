"""torchvision's detection models under accelerate_torchvision(): equal answers, and everything put back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import fastcv
from fastcv import ops

MODELS = ["fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn", "retinanet_resnet50_fpn"]


@pytest.fixture(scope="module")
def detection() -> ModuleType:
    try:
        import torchvision
        from torchvision.models import detection

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision's operators do not load here: {str(error).splitlines()[0]}")
    return detection


def make_model(detection: ModuleType, name: str) -> Any:
    torch.manual_seed(0)
    options: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": 5}
    options |= {"min_size": 128, "max_size": 192, "box_detections_per_img": 30} if "rcnn" in name else {}
    if "retinanet" in name:
        options |= {"min_size": 128, "max_size": 192, "score_thresh": 0.01}
    elif "rcnn" in name:
        options |= {"box_score_thresh": 0.01, "box_batch_size_per_image": 32}
        for phase in ("train", "test"):
            options |= {f"rpn_pre_nms_top_n_{phase}": 300, f"rpn_post_nms_top_n_{phase}": 60}
    model = getattr(detection, name)(**options)
    for module in model.modules():  # random batch statistics, so that features are not all alike
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, 120, 160, generator=generator), torch.rand(3, 140, 100, generator=generator)]


def targets(name: str) -> list[dict[str, Tensor]]:
    """One image with three objects, one without any."""
    boxes = torch.tensor([[10.0, 12, 60, 70], [30, 20, 120, 100], [5, 60, 90, 118]])
    filled = {"boxes": boxes, "labels": torch.tensor([1, 2, 4])}
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    if "mask" in name:
        masks = torch.zeros(3, 120, 160, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        filled["masks"], empty["masks"] = masks, torch.zeros(0, 140, 100, dtype=torch.uint8)
    if "keypoint" in name:
        keypoints = torch.rand(3, 17, 3, generator=torch.Generator().manual_seed(2))
        keypoints[..., :2] = keypoints[..., :2] * 50 + boxes[:, None, :2]
        keypoints[..., 2] = 1
        filled["keypoints"], empty["keypoints"] = keypoints, torch.zeros(0, 17, 3)
    return [filled, empty]


def both(call: Callable[[], Any]) -> tuple[Any, Any]:
    torch.manual_seed(3)
    expected = call()
    torch.manual_seed(3)
    with fastcv.accelerate_torchvision():
        actual = call()
    return expected, actual


@pytest.mark.parametrize("name", MODELS)
def test_same_detections(detection: ModuleType, name: str) -> None:
    model = make_model(detection, name).eval()
    with torch.no_grad():
        expected, actual = both(lambda: model(images()))
    assert sum(len(result["boxes"]) for result in expected) > 20
    for left, right in zip(expected, actual, strict=True):
        assert left.keys() == right.keys()
        assert torch.equal(left["labels"], right["labels"])
        torch.testing.assert_close(right["boxes"], left["boxes"], rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(right["scores"], left["scores"], rtol=1e-4, atol=1e-4)
        for key in ("masks", "keypoints_scores"):
            if key in left:
                torch.testing.assert_close(right[key], left[key], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_same_losses_and_gradients(detection: ModuleType, name: str) -> None:
    """In float64, where a difference is one of meaning and not of rounding through fifty layers."""
    model = make_model(detection, name).double().train()
    twin = copy.deepcopy(model)

    def step(trained: Any) -> dict[str, float]:
        torch.manual_seed(4)
        doubled = [{k: v.double() if k == "boxes" else v for k, v in t.items()} for t in targets(name)]
        losses = trained([image.double() for image in images()], doubled)
        sum(losses.values()).backward()
        return {key: value.item() for key, value in losses.items()}

    expected = step(model)
    with fastcv.accelerate_torchvision():
        actual = step(twin)
    assert expected.keys() == actual.keys()
    for key, value in expected.items():
        assert actual[key] == pytest.approx(value, rel=1e-9), key
    compared = 0
    for (key, left), right in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert (left.grad is None) == (right.grad is None), key
        if left.grad is not None:
            compared += 1
            assert (right.grad - left.grad).norm() <= 1e-6 * left.grad.norm() + 1e-12, key
    assert compared > 50


def test_the_operators_of_fastcv_are_called(detection: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """In inference and training each patched operator takes part, and the matrix of overlaps is never made."""
    import fastcv.ops as package

    called: set[str] = set()
    for name in ("batched_nms", "match_boxes", "multiscale_roi_align", "box_iou", "roi_align"):
        original = getattr(package, name)

        def spy(*args: Any, _name: str = name, _original: Any = original, **kwargs: Any) -> Any:
            called.add(_name)
            return _original(*args, **kwargs)

        monkeypatch.setattr(package, name, spy)
    model = make_model(detection, "maskrcnn_resnet50_fpn")
    with fastcv.accelerate_torchvision():
        model.train()(images(), targets("mask"))
    assert {"batched_nms", "match_boxes", "roi_align"} <= called
    assert "box_iou" not in called


def test_everything_is_put_back(detection: ModuleType) -> None:
    import torchvision
    from torchvision.models.detection import _utils, anchor_utils, roi_heads, rpn
    from torchvision.ops import poolers

    def state() -> list[Any]:
        modules = [m for n, m in sorted(__import__("sys").modules.items()) if n.split(".")[0] == "torchvision"]
        values = [(n, v) for m in modules for n, v in sorted(vars(m).items()) if callable(v)]
        classes = (_utils.Matcher, anchor_utils.AnchorGenerator, poolers.MultiScaleRoIAlign)
        heads = (rpn.RegionProposalNetwork, roi_heads.RoIHeads)
        return [id(v) for _, v in values] + [id(v) for c in (*classes, *heads) for v in vars(c).values()]

    before = state()
    with fastcv.accelerate_torchvision():
        assert torchvision.ops.nms is ops.nms
        assert torchvision.ops.boxes.nms is ops.nms
        assert torchvision.ops.roi_align is ops.roi_align
        with pytest.raises(RuntimeError, match="in force already"):
            fastcv.accelerate_torchvision()
        assert torchvision.ops.nms is ops.nms
    assert state() == before
    with pytest.raises(ZeroDivisionError), fastcv.accelerate_torchvision():
        raise ZeroDivisionError
    assert state() == before
    acceleration = fastcv.accelerate_torchvision()
    acceleration.restore()
    acceleration.restore()
    assert state() == before

"""Whatever dtypes a function of torchvision.ops accepts, ours accepts, and says the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from fastcv import ops

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64)
FORMATS = ("xyxy", "xywh", "cxcywh")
generator = torch.Generator().manual_seed(0)
corner = torch.randint(0, 20, (2, 7, 2), generator=generator)
BOXES, OTHERS = torch.cat([corner, corner + torch.randint(1, 15, (2, 7, 2), generator=generator)], 2)
SCORES = torch.arange(7).flip(0) + 1
MAPS = torch.rand(1, 4, 40, 40, generator=generator)

Call = Callable[[Any], Tensor]


def calls_of_one(dtype: torch.dtype) -> dict[str, Call]:
    boxes = BOXES.to(dtype)
    calls: dict[str, Call] = {f"box_area {f}": lambda o, f=f: o.box_area(boxes, f) for f in FORMATS}
    for a, b in itertools.product(FORMATS, FORMATS):
        calls[f"box_convert {a} {b}"] = lambda o, a=a, b=b: o.box_convert(boxes, a, b)
    calls["clip_boxes_to_image"] = lambda o: o.clip_boxes_to_image(boxes, (10, 20))
    calls["remove_small_boxes"] = lambda o: o.remove_small_boxes(boxes, 9)
    calls["masks_to_boxes"] = lambda o: o.masks_to_boxes(torch.eye(5).to(dtype)[None])
    return calls


def calls_of_two(first: torch.dtype, second: torch.dtype) -> dict[str, Call]:
    boxes, others = BOXES.to(first), OTHERS.to(second)
    rois = torch.cat([torch.zeros(7, 1, dtype=second), others], 1)
    maps, targets = MAPS.to(first), (OTHERS > 20).to(second)
    calls: dict[str, Call] = {}
    for name in ("box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou"):
        calls[name] = lambda o, name=name: getattr(o, name)(boxes, others)
    for name in ("generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss"):
        for kind in ("none", "mean", "sum"):
            calls[f"{name} {kind}"] = lambda o, name=name, kind=kind: getattr(o, name)(boxes, others, kind)
    for kind in ("none", "mean", "sum"):
        calls[f"focal {kind}"] = lambda o, kind=kind: o.sigmoid_focal_loss(boxes / 9, targets, reduction=kind)
    calls["nms"] = lambda o: o.nms(boxes, SCORES.to(second), 0.3)
    calls["batched_nms"] = lambda o: o.batched_nms(boxes, SCORES.to(first), (SCORES % 3).to(second), 0.3)
    for name in ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool"):
        calls[name] = lambda o, name=name: getattr(o, name)(maps, rois, 2)
        calls[f"{name} of a list"] = lambda o, name=name: getattr(o, name)(maps, [others], 2)
    return calls


def compare(peer: ModuleType, calls: dict[str, Call], close: float) -> int:
    compared = 0
    for name, call in calls.items():
        try:
            expected = call(peer)
        except (TypeError, ValueError, RuntimeError, NotImplementedError):
            continue
        if name.startswith("box_area") and not expected.is_floating_point():
            expected = expected.long()  # ours cannot overflow
        compared += 1
        actual = call(ops)
        assert actual.dtype is expected.dtype, name
        torch.testing.assert_close(
            actual.double(), expected.double(), rtol=close, atol=close, msg=lambda m, n=name: n + m
        )
    return compared


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS, ids=str)
def test_one_dtype(torchvision_ops: ModuleType, dtype: torch.dtype) -> None:
    """torch has too few operations of uint16 for torchvision to do much with it."""
    assert compare(torchvision_ops, calls_of_one(dtype), 1e-2) >= (6 if dtype is torch.uint16 else 14)


@pytest.mark.parametrize("first", FLOATS + INTEGERS, ids=str)
def test_two_dtypes(torchvision_ops: ModuleType, first: torch.dtype) -> None:
    compared = 0
    for second in (*FLOATS, *INTEGERS, torch.bool):
        calls = calls_of_two(first, second)
        if first is second is torch.uint8:  # torchvision subtracts below zero, and wraps
            calls = {name: call for name, call in calls.items() if "box_iou" not in name}
        if second is torch.bool:  # boxes of truth values are refused
            calls = {name: call for name, call in calls.items() if name in ("focal none", "batched_nms")}
        compared += compare(torchvision_ops, calls, 3e-2)
    assert compared > (100 if first.is_floating_point else 8)


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, torch.bool], ids=str)
def test_classes_of_any_dtype(backend: Any, dtype: torch.dtype) -> None:
    """With fractions, negative, and of two zeros, where the dtype has them; a column of detections with a gradient."""
    boxes = torch.rand(90, 4, generator=torch.Generator().manual_seed(1)).mul(20) + torch.tensor([0, 0, 20, 20])
    scores = torch.rand(90, generator=torch.Generator().manual_seed(2))
    idxs = (torch.arange(90) % 5).to(dtype)
    if dtype.is_floating_point:
        idxs = torch.where(torch.arange(90) % 10 == 0, -0.0, (idxs / 4).where(idxs != 3, -7)).to(dtype)
    integers = idxs.double().mul(4).long()
    boxes, scores, idxs = (tensor.to(backend.device) for tensor in (boxes, scores, torch.stack([idxs, idxs], 1)[:, 1]))
    expected = ops.batched_nms(boxes, scores, integers.to(backend.device), 0.3)
    assert 5 < len(expected) < 60
    assert torch.equal(ops.batched_nms(boxes, scores, idxs, 0.3), expected)
    padded, count = ops.batched_nms_padded(boxes[None], scores[None], idxs[None], 0.3, 90)
    assert torch.equal(padded[0, : int(count[0])], expected)
    if dtype.is_floating_point:
        assert torch.equal(ops.batched_nms(boxes, scores, idxs.requires_grad_(), 0.3), expected)


@pytest.mark.parametrize("name", ["generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss"])
def test_gradients_of_degenerate_boxes_are_finite(name: str) -> None:
    """Where the loss is a number. torchvision's complete loss of a box without width and height is none, and ours."""
    kinds = [[0, 0, 0, 0], [0, 0, 10, 0], [0, 0, 0, 10], [0, 0, 10, 10], [5, 5, 5, 5], [3, 3, 1, 1], [40, 40, 50, 60]]
    pairs = torch.tensor(list(itertools.product(kinds, kinds)), dtype=torch.float32)
    for dtype in (torch.float32, torch.float64):  # float16 does not hold the slope of an area divided by eps
        leaves = [pairs[:, side].to(dtype).requires_grad_() for side in range(2)]
        loss = getattr(ops, name)(*leaves)
        finite = loss.isfinite()
        assert finite.all() or name.startswith("complete")
        loss[finite].sum().backward()
        for leaf in leaves:
            assert leaf.grad[finite].isfinite().all()


def test_losses_of_mixed_dtypes_under_autocast(torchvision_ops: ModuleType) -> None:
    logits, targets = torch.randn(6, 4, generator=torch.Generator().manual_seed(3)), (OTHERS[:6] > 10).float()
    for enabled, first, second in itertools.product((False, True), FLOATS, FLOATS):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            for name, a, b in (
                ("sigmoid_focal_loss", logits, targets),
                ("complete_box_iou_loss", BOXES, OTHERS),
                ("generalized_box_iou", BOXES, OTHERS),
            ):
                pairs = [
                    (a.detach().clone().to(first).requires_grad_(), b.detach().clone().to(second).requires_grad_())
                    for _ in range(2)
                ]
                expected, actual = (getattr(o, name)(*p) for o, p in zip((torchvision_ops, ops), pairs, strict=True))
                torch.testing.assert_close(actual.double(), expected.double(), rtol=3e-2, atol=3e-2)
                assert actual.dtype is expected.dtype or (name.startswith("sigmoid") and enabled)
                assert not enabled or actual.dtype.itemsize >= 4
                expected.sum().backward()
                actual.sum().backward()
                for ours, theirs in zip(*reversed(pairs), strict=True):
                    assert ours.grad.dtype is ours.dtype
                    torch.testing.assert_close(ours.grad, theirs.grad, rtol=5e-2, atol=5e-2)

"""The three overlap losses against the reference and torchvision, on every backend."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import ops, reference

NAMES = ("generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss")
SIZES = [1, 3, 7, 8, 15, 16, 17, 31, 32, 33, 257]


def random_boxes(count: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Boxes (N, 4), some of them with whole coordinates, so that sides are shared and boxes touch."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 8
    boxes = torch.cat([corner, corner + 1.6 + torch.rand(count, 2, generator=generator, dtype=torch.float64) * 9], -1)
    return torch.where(torch.rand(count, 1, generator=generator) < 0.4, boxes.round(), boxes).to(dtype)


def gradients(function: Any, boxes1: Tensor, boxes2: Tensor, weight: Tensor, device: str = "cpu") -> list[Tensor]:
    leaves = [boxes1.detach().to(device).requires_grad_(), boxes2.detach().to(device).requires_grad_()]
    return [g.cpu() for g in torch.autograd.grad(function(*leaves), leaves, weight.to(device))]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("eps", [1e-7, 0.3])
@pytest.mark.parametrize("count", SIZES)
def test_values_and_gradients_equal_the_reference(backend: Any, name: str, eps: float, count: int) -> None:
    boxes1, boxes2 = random_boxes(count), random_boxes(count, seed=1)
    boxes2[::5] = boxes1[::5]
    ours, theirs = getattr(ops, name), getattr(reference, name)
    actual = ours(boxes1.to(backend.device), boxes2.to(backend.device), eps=eps)
    torch.testing.assert_close(actual.cpu(), theirs(boxes1, boxes2, eps), rtol=1e-12, atol=1e-12)
    weight = torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    want = gradients(lambda a, b: theirs(a, b, eps), boxes1, boxes2, weight)
    got = gradients(lambda a, b: ours(a, b, eps=eps), boxes1, boxes2, weight, backend.device)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_agrees_with_torchvision(backend: Any, torchvision_ops: Any, name: str, reduction: str) -> None:
    ours, theirs = getattr(ops, name), getattr(torchvision_ops, name)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32):
        tolerance = 1e-12 if dtype is torch.float64 else 2e-5
        for count in (70, 1, 0):
            boxes = [random_boxes(count, dtype, seed) for seed in (0, 1)]
            expected = theirs(*boxes, reduction=reduction, eps=1e-3)
            actual = ours(*(b.to(backend.device) for b in boxes), reduction, 1e-3).cpu()
            assert actual.dtype is expected.dtype
            torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
            if dtype.is_floating_point:
                weight = torch.ones_like(expected)
                want = gradients(lambda a, b: theirs(a, b, reduction=reduction), *boxes, weight)
                got = gradients(lambda a, b: ours(a, b, reduction=reduction), *boxes, weight, backend.device)
                near = tolerance if dtype.itemsize > 2 else 1e-2
                torch.testing.assert_close(got, want, rtol=near, atol=near)
    single = [random_boxes(1, seed=seed)[0] for seed in (0, 1)]
    expected = getattr(reference, name)(*(b[None] for b in single)).reshape(())
    torch.testing.assert_close(ours(*(b.to(backend.device) for b in single), reduction).cpu(), expected)


@pytest.mark.parametrize("name", NAMES)
def test_mixed_dtypes_promote_as_in_torchvision(backend: Any, torchvision_ops: Any, name: str) -> None:
    ours, theirs = getattr(ops, name), getattr(torchvision_ops, name)
    for first, second in itertools.product(
        (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64), repeat=2
    ):
        boxes = random_boxes(40, first), random_boxes(40, second, 1)
        # torchvision fails where only the second is float64, and takes areas of the narrower in float32.
        wide = torch.float64 in (first, second)
        equal = [b.double() for b in boxes] if wide else boxes
        expected = theirs(*equal, reduction="mean")
        actual = ours(*(b.to(backend.device) for b in boxes), "mean").cpu()
        assert actual.dtype is expected.dtype
        tolerance = 1e-12 if wide else 2e-5
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
        if first.is_floating_point and second.is_floating_point:
            want = gradients(lambda a, b: theirs(a, b, reduction="mean"), *equal, torch.ones_like(expected))
            got = gradients(lambda a, b: ours(a, b, "mean"), *boxes, torch.ones_like(expected), backend.device)
            assert [g.dtype for g in got] == [first, second]
            for g, w in zip(got, want, strict=True):
                near = max(torch.finfo(g.dtype).eps, tolerance)
                torch.testing.assert_close(g.double(), w.double(), rtol=near, atol=near)


@pytest.mark.parametrize("name", NAMES)
def test_special_values_are_as_in_torchvision(backend: Any, torchvision_ops: Any, name: str) -> None:
    nan, inf = float("nan"), float("inf")
    rows = torch.tensor(
        [[0.0, 0, 4, 4], [nan, 0, 4, 4], [0, 0, inf, 4], [3, 3, 3, 3], [4, 4, 0, 0], [0, 4, 4, 0], [0, 0, 1e20, 1e20]]
    )
    pairs = [rows.repeat_interleave(len(rows), 0), rows.repeat(len(rows), 1)]
    expected = getattr(torchvision_ops, name)(*pairs)
    actual = getattr(ops, name)(*(b.to(backend.device) for b in pairs)).cpu()
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_memory_that_is_not_aligned(backend: Any, name: str, dtype: torch.dtype) -> None:
    function = getattr(ops, name)
    boxes = [random_boxes(40, dtype, seed).to(backend.device) for seed in (0, 1)]
    shifted = [torch.cat([b.new_zeros(1), b.flatten()])[1:].view(-1, 4) for b in boxes]
    assert torch.equal(function(*shifted), function(*boxes))
    weight = boxes[0][:, 0]
    got, want = (
        torch.autograd.grad(function(*leaves), leaves, weight)
        for leaves in ([b.requires_grad_() for b in shifted], [b.requires_grad_() for b in boxes])
    )
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_strided_boxes_and_gradients(backend: Any, name: str) -> None:
    function = getattr(ops, name)
    wide = random_boxes(300, torch.float32).repeat(1, 2).to(backend.device)
    boxes1, boxes2 = wide[:, 4:], random_boxes(300, torch.float32, 1).to(backend.device)
    leaf = boxes1.clone().requires_grad_()
    loss = function(leaf, boxes2)
    assert torch.equal(function(boxes1, boxes2), loss)
    shaped = function(leaf.reshape(20, 15, 4), boxes2.reshape(20, 15, 4))
    assert torch.equal(shaped, loss.reshape(20, 15))
    weight = wide[:, :2]
    for strided in (weight[:, 0], weight[:1, 0].expand(300), weight.flatten()[:300]):
        (got,) = torch.autograd.grad(loss, leaf, strided, retain_graph=True)
        (want,) = torch.autograd.grad(loss, leaf, strided.contiguous(), retain_graph=True)
        assert torch.equal(got, want)
    for table in (wide[:15, :1].expand(15, 20).T, wide[:20, :1].expand(20, 15), wide[0, 0].expand(20, 15)):
        (got,) = torch.autograd.grad(shaped, leaf, table, retain_graph=True)
        (want,) = torch.autograd.grad(shaped, leaf, table.contiguous(), retain_graph=True)
        assert torch.equal(got, want)


def test_second_derivative_is_refused(backend: Any) -> None:
    leaf = random_boxes(2).to(backend.device).requires_grad_()
    (gradient,) = torch.autograd.grad(
        ops.distance_box_iou_loss(leaf, leaf.detach() + 0.3, "sum"), leaf, create_graph=True
    )
    with pytest.raises(NotImplementedError, match="once, not twice"):
        gradient.sum().backward()


def test_vmap_and_meta(backend: Any) -> None:
    boxes1, boxes2 = (random_boxes(6, torch.float32, seed).to(backend.device) for seed in (0, 1))
    stacked = torch.stack([boxes1, boxes1 + 1])
    for name in NAMES:
        function = getattr(ops, name)
        for reduction in ("none", "mean"):
            expected = torch.stack([function(b, boxes2, reduction) for b in stacked])
            assert torch.equal(torch.vmap(lambda b, f=function, r=reduction: f(b, boxes2, r))(stacked), expected)
        assert function(boxes1.to("meta"), boxes2.to("meta")).shape == (6,)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_boxes_equal_the_reference(backend: Any, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NAMES))
    rows = st.lists(st.tuples(*[st.floats(-100, 100, width=32)] * 8), max_size=20)
    boxes = torch.tensor(data.draw(rows), dtype=torch.float64).reshape(-1, 8)
    expected = getattr(reference, name)(boxes[:, :4], boxes[:, 4:])
    moved = boxes.to(backend.device)
    actual = getattr(ops, name)(moved[:, :4], moved[:, 4:])
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-7, atol=1e-7, equal_nan=True)

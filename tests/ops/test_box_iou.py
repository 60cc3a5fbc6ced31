"""The four overlap matrices against the reference and torchvision, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import ops, reference

NAMES = ("box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou")
SIZES = [(1, 1), (3, 31), (5, 32), (2, 33), (7, 511), (2, 513), (130, 3), (3, 1025)]
NAN, INF = float("nan"), float("inf")
SPECIAL = [
    *([0.0, 0, 10, 10], [0, 0, 10, 10], [5, 5, 15, 15], [10, 0, 20, 10], [10, 10, 20, 20], [2, 2, 8, 8]),
    *([3, 3, 3, 3], [3, 3, 3, 9], [20, 20, 10, 10], [0, 10, 10, 0], [-5, -5, 5, 5], [1e6, 1e6, 1e6 + 1, 1e6 + 1]),
    *([NAN, 0, 10, 10], [0, 0, NAN, 10], [0, 0, INF, 10], [-INF, -INF, INF, INF], [INF, 0, INF, 10]),
    *([0, 0, 1e-20, 1e-20], [0, 0, 1e20, 1e20], [-1e30, 0, 1e30, 1]),
]


def random_boxes(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Boxes (..., 4) of which many overlap, touch, and share sides."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=generator, dtype=torch.float64) * 20
    boxes = torch.cat([corner, corner + 1.6 + torch.rand(*shape, 2, generator=generator, dtype=torch.float64) * 15], -1)
    return torch.where(torch.rand(*shape, 1, generator=generator) < 0.3, boxes.round(), boxes).to(dtype)


def gradients(function: Any, boxes1: Tensor, boxes2: Tensor, weight: Tensor, device: str = "cpu") -> list[Tensor]:
    leaves = [boxes1.detach().to(device).requires_grad_(), boxes2.detach().to(device).requires_grad_()]
    return [g.cpu() for g in torch.autograd.grad(function(*leaves), leaves, weight.to(device))]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_values_and_gradients_equal_the_reference(backend: Any, name: str, n: int, m: int) -> None:
    boxes1, boxes2 = random_boxes(n, seed=n), random_boxes(m, seed=m + 1)
    boxes2[: min(n, m)] = boxes1[: min(n, m)]  # equal boxes: ties everywhere
    expected = getattr(reference, name)(boxes1, boxes2)
    actual = getattr(ops, name)(boxes1.to(backend.device), boxes2.to(backend.device))
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-12, atol=1e-12)
    weight = torch.randn(n, m, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    want = gradients(getattr(reference, name), boxes1, boxes2, weight)
    got = gradients(getattr(ops, name), boxes1, boxes2, weight, backend.device)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_bits_as_torchvision(backend: Any, torchvision_ops: Any, name: str, dtype: torch.dtype) -> None:
    special = torch.tensor(SPECIAL, dtype=dtype)
    for boxes1, boxes2 in (
        (random_boxes(45, dtype=dtype), random_boxes(1037, dtype=dtype, seed=1)),
        (random_boxes(33, dtype=dtype) * 61.7, special),
        (special, torch.cat([random_boxes(20, dtype=dtype, seed=3), special])),
    ):
        expected = getattr(torchvision_ops, name)(boxes1, boxes2)
        actual = getattr(ops, name)(boxes1.to(backend.device), boxes2.to(backend.device)).cpu()
        assert actual.dtype is expected.dtype
        exact = name != "complete_box_iou"  # arc tangents differ in the last bit
        tolerance = 0 if exact else 2e-6 if dtype is torch.float32 else 1e-14
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_equal_torchvision(backend: Any, newest_torchvision_ops: Any, name: str) -> None:
    boxes1, boxes2 = random_boxes(40, dtype=torch.float32), random_boxes(70, dtype=torch.float32, seed=1)
    boxes2[:20] = boxes1[:20]
    boxes2[20:40, :2] = boxes1[20:40, 2:]  # touching corners
    boxes2[20:40, 2:] = boxes2[20:40, :2] + 3
    weight = torch.randn(40, 70, generator=torch.Generator().manual_seed(2))
    want = gradients(getattr(newest_torchvision_ops, name), boxes1, boxes2, weight)
    got = gradients(getattr(ops, name), boxes1, boxes2, weight, backend.device)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_of_one_set_alone(backend: Any, name: str) -> None:
    boxes1, boxes2 = (random_boxes(n, seed=n).to(backend.device).requires_grad_() for n in (7, 20))
    both = torch.autograd.grad(getattr(ops, name)(boxes1, boxes2).square().sum(), (boxes1, boxes2))
    for leaf, expected in zip((boxes1, boxes2), both, strict=True):
        pair = [b if b is leaf else b.detach() for b in (boxes1, boxes2)]
        (gradient,) = torch.autograd.grad(getattr(ops, name)(*pair).square().sum(), leaf)
        assert torch.equal(gradient, expected)


@pytest.mark.parametrize("name", NAMES)
def test_half_types_and_integers_promote_as_in_torchvision(backend: Any, torchvision_ops: Any, name: str) -> None:
    ours, theirs = getattr(ops, name), getattr(torchvision_ops, name)
    boxes = [random_boxes(9), random_boxes(20, seed=1)]
    for dtype in (torch.int32, torch.int64, torch.int16, torch.uint8):
        whole = [b.round().to(dtype) for b in boxes]
        expected = theirs(*whole)
        actual = ours(*(b.to(backend.device) for b in whole)).cpu()
        assert actual.dtype is expected.dtype is torch.float32
        torch.testing.assert_close(actual, getattr(reference, name)(*(b.double() for b in whole)).float())
        if dtype is not torch.uint8:  # torchvision's differences wrap around there
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    for dtype, tolerance in ((torch.float16, 2e-2), (torch.bfloat16, 1e-1)):
        half = [b.to(dtype) for b in boxes]
        expected = theirs(*half)
        actual = ours(*(b.to(backend.device) for b in half)).cpu()
        assert actual.dtype is expected.dtype is torch.float32
        torch.testing.assert_close(actual, getattr(reference, name)(*(b.float() for b in half)), rtol=2e-6, atol=2e-6)
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
        leaf = half[0].to(backend.device).requires_grad_()
        (gradient,) = torch.autograd.grad(ours(leaf, half[1].to(backend.device)).sum(), leaf)
        assert gradient.dtype is dtype
    for first, second in ((torch.float32, torch.float64), (torch.int64, torch.float32), (torch.int32, torch.int64)):
        mixed = [boxes[0].round().to(first), boxes[1].round().to(second)]
        expected = theirs(*mixed)
        actual = ours(*(b.to(backend.device) for b in mixed)).cpu()
        assert actual.dtype is expected.dtype
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_large_integers_do_not_overflow(backend: Any) -> None:
    boxes = torch.tensor([[0, 0, 100_000, 100_000], [0, 0, 50_000, 100_000]], dtype=torch.int32, device=backend.device)
    assert ops.box_iou(boxes, boxes).tolist() == [[1.0, 0.5], [0.5, 1.0]]


@pytest.mark.parametrize("fmt", ["xyxy", "xywh", "cxcywh"])
def test_formats(backend: Any, torchvision_ops: Any, fmt: str) -> None:
    boxes = [torchvision_ops.box_convert(random_boxes(n, seed=n), "xyxy", fmt) for n in (5, 40)]
    actual = ops.box_iou(*(b.to(backend.device) for b in boxes), fmt=fmt)
    torch.testing.assert_close(actual.cpu(), torchvision_ops.box_iou(*boxes, fmt=fmt), rtol=1e-12, atol=1e-12)
    whole = [b.long() for b in boxes]
    expected = torchvision_ops.box_iou(*whole, fmt=fmt)
    actual = ops.box_iou(*(b.to(backend.device) for b in whole), fmt=fmt).cpu()
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert actual.dtype is expected.dtype
    weight = torch.randn(5, 40, dtype=torch.float64)
    want = gradients(lambda a, b: torchvision_ops.box_iou(a, b, fmt=fmt), *boxes, weight)
    got = gradients(lambda a, b: ops.box_iou(a, b, fmt=fmt), *boxes, weight, backend.device)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_leading_axes(backend: Any, newest_torchvision_ops: Any, name: str) -> None:
    function = getattr(ops, name)
    boxes1, boxes2 = random_boxes(2, 3, 5), random_boxes(3, 7, seed=1)
    expected = getattr(newest_torchvision_ops, name)(boxes1, boxes2)
    actual = function(boxes1.to(backend.device), boxes2.to(backend.device)).cpu()
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    weight = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    want = gradients(getattr(newest_torchvision_ops, name), boxes1, boxes2, weight)
    torch.testing.assert_close(gradients(function, boxes1, boxes2, weight, backend.device), want, rtol=1e-9, atol=1e-9)
    assert function(boxes1[:0], boxes2[None, :, :4][:, :, :0]).shape == (0, 3, 5, 0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0)])
def test_empty(backend: Any, name: str, n: int, m: int) -> None:
    leaves = [random_boxes(k, dtype=torch.float32).to(backend.device).requires_grad_() for k in (n, m)]
    overlap = getattr(ops, name)(*leaves)
    assert overlap.shape == (n, m)
    for leaf, gradient in zip(leaves, torch.autograd.grad(overlap.sum(), leaves), strict=True):
        assert gradient.shape == leaf.shape
        assert not gradient.any()


def test_strided_boxes_and_gradients(backend: Any) -> None:
    wide = random_boxes(24, 6).reshape(24, 24).to(backend.device)
    boxes1 = wide[::2, 8:12]
    boxes2 = wide.T[4:8, :].T
    assert not boxes1.is_contiguous()
    assert not boxes2.is_contiguous()
    for name in NAMES:
        function = getattr(ops, name)
        assert torch.equal(function(boxes1, boxes2), function(boxes1.contiguous(), boxes2.contiguous()))
        leaves = [b.contiguous().requires_grad_() for b in (boxes1, boxes2)]
        overlap = function(*leaves)
        for weight in (wide[:12], wide.T[:12], wide[0, 0].expand(12, 24), wide[:12, :1].expand(12, 24)):
            got = torch.autograd.grad(overlap, leaves, weight, retain_graph=True)
            want = torch.autograd.grad(overlap, leaves, weight.contiguous(), retain_graph=True)
            assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


def test_misaligned_memory(backend: Any) -> None:
    storage = torch.zeros(4 * 9 + 1, dtype=torch.float32, device=backend.device)
    boxes = storage[1:].view(9, 4).copy_(random_boxes(9, dtype=torch.float32))
    assert torch.equal(ops.box_iou(boxes, boxes), ops.box_iou(boxes.clone(), boxes.clone()))


def test_row_offsets_beyond_32_bits(backend: Any) -> None:
    """The gradient of a matrix whose rows lie 2^30 elements apart, in memory that is mostly never touched."""
    apart = 2**30 + 16
    grad = torch.empty(3 * apart, dtype=torch.float32, device=backend.device).as_strided((3, 5), (apart, 1))
    grad.copy_(torch.arange(15.0).view(3, 5))
    leaf = random_boxes(3, dtype=torch.float32).to(backend.device).requires_grad_()
    overlap = ops.generalized_box_iou(leaf, random_boxes(5, dtype=torch.float32, seed=1).to(backend.device))
    (got,) = torch.autograd.grad(overlap, leaf, grad, retain_graph=True)
    (want,) = torch.autograd.grad(overlap, leaf, grad.contiguous())
    assert torch.equal(got, want)


@pytest.mark.parametrize("name", NAMES)
def test_lanes_beyond_the_last_box_do_not_count(backend: Any, name: str) -> None:
    """A box of area zero makes 0 / 0 with an empty lane; neither may reach the sums of the others."""
    leaf = torch.tensor([[1.0, 1, 1, 1], [0, 0, 4, 4]], device=backend.device).requires_grad_()
    boxes2 = torch.tensor([[0.0, 0, 3, 3]], device=backend.device)
    (gradient,) = torch.autograd.grad(getattr(ops, name)(leaf, boxes2)[1].sum(), leaf)
    assert torch.isfinite(gradient[1]).all()
    (gradient,) = torch.autograd.grad(ops.box_iou(leaf, boxes2).sum(), leaf)
    assert torch.isfinite(gradient).all()


def test_second_derivative_is_refused(backend: Any) -> None:
    leaf = random_boxes(2).to(backend.device).requires_grad_()
    (gradient,) = torch.autograd.grad(ops.box_iou(leaf, leaf.detach() + 0.3).square().sum(), leaf, create_graph=True)
    with pytest.raises(NotImplementedError, match="once, not twice"):
        gradient.sum().backward()


def test_vmap_and_meta(backend: Any) -> None:
    boxes1, boxes2 = (random_boxes(k, dtype=torch.float32, seed=k).to(backend.device) for k in (6, 9))
    stacked = torch.stack([boxes1, boxes1 + 1])
    for name in NAMES:
        function = getattr(ops, name)
        assert torch.equal(torch.vmap(function, (0, None))(stacked, boxes2), function(stacked, boxes2))
        assert function(boxes1.to("meta"), boxes2.to("meta")).shape == (6, 9)
        assert function(boxes1.long().to("meta"), boxes2.long().to("meta")).dtype is torch.float32


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_shape_equals_the_reference(backend: Any, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NAMES))
    coordinate = st.floats(-100, 100, width=32)
    rows = st.lists(st.tuples(*[coordinate] * 4), max_size=4)
    boxes1 = torch.tensor(data.draw(rows), dtype=torch.float64).reshape(-1, 4)
    drawn = torch.tensor(data.draw(rows), dtype=torch.float64).reshape(-1, 4)
    # Corners in order: an inverted box may enclose an area of zero, whose sign is nobody's business.
    boxes1, drawn = (
        torch.cat([torch.minimum(b[:, :2], b[:, 2:]), b.view(-1, 2, 2).amax(1)], 1) for b in (boxes1, drawn)
    )
    boxes2 = torch.cat([drawn, random_boxes(data.draw(st.integers(0, 40)))])
    expected = getattr(reference, name)(boxes1, boxes2)
    actual = getattr(ops, name)(boxes1.to(backend.device), boxes2.to(backend.device))
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-9, atol=1e-9, equal_nan=True)

"""ps_roi_align and ps_roi_pool against the reference and torchvision, on every backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from roi_problems import random_boxes, random_input
from torch import Tensor

from fastcv import reference
from fastcv.nn import PSRoIAlign, PSRoIPool
from fastcv.ops import ps_roi_align, ps_roi_pool

NAN, INF = float("nan"), float("inf")


def with_gradient(function: Any, input: Tensor, boxes: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    leaf = input.detach().clone().requires_grad_()
    output = function(leaf, boxes, *options)
    (gradient,) = torch.autograd.grad(output, leaf, random_input(*output.shape, seed=1).to(output))
    return output.detach().cpu(), gradient.cpu()


SPECIAL = [
    *([0, 3, 3, 3.5, 3.5], [0, 2, 5, 9, 6], [0, 0, 0, 40, 32], [0, 500, 500, 600, 600], [0, -300, -300, -200, -200]),
    *([0, -20, -20, 12, 12], [0, 30, 22, 60, 50], [0, -300, -200, 500, 400], [0, 8.2, 8.3, 8.4, 8.5]),
    *([0, -1, -1, 0, 0], [0, 40, 32, 41, 33], [0, -0.5, -1.5, 2.5, 3.5], [0, 2, 2, 38, 31], [0, 36, 28, 40, 32]),
]
NOT_FINITE = [[0, NAN, 1, 5, 5], [0, 1, INF, 5, INF], [0, -INF, 0, INF, 5], [0, 1, 1, 5, NAN]]
INVERTED = [[0, 20, 20, 10, 10], [0, 5, 20, 15, 10], [1, 90, 5, 60, 30], [1, 130, 95, -40, -30]]
NO_AREA = [[0, 3, 3, 3, 3], [0, 2, 5, 9, 5], *INVERTED[:2]]


@dataclass(frozen=True)
class Op:
    """One of the two ops, and where they differ."""

    name: str
    function: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    module: type[torch.nn.Module]
    options: tuple[tuple[Any, ...], ...]  # spatial_scale and what follows it
    sampling: tuple[int, ...]  # arguments that follow spatial_scale
    zero: list[list[float]]  # boxes that give zeros
    written: str  # the module


OPS = [
    Op(
        "ps_roi_align",
        ps_roi_align,
        reference.ps_roi_align,
        PSRoIAlign,
        ((0.25, -1), (0.3, 2)),
        (2,),
        NOT_FINITE + NO_AREA,
        "PSRoIAlign(output_size=3, spatial_scale=0.5, sampling_ratio=2)",
    ),
    Op(
        "ps_roi_pool",
        ps_roi_pool,
        reference.ps_roi_pool,
        PSRoIPool,
        ((0.25,), (0.3,)),
        (),
        NOT_FINITE,
        "PSRoIPool(output_size=3, spatial_scale=0.5)",
    ),
]


@pytest.fixture(params=OPS, ids=lambda op: op.name)
def op(request: pytest.FixtureRequest) -> Op:
    made: Op = request.param
    return made


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("size", [1, (3, 2)])
def test_values_and_gradient_equal_the_reference(backend: Any, op: Op, size: Any, which: int) -> None:
    options = op.options[which]
    input = random_input(2, 12, 8, 10)
    boxes = torch.cat([random_boxes(8, 2, 32, 40), torch.tensor(SPECIAL + op.zero, dtype=torch.float64)])
    expected = with_gradient(op.reference, input, boxes, size, *options)
    actual = with_gradient(op.function, input.to(backend.device), boxes.to(backend.device), size, *options)
    assert actual[0].shape[1] == (12 if size == 1 else 2)
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)


def test_boxes_that_give_zeros(backend: Any, op: Op) -> None:
    boxes = torch.tensor(op.zero, dtype=torch.float64, device=backend.device)
    input = random_input(1, 12, 8, 10).to(backend.device).requires_grad_()
    output = op.function(input, boxes, (3, 2), 0.25)
    assert not output.any()
    assert not torch.autograd.grad(output.sum(), input)[0].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_torchvision(backend: Any, op: Op, torchvision_ops: Any, dtype: torch.dtype) -> None:
    peer = getattr(torchvision_ops, op.name)
    input = random_input(2, 70, 20, 25, dtype=dtype)
    boxes = torch.cat([random_boxes(24, 2, 80, 100), torch.tensor(SPECIAL, dtype=torch.float64)]).to(dtype)
    inner = boxes.clone()
    if op.function is ps_roi_pool:  # torchvision's gradient is not that of its forward at the last row and column
        inner[:, 1:].clamp_(max=60)
    tolerance = 1e-4 if dtype is torch.float32 else 1e-11
    for size in ((7, 5), 1):
        for options in op.options:
            expected = peer(input, boxes, size, *options)
            actual = op.function(input.to(backend.device), boxes.to(backend.device), size, *options).cpu()
            torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
            expected_both = with_gradient(peer, input, inner, size, *options)
            actual_both = with_gradient(op.function, input.to(backend.device), inner.to(backend.device), size, *options)
            torch.testing.assert_close(actual_both, expected_both, rtol=tolerance, atol=tolerance)
    if op.function is ps_roi_align:  # mirrored samples
        inverted = torch.tensor(INVERTED, dtype=dtype)
        expected_both = with_gradient(peer, input, inverted, (7, 5), 0.25, 2)
        actual_both = with_gradient(op.function, input.to(backend.device), inverted.to(backend.device), (7, 5), 0.25, 2)
        torch.testing.assert_close(actual_both, expected_both, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("channels_last", [False, True])
def test_dtypes_and_layouts(backend: Any, op: Op, dtype: torch.dtype, channels_last: bool) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    input = random_input(2, 36, 9, 17, dtype=dtype).to(backend.device, memory_format=layout).requires_grad_()
    boxes = random_boxes(12, 2, 36, 68).to(torch.promote_types(dtype, torch.float32)).to(backend.device)
    output = op.function(input, boxes, (3, 4), 0.25)
    assert output.dtype is dtype
    assert output.is_contiguous(memory_format=layout)
    double = input.detach().double().contiguous().requires_grad_()
    expected = op.function(double, boxes.double(), (3, 4), 0.25)
    tolerance = 4 * torch.finfo(dtype).eps if dtype.itemsize == 2 else 1e-4 if dtype is torch.float32 else 1e-11
    torch.testing.assert_close(output.double(), expected, rtol=tolerance, atol=tolerance)
    weight = random_input(*output.shape, dtype=dtype, seed=3).to(backend.device)
    (gradient,) = torch.autograd.grad(output, input, weight)
    (expected_gradient,) = torch.autograd.grad(expected, double, weight.double())
    (same,) = torch.autograd.grad(
        op.function(input, boxes, (3, 4), 0.25), input, weight.contiguous(memory_format=layout)
    )
    assert torch.equal(same, gradient)
    assert same.is_contiguous(memory_format=layout)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=tolerance, atol=tolerance)
    odd = weight.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(torch.autograd.grad(op.function(input, boxes, (3, 4), 0.25), input, odd)[0], gradient)


def test_strided_input(backend: Any, op: Op) -> None:
    wide = random_input(4, 24, 20, 22).to(backend.device)
    boxes = random_boxes(12, 2, 40, 44).to(backend.device)
    for view in (wide[1:3, 2:20, 3:15, 5:20], wide[::2, ::2, ::2, ::2], wide.transpose(2, 3)[:2]):
        view = view[:, :12]
        assert torch.equal(op.function(view, boxes, 2, 0.5), op.function(view.contiguous(), boxes, 2, 0.5))
    expanded = wide[:1].expand(2, -1, -1, -1)
    assert torch.equal(op.function(expanded, boxes, 2, 0.5), op.function(expanded.contiguous(), boxes, 2, 0.5))


@pytest.mark.parametrize("shape", [(1, 6, 0, 8), (1, 6, 8, 0), (1, 6, 0, 0)])
def test_a_map_without_pixels_gives_zeros(backend: Any, op: Op, shape: tuple[int, ...]) -> None:
    input = torch.zeros(shape, device=backend.device, requires_grad=True)
    output = op.function(input, torch.tensor([[0.0, 1, 1, 4, 4]] * 2, device=backend.device), (2, 3))
    assert output.shape == (2, 1, 2, 3)
    assert not output.any()
    (gradient,) = torch.autograd.grad(output.sum(), input, create_graph=True)
    assert gradient.shape == shape


@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e38, -1e38, 3e9, -3e9])
def test_extreme_corners(backend: Any, op: Op, value: float) -> None:
    """Numbers beyond those of integers, in one corner of a box: something finite, and a gradient of that."""
    input = random_input(2, 4, 8, 8, dtype=torch.float32).to(backend.device).requires_grad_()
    boxes = torch.tensor([[0.0, 1, 1, 5, 5]]).repeat(4, 1)
    for column in range(4):
        boxes[column, 1 + column] = value
    output = op.function(input, boxes.to(backend.device), 2)
    assert output.isfinite().all()
    assert torch.autograd.grad(output.sum(), input)[0].isfinite().all()


@pytest.mark.parametrize("index", [-1.0, 2.0, NAN, INF])
def test_batch_index_outside(backend: Any, op: Op, index: float) -> None:
    input = random_input(2, 4, 8, 10).to(backend.device).requires_grad_()
    boxes = torch.tensor([[0.0, 1, 1, 5, 5], [index, 1, 1, 5, 5]], dtype=torch.float64, device=backend.device)
    if not backend.is_cuda:
        with pytest.raises(ValueError, match=r"boxes\[1\] has batch index .* outside \[0, 2\)"):
            op.function(input, boxes, 2)
        return
    output = op.function(input, boxes, 2)
    assert output[0].any()
    assert not output[1].any()
    assert not torch.autograd.grad(output[1].sum(), input)[0].any()


def test_offsets_beyond_32_bits(backend: Any, op: Op) -> None:
    apart = 2**31 + 4096
    storage = torch.empty(apart + 4096, dtype=torch.float16, device=backend.device)
    input = storage.as_strided((2, 4, 8, 9), (apart, 100, 10, 1))
    input.copy_(random_input(2, 4, 8, 9, dtype=torch.float16))
    boxes = torch.tensor([[1.0, 1, 1, 5, 6], [0.0, 0, 0, 8, 7]], device=backend.device)
    assert torch.equal(op.function(input, boxes, 2), op.function(input.contiguous(), boxes, 2))


def test_more_boxes_than_a_block(backend: Any, op: Op) -> None:
    input = random_input(1, 1, 17, 33)
    boxes = random_boxes(270, 1, 17, 33)
    expected = with_gradient(op.reference, input, boxes, 1)
    actual = with_gradient(op.function, input.to(backend.device), boxes.to(backend.device), 1)
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)


def test_batching_rule(backend: Any, op: Op) -> None:
    boxes = random_boxes(3, 2, 8, 10).to(backend.device)
    many = random_input(3, 2, 4, 4, 5).to(backend.device)
    expected = torch.stack([op.function(x, boxes, 2, 0.5) for x in many])
    assert torch.equal(torch.vmap(lambda x: op.function(x, boxes, 2, 0.5))(many), expected)


def test_module(op: Op) -> None:
    module = op.module(3, 0.5, *op.sampling)
    input, boxes = random_input(2, 9, 6, 7), random_boxes(5, 2, 12, 14)
    assert torch.equal(module(input, boxes), op.function(input, boxes, 3, 0.5, *op.sampling))
    assert repr(module) == op.written


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_shape_equals_the_reference(backend: Any, op: Op, data: st.DataObject) -> None:
    draw = data.draw
    batch, channels = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 40))
    coordinate = st.floats(-20, 60, width=32)
    rows = draw(st.lists(st.tuples(st.integers(0, batch - 1), *[coordinate] * 4), max_size=3))
    boxes = torch.tensor(rows, dtype=torch.float64).reshape(-1, 5)
    size = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    scale = draw(st.sampled_from([1.0, 0.5, 0.0625]))
    input = random_input(batch, channels * size[0] * size[1], height, width)
    expected = with_gradient(op.reference, input, boxes, size, scale)
    actual = with_gradient(op.function, input.to(backend.device), boxes.to(backend.device), size, scale)
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)

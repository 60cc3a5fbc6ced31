"""roi_pool against the reference and torchvision, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from roi_problems import random_boxes, random_input
from torch import Tensor

from fastcv import reference
from fastcv.nn import RoIPool
from fastcv.ops import roi_pool

NAN, INF = float("nan"), float("inf")


def with_gradient(function: Any, input: Tensor, boxes: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    leaf = input.detach().clone().requires_grad_()
    output = function(leaf, boxes, *options)
    weight = random_input(*output.shape, seed=1).to(output)
    (gradient,) = torch.autograd.grad(output, leaf, weight)
    assert torch.equal(function(input, boxes, *options).nan_to_num(7), output.detach().nan_to_num(7))
    return output.detach().cpu(), gradient.cpu()


SPECIAL = [
    *([0, 3, 3, 3, 3], [0, 2, 5, 9, 5], [0, 0, 0, 40, 32], [0, 500, 500, 600, 600], [0, -300, -300, -200, -200]),
    *([0, -20, -20, 12, 12], [0, 30, 22, 60, 50], [0, -3000, -2000, 5000, 4000], [0, 8.2, 8.3, 8.4, 8.5]),
    *([0, -1, -1, 0, 0], [0, 40, 32, 41, 33], [0, 20, 20, 10, 10], [0, 5, 20, 15, 10], [0, -0.5, -1.5, 2.5, 3.5]),
]
NOT_FINITE = [[0, NAN, 1, 5, 5], [0, 1, INF, 5, INF], [0, -INF, 0, INF, 5], [0, 1, 1, 5, NAN]]


@pytest.mark.parametrize("size", [1, (3, 2), 7])
def test_values_and_gradient_equal_the_reference(backend: Any, size: Any) -> None:
    input = random_input(2, 5, 8, 10)
    boxes = torch.cat([random_boxes(8, 2, 32, 40), torch.tensor(SPECIAL + NOT_FINITE, dtype=torch.float64)])
    expected = with_gradient(reference.roi_pool, input, boxes, size, 0.25)
    actual = with_gradient(roi_pool, input.to(backend.device), boxes.to(backend.device), size, 0.25)
    assert torch.equal(actual[0], expected[0])
    torch.testing.assert_close(actual[1], expected[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [3, 24])
def test_equals_torchvision(backend: Any, torchvision_ops: Any, count: int, dtype: torch.dtype) -> None:
    input = (random_input(2, 19, 20, 25, dtype=dtype) * 4).round()  # many equal values: the first counts
    boxes = torch.cat([random_boxes(count, 2, 80, 100), torch.tensor(SPECIAL, dtype=torch.float64)]).to(dtype)
    if count == 3:
        boxes = boxes[:3]
    for size, scale in (((7, 5), 0.25), (2, 0.3)):
        expected = with_gradient(torchvision_ops.roi_pool, input, boxes, size, scale)
        actual = with_gradient(roi_pool, input.to(backend.device), boxes.to(backend.device), size, scale)
        assert torch.equal(actual[0], expected[0])
        torch.testing.assert_close(actual[1], expected[1], rtol=1e-5, atol=1e-5)


def test_special_values_are_compared_as_torchvision_does(backend: Any, torchvision_ops: Any) -> None:
    input = random_input(1, 18, 12, 12, dtype=torch.float32)
    choice = torch.randint(0, 4, input.shape, generator=torch.Generator().manual_seed(2))
    for code, value in ((1, NAN), (2, -INF)):
        input[choice == code] = value
    input[:, 0], input[:, 1], input[:, 2] = NAN, -INF, INF
    boxes = torch.cat([random_boxes(9, 1, 12, 12)] * 3).float()
    expected = with_gradient(torchvision_ops.roi_pool, input, boxes, 3, 1.0)
    actual = with_gradient(roi_pool, input.to(backend.device), boxes.to(backend.device), 3, 1.0)
    assert torch.equal(actual[0], expected[0])
    torch.testing.assert_close(actual[1], expected[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [1, 16, 67])
def test_dtypes_and_layouts(backend: Any, dtype: torch.dtype, channels_last: bool, channels: int) -> None:
    """Values are exact in every dtype."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    input = random_input(2, channels, 9, 17, dtype=dtype).to(backend.device, memory_format=layout)
    for count in (2, 16):
        boxes = random_boxes(count, 2, 36, 68).to(torch.promote_types(dtype, torch.float32)).to(backend.device)
        leaf = input.clone(memory_format=torch.preserve_format).requires_grad_()
        output = roi_pool(leaf, boxes, (4, 5), 0.25)
        assert output.dtype is dtype
        assert output.is_contiguous(memory_format=layout)
        double = input.double().contiguous().requires_grad_()
        expected = roi_pool(double, boxes.double(), (4, 5), 0.25)
        assert torch.equal(output.double(), expected)
        assert torch.equal(roi_pool(input, boxes, (4, 5), 0.25), output)
        (gradient,) = torch.autograd.grad(output.sum(), leaf)
        (expected_gradient,) = torch.autograd.grad(expected.sum(), double)
        assert torch.equal(gradient.double(), expected_gradient)  # small integers
        odd = torch.ones_like(output, memory_format=torch.contiguous_format)
        (gradient,) = torch.autograd.grad(roi_pool(leaf, boxes, (4, 5), 0.25), leaf, odd)
        assert torch.equal(gradient.double(), expected_gradient)


def test_strided_input(backend: Any) -> None:
    wide = random_input(4, 24, 20, 22).to(backend.device)
    boxes = random_boxes(30, 2, 40, 44).to(backend.device)
    for view in (
        wide[1:3, 2:20, 3:15, 5:20],
        wide[::2, ::2, ::2, ::2],
        wide.transpose(2, 3)[:2],
        wide[:1].expand(2, -1, -1, -1),
    ):
        assert torch.equal(roi_pool(view, boxes, 3, 0.5), roi_pool(view.contiguous(), boxes, 3, 0.5))
        assert torch.equal(roi_pool(view, boxes[:1], 3, 0.5), roi_pool(view.contiguous(), boxes[:1], 3, 0.5))


@pytest.mark.parametrize("shape", [(1, 3, 0, 8), (1, 3, 8, 0), (1, 3, 0, 0)])
def test_a_map_without_pixels_gives_zeros(backend: Any, shape: tuple[int, ...]) -> None:
    input = torch.zeros(shape, device=backend.device, requires_grad=True)
    output = roi_pool(input, torch.tensor([[0.0, 1, 1, 4, 4]] * 2, device=backend.device), (2, 3))
    assert output.shape == (2, 3, 2, 3)
    assert not output.any()
    (gradient,) = torch.autograd.grad(output.sum(), input, create_graph=True)
    assert gradient.shape == shape


@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e38, -1e38, 3e9, -3e9])
def test_extreme_corners(backend: Any, value: float) -> None:
    """Numbers beyond those of integers, in one corner of a box: something finite, and a gradient of that."""
    input = random_input(2, 3, 8, 8, dtype=torch.float32).to(backend.device).requires_grad_()
    boxes = torch.tensor([[0.0, 1, 1, 5, 5]]).repeat(4, 1)
    for column in range(4):
        boxes[column, 1 + column] = value
    output = roi_pool(input, boxes.to(backend.device), 2)
    assert output.isfinite().all()
    assert torch.autograd.grad(output.sum(), input)[0].isfinite().all()


@pytest.mark.parametrize("index", [-1.0, 2.0, 1e30, NAN, INF])
def test_batch_index_outside(backend: Any, index: float) -> None:
    input = random_input(2, 3, 8, 10).to(backend.device).requires_grad_()
    boxes = torch.tensor([[0.0, 1, 1, 5, 5], [index, 1, 1, 5, 5]], dtype=torch.float64, device=backend.device)
    if not backend.is_cuda:
        with pytest.raises(ValueError, match=r"boxes\[1\] has batch index .* outside \[0, 2\)"):
            roi_pool(input, boxes, 2)
        return
    output = roi_pool(input, boxes, 2)
    assert output[0].any()
    assert not output[1].any()
    (gradient,) = torch.autograd.grad(output[1].sum(), input)
    assert not gradient.any()


def test_sizes_around_the_edges_of_tiles(backend: Any) -> None:
    for height, width, size in ((1, 1, 3), (7, 9, 1), (8, 8, 33), (9, 17, 7)):
        input = random_input(1, 3, height, width)
        boxes = random_boxes(1, 1, height, width, seed=height)
        expected = with_gradient(reference.roi_pool, input, boxes, size)
        actual = with_gradient(roi_pool, input.to(backend.device), boxes.to(backend.device), size)
        assert torch.equal(actual[0], expected[0])
        torch.testing.assert_close(actual[1], expected[1], rtol=1e-12, atol=1e-12)


def test_offsets_beyond_32_bits(backend: Any) -> None:
    apart = 2**31 + 4096
    storage = torch.empty(apart + 4096, dtype=torch.float16, device=backend.device)
    input = storage.as_strided((2, 3, 8, 9), (apart, 100, 10, 1))
    input.copy_(random_input(2, 3, 8, 9, dtype=torch.float16))
    boxes = torch.tensor([[1.0, 1, 1, 5, 6], [0.0, 0, 0, 8, 7]], device=backend.device)
    assert torch.equal(roi_pool(input, boxes, 3), roi_pool(input.contiguous(), boxes, 3))


def test_function_transforms(backend: Any) -> None:
    input = random_input(3, 2, 2, 6, 7).to(backend.device)
    boxes = random_boxes(4, 2, 12, 14).to(backend.device)
    stacked = torch.stack([roi_pool(x, boxes, 2, 0.5) for x in input])
    assert torch.equal(torch.vmap(lambda x: roi_pool(x, boxes, 2, 0.5))(input), stacked)
    leaf = input[0].clone().requires_grad_()
    (expected,) = torch.autograd.grad(roi_pool(leaf, boxes, 2, 0.5).square().sum(), leaf)
    gradient = torch.func.grad(lambda x: roi_pool(x, boxes, 2, 0.5).square().sum())(input[0])
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


def test_module() -> None:
    module = RoIPool(3, 0.5)
    input, boxes = random_input(2, 3, 6, 7), random_boxes(5, 2, 12, 14)
    assert torch.equal(module(input, boxes), roi_pool(input, boxes, 3, 0.5))
    assert repr(module) == "RoIPool(output_size=3, spatial_scale=0.5)"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_shape_equals_the_reference(backend: Any, data: st.DataObject) -> None:
    draw = data.draw
    batch, channels = draw(st.integers(1, 3)), draw(st.integers(1, 20))
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 40))
    coordinate = st.floats(-20, 60, width=32)
    rows = draw(st.lists(st.tuples(st.integers(0, batch - 1), *[coordinate] * 4), max_size=3))
    boxes = torch.tensor(rows, dtype=torch.float64).reshape(-1, 5)
    size = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    scale = draw(st.sampled_from([1.0, 0.5, 0.0625]))
    input = random_input(batch, channels, height, width)
    expected = reference.roi_pool(input, boxes, size, scale)
    assert torch.equal(roi_pool(input.to(backend.device), boxes.to(backend.device), size, scale).cpu(), expected)

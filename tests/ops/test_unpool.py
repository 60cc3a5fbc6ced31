"""unpool_nearest and unpool_bed_of_nails against the reference and torch, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import nn, reference
from fastcv.ops import unpool_bed_of_nails, unpool_nearest

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)
OPS = {
    "nearest": (unpool_nearest, reference.unpool_nearest),
    "bed of nails": (unpool_bed_of_nails, reference.unpool_bed_of_nails),
}


@pytest.fixture(params=OPS)
def pair(request: pytest.FixtureRequest) -> Any:
    """The op and its reference."""
    return OPS[request.param]


def random_input(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def test_the_lectures_examples(backend: Any) -> None:
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], device=backend.device)
    nearest = torch.tensor([[[[1.0, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]]])
    nails = torch.tensor([[[[1.0, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]]])
    assert torch.equal(unpool_nearest(image, 2).cpu(), nearest)
    assert torch.equal(unpool_bed_of_nails(image, 2).cpu(), nails)
    assert torch.equal(nn.UnpoolNearest(2)(image).cpu(), nearest)
    assert torch.equal(nn.UnpoolBedOfNails(2)(image).cpu(), nails)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scale", [1, 2, 3, (1, 2), (2, 1), (4, 2), (2, 5)])
def test_values_and_gradient(backend: Any, pair: Any, dtype: torch.dtype, layout: Any, scale: Any) -> None:
    op, slow = pair
    for shape in ((2, 3, 4, 5), (1, 37, 3, 2), (1, 1, 2, 33), (1, 64, 1, 3)):
        input = random_input(*shape, dtype=dtype).to(backend.device, memory_format=layout).requires_grad_()
        output = op(input, scale)
        assert output.dtype is dtype
        assert output.is_contiguous(memory_format=layout)
        assert torch.equal(output, slow(input, scale))
        weight = random_input(*output.shape, dtype=dtype, seed=1).to(backend.device, memory_format=layout)
        (gradient,) = torch.autograd.grad(output, input, weight)
        exact = input.detach().double().requires_grad_()
        (expected,) = torch.autograd.grad(slow(exact, scale), exact, weight.double())
        assert gradient.is_contiguous(memory_format=layout)
        tolerance = {
            "rtol": 4 * torch.finfo(dtype).eps,
            "atol": 16 * torch.finfo(torch.promote_types(dtype, torch.float32)).eps,
        }
        torch.testing.assert_close(gradient.double(), expected, **tolerance)


def test_agrees_with_torch(backend: Any) -> None:
    input = random_input(2, 5, 7, 19, dtype=torch.float32).to(backend.device)
    for scale in (2, 3):
        expected = torch.nn.functional.interpolate(input, scale_factor=scale, mode="nearest")
        assert torch.equal(unpool_nearest(input, scale), expected)
        kernel = torch.zeros(1, 1, scale, scale, device=backend.device)
        kernel[0, 0, 0, 0] = 1
        planes = input.reshape(10, 1, 7, 19)
        expected = torch.nn.functional.conv_transpose2d(planes, kernel, stride=scale).reshape(
            2, 5, 7 * scale, 19 * scale
        )
        assert torch.equal(unpool_bed_of_nails(input, scale), expected)


def test_strided_input_and_gradient(backend: Any, pair: Any) -> None:
    op, _ = pair
    wide = random_input(4, 24, 20, 22).to(backend.device)
    views = {
        "sliced": wide[1:3, 2:20, 3:15, 5:20],
        "every second": wide[::2, ::2, ::2, ::2],
        "transposed": wide.transpose(2, 3)[:2],
        "expanded": wide[:1, :1].expand(2, 7, 20, 22),
        "channels_last slice": wide.to(memory_format=torch.channels_last)[:2, 3:21],
    }
    for name, view in views.items():
        assert torch.equal(op(view, 2), op(view.contiguous(), 2)), name
    input = random_input(2, 3, 4, 5).to(backend.device).requires_grad_()
    output = op(input, 2)
    for weight in (torch.ones((), device=output.device).double().expand(output.shape), output.detach().mT.clone().mT):
        (gradient,) = torch.autograd.grad(output, input, weight, retain_graph=True)
        (expected,) = torch.autograd.grad(output, input, weight.contiguous(), retain_graph=True)
        assert torch.equal(gradient, expected)


@pytest.mark.parametrize("size", [1, 15, 16, 17, 31, 32, 33, 255, 256, 257])
def test_sizes_around_vectors_and_blocks(backend: Any, pair: Any, size: int) -> None:
    op, slow = pair
    for shape in ((1, 1, 2, size), (1, 2, size, 1), (1, size, 2, 1)):
        for layout in LAYOUTS:
            input = random_input(*shape, dtype=torch.float32).to(backend.device, memory_format=layout).requires_grad_()
            output = op(input, 2)
            assert torch.equal(output, slow(input, 2))
            (gradient,) = torch.autograd.grad(output.square().sum(), input)
            (expected,) = torch.autograd.grad(slow(input, 2).square().sum(), input)
            torch.testing.assert_close(gradient, expected)


def test_not_a_number_and_infinity_pass_through(backend: Any) -> None:
    image = torch.tensor([[[[float("nan"), float("inf")], [-float("inf"), -0.0]]]], device=backend.device)
    expected = reference.unpool_nearest(image, 2)
    torch.testing.assert_close(unpool_nearest(image, 2), expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(unpool_nearest(image, 2).signbit(), expected.signbit())


def test_gradcheck_and_transforms(backend: Any, pair: Any) -> None:
    op, _ = pair
    input = random_input(2, 2, 3, 2).to(backend.device).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: op(x, (2, 3)), (input,), check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: op(x, (2, 3)), (input,), fast_mode=True)
    batch = random_input(3, 2, 2, 3, 4).to(backend.device)
    stacked = torch.stack([op(x, 2) for x in batch])
    assert torch.equal(torch.vmap(lambda x: op(x, 2))(batch), stacked)
    gradient = torch.func.grad(lambda x: op(x, 2).square().sum())(batch[0])
    leaf = batch[0].clone().requires_grad_()
    assert torch.equal(gradient, torch.autograd.grad(op(leaf, 2).square().sum(), leaf)[0])


def test_negative_bit_is_resolved(backend: Any, pair: Any) -> None:
    view = torch.complex(random_input(1, 2, 4, 5), random_input(1, 2, 4, 5, seed=1)).to(backend.device).conj().imag
    assert view.is_neg()
    assert torch.equal(pair[0](view, 2), pair[0](view.resolve_neg(), 2))


def test_offsets_beyond_32_bits(backend: Any) -> None:
    """Element offsets above 2^31, in memory that is mostly never touched: rows of 2^22, of which one pixel is read."""
    rows = 2**9 + 2
    large = torch.empty(1, 1, rows, 2**22, dtype=torch.float16, device=backend.device)
    expected = random_input(1, 1, rows, 1, dtype=torch.float16).to(backend.device)
    large[..., :1] = expected
    assert torch.equal(torch.ops.fastcv.unpool_backward(large, 1, 2**22, True), expected)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_shape_equals_the_reference(backend: Any, pair: Any, data: st.DataObject) -> None:
    op, slow = pair
    draw = data.draw
    shape = [draw(st.integers(0, high)) for high in (3, 20, 9, 40)]
    scale = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    layout = draw(st.sampled_from(LAYOUTS))
    input = random_input(*shape).to(backend.device, memory_format=layout).requires_grad_()
    output = op(input, scale)
    expected = slow(input, scale)
    assert torch.equal(output, expected)
    weight = random_input(*output.shape, seed=1).to(backend.device)
    (gradient,) = torch.autograd.grad(output, input, weight)
    (expected_gradient,) = torch.autograd.grad(expected, input, weight)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-12)

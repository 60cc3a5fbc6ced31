"""upsample_bilinear2d against the reference and torch, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import interpolate

from fastcv import reference
from fastcv.nn import UpsampleBilinear2d
from fastcv.ops import upsample_bilinear2d

TOLERANCE = {torch.float64: 1e-12, torch.float32: 4e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def random_input(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def test_the_lectures_example(backend: Any) -> None:
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], device=backend.device)
    expected = [[1, 1.25, 1.75, 2], [1.5, 1.75, 2.25, 2.5], [2.5, 2.75, 3.25, 3.5], [3, 3.25, 3.75, 4]]
    assert upsample_bilinear2d(image, scale_factor=2)[0, 0].tolist() == expected
    assert UpsampleBilinear2d(4)(image)[0, 0].tolist() == expected
    corners = upsample_bilinear2d(image, 3, align_corners=True)
    assert corners[0, 0].tolist() == [[1, 1.5, 2], [2, 2.5, 3], [3, 3.5, 4]]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_values_and_gradient_equal_the_reference(
    backend: Any, dtype: torch.dtype, layout: Any, align_corners: bool
) -> None:
    for shape, size in (
        ((2, 3, 4, 5), (8, 10)),
        ((1, 19, 7, 6), (5, 13)),
        ((1, 2, 1, 1), (3, 4)),
        ((1, 40, 5, 3), (1, 1)),
        ((1, 2, 9, 33), (4, 70)),
        ((1, 1, 3, 40), (3, 40)),
    ):
        input = random_input(*shape, dtype=dtype).to(backend.device, memory_format=layout).requires_grad_()
        exact = input.detach().double().requires_grad_()
        output = upsample_bilinear2d(input, size, align_corners=align_corners)
        expected = reference.upsample_bilinear2d(exact, size, align_corners)
        assert output.dtype is dtype
        one_pixel = (1, 1) in (shape[2:], size)  # has no layout
        assert output.is_contiguous(memory_format=layout) or one_pixel
        tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
        torch.testing.assert_close(output.double(), expected, **tolerance)
        weight = random_input(*output.shape, seed=1, dtype=dtype).to(backend.device, memory_format=layout)
        (gradient,) = torch.autograd.grad(output, input, weight)
        (expected_gradient,) = torch.autograd.grad(expected, exact, weight.double())
        scale = max(1.0, size[0] * size[1] / (shape[2] * shape[3]))
        torch.testing.assert_close(
            gradient.double(), expected_gradient, rtol=TOLERANCE[dtype], atol=scale * TOLERANCE[dtype]
        )
        assert gradient.is_contiguous(memory_format=layout) or one_pixel


@pytest.mark.parametrize("align_corners", [False, True])
def test_agrees_with_torch(backend: Any, align_corners: bool) -> None:
    input = random_input(2, 5, 7, 19, dtype=torch.float32).to(backend.device).requires_grad_()
    cases: list[dict[str, Any]] = [
        {"output_size": (14, 38)},
        {"output_size": (3, 50)},
        {"output_size": 1},
        {"scale_factor": 2},
        {"scale_factor": 1.7},
        {"scale_factor": (0.4, 3.3)},
    ]
    for case in cases:
        theirs = {"size": case.get("output_size"), "scale_factor": case.get("scale_factor")}
        expected = interpolate(input, **theirs, mode="bilinear", align_corners=align_corners)
        actual = upsample_bilinear2d(input, **case, align_corners=align_corners)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
        weight = random_input(*expected.shape, seed=1, dtype=torch.float32).to(backend.device)
        (gradient,) = torch.autograd.grad(actual, input, weight)
        (expected_gradient,) = torch.autograd.grad(expected, input, weight)
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-4)


def test_layouts_give_the_same_bits(backend: Any) -> None:
    input = random_input(2, 21, 6, 7, dtype=torch.float32).to(backend.device)
    outputs, gradients = [], []
    for layout in LAYOUTS:
        leaf = input.contiguous(memory_format=layout).requires_grad_()
        outputs.append(upsample_bilinear2d(leaf, (13, 14)))
        weight = random_input(2, 21, 13, 14, dtype=torch.float32).to(backend.device, memory_format=layout)
        gradients.append(torch.autograd.grad(outputs[-1], leaf, weight)[0])
    assert torch.equal(*outputs)
    assert torch.equal(*gradients)


def test_strided_input_and_gradient(backend: Any) -> None:
    wide = random_input(4, 24, 20, 22).to(backend.device)
    views = {
        "sliced": wide[1:3, 2:20, 3:15, 5:20],
        "every second": wide[::2, ::2, ::2, ::2],
        "transposed": wide.transpose(2, 3)[:2],
        "expanded": wide[:1, :1].expand(2, 7, 20, 22),
        "channels_last slice": wide.to(memory_format=torch.channels_last)[:2, 3:21],
    }
    for name, view in views.items():
        assert torch.equal(upsample_bilinear2d(view, 31), upsample_bilinear2d(view.contiguous(), 31)), name
    input = random_input(2, 3, 4, 5).to(backend.device).requires_grad_()
    output = upsample_bilinear2d(input, 9)
    for weight in (torch.ones((), device=output.device).double().expand(output.shape), output.detach().mT.clone().mT):
        (gradient,) = torch.autograd.grad(output, input, weight, retain_graph=True)
        (expected,) = torch.autograd.grad(output, input, weight.contiguous(), retain_graph=True)
        assert torch.equal(gradient, expected)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4)])
def test_empty(backend: Any, shape: tuple[int, ...]) -> None:
    input = torch.zeros(shape, device=backend.device, requires_grad=True)
    output = upsample_bilinear2d(input, (5, 6))
    assert output.shape == (*shape[:2], 5, 6)
    (gradient,) = torch.autograd.grad(output.sum(), input)
    assert gradient.shape == shape


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 31, 32, 33, 257])
def test_sizes_around_vectors_and_blocks(backend: Any, size: int) -> None:
    for shape, output_size in (((1, 1, 2, 9), (3, size)), ((1, 2, size, 3), (7, 4)), ((1, size, 2, 2), (3, 3))):
        for layout in LAYOUTS:
            for align_corners in (False, True):
                input = random_input(*shape).to(backend.device, memory_format=layout).requires_grad_()
                output = upsample_bilinear2d(input, output_size, align_corners=align_corners)
                expected = reference.upsample_bilinear2d(input, output_size, align_corners)
                torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
                (gradient,) = torch.autograd.grad(output.square().sum(), input)
                (expected_gradient,) = torch.autograd.grad(expected.square().sum(), input)
                torch.testing.assert_close(gradient, expected_gradient, rtol=1e-11, atol=1e-11)


def test_extreme_ratios(backend: Any) -> None:
    """Every input pixel finds all output pixels that take from it, however many or few."""
    for size, outputs in ((2, 3001), (1, 500), (3001, 2), (1000, 999), (999, 1000), (777, 2001)):
        for align_corners in (False, True):
            for dtype in (torch.float64, torch.float32):
                input = random_input(1, 1, 1, size, dtype=dtype).to(backend.device).requires_grad_()
                output = upsample_bilinear2d(input, (1, outputs), align_corners=align_corners)
                (gradient,) = torch.autograd.grad(output.sum(), input)
                (expected,) = torch.autograd.grad(
                    interpolate(input, (1, outputs), mode="bilinear", align_corners=align_corners).sum(), input
                )
                torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-3)


def test_not_a_number_and_infinity_stay_where_they_are(backend: Any) -> None:
    for value in (float("nan"), float("inf")):
        input = torch.ones(1, 1, 6, 40, device=backend.device)
        input[0, 0, 2, 3] = value
        expected = interpolate(input, (12, 80), mode="bilinear")
        actual = upsample_bilinear2d(input, (12, 80))
        torch.testing.assert_close(actual, expected, equal_nan=True)
        leaf = torch.ones(1, 1, 3, 20, device=backend.device, requires_grad=True)
        (gradient,) = torch.autograd.grad(upsample_bilinear2d(leaf, (6, 40)), leaf, input)
        (expected_gradient,) = torch.autograd.grad(interpolate(leaf, (6, 40), mode="bilinear"), leaf, input)
        torch.testing.assert_close(gradient, expected_gradient, equal_nan=True)


def test_gradcheck_and_transforms(backend: Any) -> None:
    input = random_input(2, 2, 3, 2).to(backend.device).requires_grad_()
    for align_corners in (False, True):

        def function(x: Tensor, corners: bool = align_corners) -> Tensor:
            return upsample_bilinear2d(x, (5, 4), align_corners=corners)

        assert torch.autograd.gradcheck(function, (input,), check_forward_ad=True, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, (input,), fast_mode=True)
    batch = random_input(3, 2, 2, 3, 4).to(backend.device)
    assert torch.equal(torch.vmap(function)(batch), torch.stack([function(x) for x in batch]))
    gradient = torch.func.grad(lambda x: function(x).square().sum())(batch[0])
    leaf = batch[0].clone().requires_grad_()
    assert torch.equal(gradient, torch.autograd.grad(function(leaf).square().sum(), leaf)[0])


def test_opcheck_and_compile(backend: Any) -> None:
    for layout in LAYOUTS:
        input = random_input(2, 3, 4, 5, dtype=torch.float32).to(backend.device, memory_format=layout).requires_grad_()
        torch.library.opcheck(torch.ops.fastcv.upsample_bilinear2d.default, (input, 7, 9, False, 0.0, 0.6))
        torch.library.opcheck(torch.ops.fastcv.upsample_bilinear2d_backward.default, (input, 2, 3, True, 0.0, 0.0))
    for function in (
        lambda x: upsample_bilinear2d(x, (9, 7)),
        lambda x: upsample_bilinear2d(x, scale_factor=2),
        lambda x: upsample_bilinear2d(x, (2 * x.shape[2], x.shape[3] + 1), align_corners=True),
    ):
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
        for height in (4, 3, 6):
            leaf = random_input(1, 2, height, 5, dtype=torch.float32).to(backend.device).requires_grad_()
            output = compiled(leaf)
            assert torch.equal(output, function(leaf))
            (gradient,) = torch.autograd.grad(output.square().sum(), leaf)
            torch.testing.assert_close(gradient, torch.autograd.grad(function(leaf).square().sum(), leaf)[0])
        torch.compiler.reset()
    assert upsample_bilinear2d(input.to("meta"), 7).shape == (2, 3, 7, 7)


def test_negative_bit_is_resolved(backend: Any) -> None:
    view = torch.complex(random_input(1, 2, 4, 5), random_input(1, 2, 4, 5, seed=1)).to(backend.device).conj().imag
    assert view.is_neg()
    assert torch.equal(upsample_bilinear2d(view, 6), upsample_bilinear2d(view.resolve_neg(), 6))


def test_offsets_beyond_32_bits(backend: Any) -> None:
    """Element offsets above 2^31, in memory that is mostly never touched: of rows of 2^22 few pixels are read."""
    rows = 2**9 + 2
    input = torch.empty(1, rows, 1, 2**22, dtype=torch.float16, device=backend.device)
    values = random_input(1, rows, 1, 1, dtype=torch.float16).to(backend.device)
    input[..., :1] = input[..., -1:] = values
    output = upsample_bilinear2d(input, (1, 2), align_corners=True)
    assert torch.equal(output, values.expand(1, rows, 1, 2))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_shape_equals_the_reference(backend: Any, data: st.DataObject) -> None:
    draw = data.draw
    shape = [draw(st.integers(1, high)) for high in (2, 20, 12, 20)]
    size = (draw(st.integers(1, 20)), draw(st.integers(1, 50)))
    align_corners = draw(st.booleans())
    layout = draw(st.sampled_from(LAYOUTS))
    input = random_input(*shape).to(backend.device, memory_format=layout).requires_grad_()
    output = upsample_bilinear2d(input, size, align_corners=align_corners)
    expected = reference.upsample_bilinear2d(input, size, align_corners)
    torch.testing.assert_close(output, expected, rtol=1e-11, atol=1e-11)
    weight = random_input(*output.shape, seed=1).to(backend.device)
    (gradient,) = torch.autograd.grad(output, input, weight)
    (expected_gradient,) = torch.autograd.grad(expected, input, weight)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-10)

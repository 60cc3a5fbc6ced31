"""Transposed convolution with wide kernels and few channels, against torch.nn.functional, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conv_problems import OPS, TOLERANCE, TORCH, check, distance, random
from torch import Tensor

from fastcv.ops import conv_transpose1d, conv_transpose2d

WIDE: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((1, 1, 1), (1, 1, 4099), {}),
    ((2, 3, 16), (3, 2, 1500), {"stride": 3, "padding": 7}),
    ((1, 2, 70), (2, 1, 601), {"stride": 4, "dilation": 6, "padding": 5, "output_padding": 3}),
    ((1, 2, 301), (2, 3, 160), {"stride": 5, "dilation": 2, "output_padding": 4}),
    ((2, 4, 200), (4, 1, 333), {"groups": 2, "stride": 2, "padding": 200}),
    ((1, 6, 40), (6, 2, 450), {"groups": 3, "dilation": 7, "padding": 30}),
    ((1, 1, 900), (1, 1, 700), {"stride": 9, "dilation": 5, "padding": 3}),
    ((1, 2, 5, 40), (2, 1, 7, 70), {"stride": (2, 3), "padding": (1, 4), "dilation": (2, 1)}),
    ((2, 2, 50, 1), (2, 1, 400, 1), {"stride": (3, 1)}),
    ((1, 1, 2, 3, 40), (1, 2, 2, 3, 64), {"stride": (2, 1, 2), "padding": (0, 1, 9)}),
]


@pytest.mark.parametrize("case", WIDE, ids=str)
def test_wide_kernels_of_few_channels(
    backend: Any, case: tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]
) -> None:
    """Kernels whose taps along x are the long side of the product."""
    shape, kernel, options = case
    if backend.is_emulated and kernel[-1] > 200:
        pytest.skip("slow in the emulator, and the CPU's own kernels")
    input, weight = random(*shape), random(*kernel, seed=1)
    bias = random(kernel[1] * options.get("groups", 1), seed=2)
    check(backend, input, weight, bias, options, TORCH[len(shape) - 2])
    for activation in (None, "relu"):
        rounded = [t.float().to(backend.device) for t in (input, weight, bias)]
        output = OPS[len(shape) - 2](*rounded, **options, activation=activation)
        expected = TORCH[len(shape) - 2](input, weight, bias, **options)
        assert distance(output, expected.relu() if activation else expected) <= 5e-6


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_wide_kernels_in_every_dtype_and_layout(backend: Any, dtype: torch.dtype) -> None:
    input, weight = random(2, 2, 3, 60, dtype=dtype), random(2, 2, 2, 130, seed=1, dtype=dtype)
    leaves = [t.double().requires_grad_() for t in (input, weight)]
    expected = F.conv_transpose2d(*leaves, stride=(1, 2), padding=(0, 3))
    seed = random(*expected.shape, seed=3, dtype=dtype)
    expected_gradients = torch.autograd.grad(expected, leaves, seed.double())
    for layout in (torch.contiguous_format, torch.channels_last):
        moved = [t.to(backend.device, memory_format=layout).requires_grad_() for t in (input, weight)]
        actual = conv_transpose2d(*moved, stride=(1, 2), padding=(0, 3))
        assert distance(actual.detach(), expected.detach()) <= TOLERANCE[dtype]
        gradients = torch.autograd.grad(actual, moved, seed.to(backend.device, memory_format=layout))
        for gradient, wanted in zip(gradients, expected_gradients, strict=True):
            assert distance(gradient, wanted) <= TOLERANCE[dtype]


def test_wide_kernels_keep_what_is_not_finite_apart(backend: Any) -> None:
    for bad in (float("inf"), float("nan")):
        input, weight = random(1, 1, 40), random(1, 1, 300, seed=1)
        input[0, 0, 20] = bad
        output = conv_transpose1d(input.to(backend.device), weight.to(backend.device)).cpu()
        expected = F.conv_transpose1d(input, weight)
        torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-10, equal_nan=True)
        assert not output[..., :20].isnan().any()


def test_wide_kernels_have_the_same_bits_on_every_thread_count(backend: Any) -> None:
    if backend.is_emulated:
        pytest.skip("this is about the CPU kernels")
    leaves = [random(*shape, dtype=torch.float32).to(backend.device) for shape in ((2, 2, 90), (2, 2, 600), (2,))]
    leaves = [leaf.requires_grad_() for leaf in leaves]

    def run() -> list[Tensor]:
        output = conv_transpose1d(*leaves, stride=2, padding=11)
        return [output, *torch.autograd.grad(output.square().sum(), leaves)]

    threads = torch.get_num_threads()
    first = run()
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        for one, other in zip(first, run(), strict=True):
            assert torch.equal(one, other)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("shape", [(0, 2, 3, 40), (1, 2, 0, 40), (1, 2, 3, 0)])
def test_wide_kernels_of_nothing(backend: Any, shape: tuple[int, ...]) -> None:
    input = torch.zeros(shape, device=backend.device, requires_grad=True)
    weight = random(2, 2, 2, 300, dtype=torch.float32).to(backend.device).requires_grad_()
    output = conv_transpose2d(input, weight, padding=(0, 20), output_padding=(1, 0), stride=(2, 1))
    gradients = torch.autograd.grad(output.sum(), (input, weight))
    assert [gradient.shape for gradient in gradients] == [input.shape, weight.shape]
    assert (gradients[1] == 0).all()

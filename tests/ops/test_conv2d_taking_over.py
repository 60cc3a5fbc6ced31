"""Convolution that may write over what it adds, or adds the nearest pixels of a smaller map."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Backend
from torch import Tensor

from fastcv.nn import Conv2d
from fastcv.ops import conv2d

LAST = torch.channels_last
# channels, filters, kernel, groups: direct, several panels, narrow, Winograd, depthwise, groups
LAYERS = [(64, 70, 1, 1), (32, 150, 3, 1), (3, 20, 3, 1), (48, 64, 3, 1), (20, 20, 3, 20), (12, 18, 1, 3)]


def made(layer: tuple[int, int, int, int], dtype: torch.dtype, exact: bool, activation: str | None) -> Conv2d:
    torch.manual_seed(0)
    channels, filters, side, groups = layer
    conv = Conv2d(channels, filters, side, padding=side // 2, groups=groups, exact=exact, activation=activation)
    return conv.to(dtype).optimize()


def expected(conv: Conv2d, x: Tensor, residual: Tensor) -> Tensor:
    bias: Any = conv.bias
    y = F.conv2d(x.double(), conv.weight.double(), bias.double(), padding=conv.padding, groups=conv.groups)  # type: ignore[arg-type]
    y = y + F.interpolate(residual.double(), size=tuple(y.shape[2:]))
    return y.relu() if conv.activation else y


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
def test_result_over_what_is_added(backend: Backend, layer: Any, exact: bool, activation: str | None) -> None:
    conv = made(layer, torch.float32, exact, activation)
    x = torch.randn(2, layer[0], 13, 19).to(memory_format=LAST)
    residual = torch.randn(2, layer[1], 13, 19).to(memory_format=LAST)
    wanted, apart = expected(conv, x, residual), conv(x, residual)
    kept = x.clone()
    y = conv.convolve(x, residual, activation, takes_over=True)
    torch.testing.assert_close(y.double(), wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(y, apart), "the same bits"
    assert torch.equal(x, kept)
    if not backend.is_emulated and layer[3] != layer[0]:
        assert y.data_ptr() == residual.data_ptr()


@pytest.mark.parametrize("sizes", [((14, 20), (7, 10)), ((13, 19), (7, 10)), ((5, 9), (2, 4)), ((7, 11), (1, 1))])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_nearest_pixels_are_added(backend: Backend, layer: Any, sizes: Any, dtype: torch.dtype) -> None:
    size, smaller = sizes
    conv = made(layer, dtype, False, "relu")
    for fmt in (LAST, torch.contiguous_format):
        x = torch.randn(2, layer[0], *size).to(dtype, memory_format=fmt)
        residual = torch.randn(2, layer[1], *smaller).to(dtype, memory_format=LAST)
        kept = residual.clone()
        wanted = expected(conv, x, residual)
        y = conv.convolve(x, residual, "relu", takes_over=True)
        assert y.dtype is dtype
        tolerance = {torch.float64: 1e-11, torch.float32: 1e-4, torch.bfloat16: 5e-2}[dtype]
        torch.testing.assert_close(y.double(), wanted, rtol=tolerance, atol=tolerance)
        assert torch.equal(residual, kept)


def test_bits_do_not_depend_on_threads() -> None:
    conv = made((64, 130, 1, 1), torch.float32, False, "relu")
    x, residual = torch.randn(1, 64, 40, 52), torch.randn(1, 130, 20, 26)
    x, residual = x.to(memory_format=LAST), residual.to(memory_format=LAST)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        whole = F.interpolate(residual, scale_factor=2).to(memory_format=LAST)
        results.append((conv.convolve(x, residual, "relu", True), conv.convolve(x, whole, "relu", True)))
    torch.set_num_threads(before)
    for one, other in results:
        assert torch.equal(one, results[0][0])
        assert torch.equal(other, one)


def test_what_cannot_be_written_over_is_left() -> None:
    """The input itself, another layout, another dtype's sums."""
    conv = made((16, 16, 1, 1), torch.float32, False, None)
    x = torch.randn(1, 16, 8, 8).to(memory_format=LAST)
    kept = x.clone()
    y = conv.convolve(x, x, None, takes_over=True)
    assert torch.equal(x, kept)
    torch.testing.assert_close(y, conv(x, x.clone()), rtol=0, atol=0)
    other = torch.randn(1, 16, 8, 8)
    copy = other.clone()
    torch.testing.assert_close(conv.convolve(x, other, None, True), conv(x, copy), rtol=0, atol=0)
    assert torch.equal(other, copy)
    with pytest.raises(ValueError, match="residual must have shape"):
        conv2d(x, conv.weight, residual=torch.zeros(1, 16, 4, 4))
    with pytest.raises(ValueError, match="residual must have shape"):
        conv.convolve(x, torch.zeros(1, 15, 4, 4), None, True)

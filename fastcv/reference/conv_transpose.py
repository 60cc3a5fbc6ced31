"""Transposed convolution in plain torch (Dumoulin and Visin 2016, chapter 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def conv_transpose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] | int = 1,
    padding: Sequence[int] | int = 0,
    output_padding: Sequence[int] | int = 0,
    groups: int = 1,
    dilation: Sequence[int] | int = 1,
    activation: str | None = None,
) -> Tensor:
    """Spread input (N, C, ...) by weight (C, O / groups, ...): one, two or three dimensions, differentiable.

    Each tap of the kernel adds its product to a canvas without padding, which is cut to size at the end.
    """
    dims = input.dim() - 2
    step, margin, extra, spread = (
        [value] * dims if isinstance(value, int) else list(value)
        for value in (stride, padding, output_padding, dilation)
    )
    sizes, kernel = list(input.shape[2:]), list(weight.shape[2:])
    full = [(sizes[i] - 1) * step[i] + spread[i] * (kernel[i] - 1) + extra[i] + 1 for i in range(dims)]
    output = input.new_zeros(input.shape[0], groups, weight.shape[1], *full)
    grouped = input.reshape(input.shape[0], groups, -1, *sizes)
    kernels = weight.reshape(groups, -1, weight.shape[1], *kernel)
    for tap in torch.cartesian_prod(*(torch.arange(k) for k in kernel)).reshape(-1, dims).tolist():
        chosen = kernels
        for index in tap:
            chosen = chosen.select(3, index)
        product = torch.einsum("ngc...,gco->ngo...", grouped, chosen)
        for i in range(dims):  # site j of the input lands on j * stride + k * dilation
            site = torch.arange(sizes[i])
            place = input.new_zeros(sizes[i], full[i])
            place[site, site * step[i] + tap[i] * spread[i]] = 1
            product = (product.movedim(3 + i, -1) @ place).movedim(-1, 3 + i)
        output = output + product
    for i in range(dims):
        output = output.narrow(3 + i, margin[i], full[i] - 2 * margin[i])
    output = output.flatten(1, 2)
    if bias is not None:
        output = output + bias.reshape(-1, *[1] * dims)
    return output.relu() if activation == "relu" else output

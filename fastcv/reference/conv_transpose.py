"""Transposed convolution in plain torch (Dumoulin and Visin 2016, chapter 4)."""

from __future__ import annotations

import itertools
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
    """Spread input (N, C, *sizes) by weight (C, O / groups, *kernel): one, two or three dimensions, differentiable.

    Each tap of the kernel adds its product to a canvas without padding, which is cut to size at the end.
    """
    dims = input.dim() - 2
    step, margin, extra, spread = (
        [value] * dims if isinstance(value, int) else list(value)
        for value in (stride, padding, output_padding, dilation)
    )
    sizes, kernel = input.shape[2:], weight.shape[2:]
    result = [(sizes[i] - 1) * step[i] - 2 * margin[i] + spread[i] * (kernel[i] - 1) + extra[i] + 1 for i in range(dims)]
    canvas = input.new_zeros(
        input.shape[0], groups, weight.shape[1], *(result[i] + 2 * margin[i] for i in range(dims))
    )
    grouped = input.reshape(input.shape[0], groups, -1, *sizes)
    kernels = weight.reshape(groups, -1, weight.shape[1], *kernel)
    for tap in itertools.product(*(range(k) for k in kernel)):
        product = torch.einsum("ngc...,gco->ngo...", grouped, kernels[(..., *tap)])
        target = tuple(
            slice(tap[i] * spread[i], tap[i] * spread[i] + (sizes[i] - 1) * step[i] + 1, step[i]) for i in range(dims)
        )
        placed = torch.zeros_like(canvas)
        placed[(..., *target)] = product
        canvas = canvas + placed
    window = tuple(slice(margin[i], margin[i] + result[i]) for i in range(dims))
    output = canvas[(..., *window)].reshape(input.shape[0], -1, *result)
    if bias is not None:
        output = output + bias.reshape(-1, *[1] * dims)
    return output.relu() if activation == "relu" else output

"""Deformable convolution in plain torch (Dai et al. 2017; with a mask Zhu et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = (1, 1),
    padding: int | Sequence[int] = (0, 0),
    dilation: int | Sequence[int] = (1, 1),
    mask: Tensor | None = None,
) -> Tensor:
    """Convolve (N, C, H, W) with offsets (N, 2 * D * kH * kW, H', W'); differentiable in all tensors.

    Computed in the dtype of ``input`` at every step: give it float64 to have an authority on rounding.
    """
    images, channels, height, width = input.shape
    outputs, in_group, kernel_y, kernel_x = weight.shape
    (stride_y, stride_x), (pad_y, pad_x), (step_y, step_x) = (_pair(value) for value in (stride, padding, dilation))
    taps, rows, columns = kernel_y * kernel_x, *offset.shape[2:]
    moved = offset.reshape(images, -1, taps, 2, rows, columns)  # offset group, kernel element, y or x
    offset_groups = moved.shape[1]
    tap = torch.arange(taps)
    y = (torch.arange(rows) * stride_y - pad_y)[:, None] + (tap // kernel_x * step_y)[:, None, None] + moved[:, :, :, 0]
    x = torch.arange(columns) * stride_x - pad_x + (tap % kernel_x * step_x)[:, None, None] + moved[:, :, :, 1]
    maps = input.reshape(images, offset_groups, channels // offset_groups, height * width)
    samples = _bilinear(maps, y, x, height, width)  # (N, D, C / D, taps, rows, columns)
    if mask is not None:
        samples = samples * mask.reshape(images, offset_groups, 1, taps, rows, columns)
    groups = channels // in_group
    grouped = samples.reshape(images, groups, in_group, taps, rows, columns)
    kernels = weight.reshape(groups, outputs // groups, in_group, taps)
    output = torch.einsum("ngckyx,gock->ngoyx", grouped, kernels).reshape(images, outputs, rows, columns)
    return output if bias is None else output + bias[:, None, None]


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _bilinear(maps: Tensor, y: Tensor, x: Tensor, height: int, width: int) -> Tensor:
    """Read maps (N, D, C, H * W) at y, x (N, D, ...): zeros outside of the map, pixel by pixel -> (N, D, C, ...)."""
    inside = (y > -1) & (y < height) & (x > -1) & (x < width)
    y, x = (torch.where(inside, value, 0) for value in (y, x))
    above, left = y.floor(), x.floor()
    total = maps.new_zeros(()).expand(*maps.shape[:3], *y.shape[2:])
    for row, weight_y in ((above, above + 1 - y), (above + 1, y - above)):
        for column, weight_x in ((left, left + 1 - x), (left + 1, x - left)):
            there = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            place = torch.where(there, row * width + column, 0).long().flatten(2)
            pixels = maps.gather(3, place[:, :, None].expand(*maps.shape[:3], -1)).unflatten(3, y.shape[2:])
            total = total + pixels * (weight_y * weight_x * there)[:, :, None]
    return total

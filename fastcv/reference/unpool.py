"""Upsampling without weights in plain torch."""

from __future__ import annotations

from torch import Tensor


def unpool_nearest(input: Tensor, scale: int | tuple[int, int] = 2) -> Tensor:
    """Repeat every pixel of (N, C, H, W) over a rectangle."""
    height, width = (scale, scale) if isinstance(scale, int) else scale
    rows = [y // height for y in range(input.shape[2] * height)]
    columns = [x // width for x in range(input.shape[3] * width)]
    return input[:, :, rows][:, :, :, columns]


def unpool_bed_of_nails(input: Tensor, scale: int | tuple[int, int] = 2) -> Tensor:
    """Put every pixel of (N, C, H, W) at the upper left of a rectangle of zeros."""
    height, width = (scale, scale) if isinstance(scale, int) else scale
    n, c, h, w = input.shape
    output = input.new_zeros(n, c, h * height, w * width)
    output[:, :, ::height, ::width] = input
    return output

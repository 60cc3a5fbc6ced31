"""RoIAlign of rotated boxes in plain torch, with the meaning of ``ROIAlignRotated`` of detectron2."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_GRID = 4096


def roi_align_rotated(
    input: Tensor,
    boxes: Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
) -> Tensor:
    """Pool boxes (K, 6) from input (N, C, H, W) to (K, C, P, Q); differentiable in ``input``.

    Computed in the dtype of ``input`` at every step: give it float64 to have an authority on rounding.
    """
    bins_y, bins_x = (output_size, output_size) if isinstance(output_size, int) else output_size
    boxes = boxes.to(input.dtype)
    pooled = [_pool_box(input, box, bins_y, bins_x, spatial_scale, sampling_ratio) for box in boxes]
    if not pooled:
        return input.sum() * 0 + input.new_zeros(0, input.shape[1], bins_y, bins_x)
    return torch.stack(pooled)


def _pool_box(
    input: Tensor, box: Tensor, bins_y: int, bins_x: int, spatial_scale: float, sampling_ratio: int
) -> Tensor:
    center_x, center_y, width, height = (value * spatial_scale for value in box[1:5])
    zeros = input.new_zeros(input.shape[1], bins_y, bins_x)
    if not bool(torch.isfinite(box).all()) or width < 0 or height < 0 or input.shape[2] == 0 or input.shape[3] == 0:
        return zeros
    v, u = _positions(height, bins_y, sampling_ratio), _positions(width, bins_x, sampling_ratio)
    if v.numel() == 0 or u.numel() == 0:
        return zeros
    down, right = v.flatten()[:, None], u.flatten()
    cosine, sine = _turn(float(box[5]))
    y = down * cosine - right * sine + (center_y - 0.5)
    x = down * sine + right * cosine + (center_x - 0.5)
    samples = _bilinear(input[int(box[0])], y, x)
    return samples.reshape(-1, bins_y, v.shape[1], bins_x, u.shape[1]).mean((2, 4))


def _turn(degrees: float) -> tuple[float, float]:
    """Return cosine and sine, exact where the box stands upright."""
    quarters = math.remainder(degrees, 360.0) / 90
    if quarters == round(quarters):
        return ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[round(quarters) % 4]
    return math.cos(math.radians(degrees)), math.sin(math.radians(degrees))


def _positions(length: Tensor, bins: int, sampling_ratio: int) -> Tensor:
    """Return where the samples of one axis lie, from the centre of the box: (bins, grid)."""
    size = length / bins
    grid = sampling_ratio if sampling_ratio > 0 else min(math.ceil(float(size)), MAX_GRID)
    bin_index = torch.arange(bins, dtype=length.dtype)[:, None]
    sample = torch.arange(grid, dtype=length.dtype)[None, :]
    return -length / 2 + bin_index * size + (sample + 0.5) * size / grid


def _bilinear(image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Interpolate (C, H, W) at positions of any shape. Up to a pixel beyond the border counts as the border."""
    height, width = image.shape[1:]
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    y0, x0 = y.long(), x.long()
    y1, x1 = (y0 + 1).clamp(max=height - 1), (x0 + 1).clamp(max=width - 1)
    down, right = y - y0, x - x0
    above = image[:, y0, x0] * (1 - right) + image[:, y0, x1] * right
    below = image[:, y1, x0] * (1 - right) + image[:, y1, x1] * right
    return (above * (1 - down) + below * down) * inside

"""RoIAlign in plain torch (He et al. 2017, "Mask R-CNN", section 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_GRID = 65536


def roi_align(
    input: Tensor,
    boxes: Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Pool boxes (K, 5) from input (N, C, H, W) to (K, C, P, Q); differentiable in ``input``.

    Computed in the dtype of ``input`` at every step: give it float64 to have an authority on rounding.
    """
    bins_y, bins_x = (output_size, output_size) if isinstance(output_size, int) else output_size
    boxes = boxes.to(input.dtype)
    pooled = [_pool_box(input, box, bins_y, bins_x, spatial_scale, sampling_ratio, aligned) for box in boxes]
    if not pooled:
        return input.sum() * 0 + input.new_zeros(0, input.shape[1], bins_y, bins_x)
    return torch.stack(pooled)


def _pool_box(
    input: Tensor, box: Tensor, bins_y: int, bins_x: int, spatial_scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    offset = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (coordinate * spatial_scale - offset for coordinate in box[1:])
    height, width = y2 - y1, x2 - x1
    if not aligned:
        height, width = height.clamp(min=1), width.clamp(min=1)
    zeros = input.new_zeros(input.shape[1], bins_y, bins_x)
    usable = all(bool(torch.isfinite(value)) for value in (x1, y1, x2, y2, height, width))
    is_mirrored = height < 0 or width < 0
    if not usable or (is_mirrored and sampling_ratio <= 0) or input.shape[2] == 0 or input.shape[3] == 0:
        return zeros
    image = input[int(box[0])]
    ys = _positions(y1, height / bins_y, bins_y, sampling_ratio)
    xs = _positions(x1, width / bins_x, bins_x, sampling_ratio)
    if ys.numel() == 0 or xs.numel() == 0:
        return zeros
    samples = _bilinear(image, ys.flatten(), xs.flatten())
    return samples.reshape(-1, bins_y, ys.shape[1], bins_x, xs.shape[1]).mean((2, 4))


def _positions(start: Tensor, size: Tensor, bins: int, sampling_ratio: int) -> Tensor:
    """Return where the samples of one axis lie: (bins, grid)."""
    grid = sampling_ratio if sampling_ratio > 0 else min(math.ceil(float(size)), MAX_GRID)
    bin_index = torch.arange(bins, dtype=start.dtype)[:, None]
    sample = torch.arange(grid, dtype=start.dtype)[None, :]
    return start + bin_index * size + (sample + 0.5) * size / grid


def _bilinear(image: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """Interpolate (C, H, W) at each y and x -> (C, ys, xs). Up to a pixel beyond the border counts as the border."""
    height, width = image.shape[1:]
    inside_y, inside_x = (ys >= -1) & (ys <= height), (xs >= -1) & (xs <= width)
    ys, xs = ys.clamp(0, height - 1), xs.clamp(0, width - 1)
    y0, x0 = ys.long(), xs.long()
    y1, x1 = (y0 + 1).clamp(max=height - 1), (x0 + 1).clamp(max=width - 1)
    down, right = (ys - y0)[:, None], xs - x0
    value = (
        image[:, y0][:, :, x0] * (1 - down) * (1 - right)
        + image[:, y0][:, :, x1] * (1 - down) * right
        + image[:, y1][:, :, x0] * down * (1 - right)
        + image[:, y1][:, :, x1] * down * right
    )
    return value * (inside_y[:, None] & inside_x)

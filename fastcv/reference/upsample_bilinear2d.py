"""Bilinear interpolation to another size in plain torch: one matrix per axis."""

from __future__ import annotations

import torch
from torch import Tensor


def upsample_bilinear2d(
    input: Tensor,
    output_size: tuple[int, int],
    align_corners: bool = False,
    scale_factor: tuple[float, float] | None = None,
) -> Tensor:
    """Interpolate (N, C, H, W) to (N, C, P, Q); with ``scale_factor`` the steps are 1 / that, not H / P and W / Q."""
    rows = _matrix(input.shape[2], output_size[0], align_corners, scale_factor[0] if scale_factor else None)
    columns = _matrix(input.shape[3], output_size[1], align_corners, scale_factor[1] if scale_factor else None)
    return rows.to(input) @ input @ columns.to(input).T


def _matrix(size: int, outputs: int, align_corners: bool, factor: float | None) -> Tensor:
    """Return the (outputs, size) weights of one axis: a tent of width one pixel around each position."""
    output = torch.arange(outputs, dtype=torch.float64)
    if align_corners:
        position = output * ((size - 1) / (outputs - 1)) if outputs > 1 else output * 0
    else:
        position = (output + 0.5) * (1 / factor if factor else size / outputs) - 0.5
    position = position.clamp(0, size - 1)
    return (1 - (position[:, None] - torch.arange(size, dtype=torch.float64)).abs()).clamp(min=0)

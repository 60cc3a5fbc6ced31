"""Arguments that the voxel operators share: grids, points and clouds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fastcv.ops._arguments import check_tensor, describe_shape

FLOATING = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_NUMBERS = (int, float)

Grid = list[float]
"""Origin, voxel size and number of cells: x, y, z each."""


def _make_grid(voxel_size: tuple[float, ...], point_cloud_range: tuple[float, ...]) -> tuple[float, ...]:
    if len(voxel_size) != 3 or not all(isinstance(v, _NUMBERS) for v in voxel_size):
        raise ValueError(f"voxel_size must be a number or three of them (x, y, z), got {voxel_size!r}")
    if len(point_cloud_range) != 6 or not all(isinstance(v, _NUMBERS) for v in point_cloud_range):
        raise ValueError(f"point_cloud_range must be six numbers (x, y, z from; x, y, z to), got {point_cloud_range!r}")
    if not all(0 < v < math.inf for v in voxel_size):
        raise ValueError(f"voxel_size must be positive and finite, got {voxel_size!r}")
    if not all(-math.inf < v < math.inf for v in point_cloud_range):
        raise ValueError(f"point_cloud_range must be finite, got {point_cloud_range!r}")
    low, high = point_cloud_range[:3], point_cloud_range[3:]
    cells = [math.floor(min((b - a) / s, 2.0**40) + 0.5) for a, b, s in zip(low, high, voxel_size, strict=True)]
    if not all(1 <= n < 2**31 for n in cells):
        raise ValueError(
            "point_cloud_range must span 1 to 2^31 - 1 voxels along each axis, got "
            f"{point_cloud_range!r} with voxel_size {voxel_size!r}"
        )
    return tuple(float(v) for v in (*low, *voxel_size, *cells))


_cached_grid = lru_cache(maxsize=64)(_make_grid)


def as_grid(voxel_size: float | Sequence[float], point_cloud_range: Sequence[float]) -> Grid:
    """Return the grid as nine numbers; one voxel size stands for all axes."""
    if isinstance(voxel_size, _NUMBERS):
        voxel_size = (voxel_size, voxel_size, voxel_size)
    try:
        size, limits = tuple(voxel_size), tuple(point_cloud_range)
    except TypeError:
        raise TypeError(
            "voxel_size must be a number or three of them, and point_cloud_range six, got "
            f"{type(voxel_size).__name__} and {type(point_cloud_range).__name__}"
        ) from None
    if torch.compiler.is_compiling():
        return list(_make_grid(size, limits))
    try:
        return list(_cached_grid(size, limits))
    except TypeError:  # something that has no hash
        return list(_make_grid(size, limits))


def grid_cells(grid: Grid) -> tuple[int, int, int]:
    """Return the number of voxels along z, y and x."""
    return int(grid[8]), int(grid[7]), int(grid[6])


def check_points(points: Tensor) -> None:
    """Raise ValueError or TypeError unless ``points`` is (P, 3 or more) of a floating dtype."""
    check_tensor(points, "points")
    if points.dim() != 2 or points.shape[1] < 3:
        raise ValueError(
            f"points must have shape (P, 3 or more), columns x, y, z and features, got {describe_shape(points)}"
        )
    if points.dtype not in FLOATING:
        raise TypeError(f"points must be float16, bfloat16, float32 or float64, got {points.dtype}")


def check_offsets(offsets: Tensor | None) -> None:
    """Raise ValueError or TypeError unless ``offsets`` is None or int64 (B + 1,)."""
    if offsets is None:
        return
    check_tensor(offsets, "offsets")
    if offsets.dim() != 1:
        raise ValueError(f"offsets must have shape (B + 1,), got {describe_shape(offsets)}")
    if offsets.dtype is not torch.int64:
        raise TypeError(f"offsets must be int64, got {offsets.dtype}")
    torch._check_value(offsets.shape[0] >= 1, "offsets must have at least one element, got none".__str__)


def as_rows(tensor: Tensor) -> Tensor:
    """Return a matrix whose rows are each in one piece, copying only when they are not."""
    return tensor if tensor.stride(1) == 1 else tensor.contiguous()


def as_contiguous(tensor: Any) -> Any:
    """Return a contiguous tensor, or None for None."""
    return tensor if tensor is None or tensor.is_contiguous() else tensor.contiguous()

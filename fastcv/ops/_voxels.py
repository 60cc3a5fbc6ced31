"""The grid that the voxel operators share."""

from __future__ import annotations

from collections.abc import Sequence

from fastcv.ops._arguments import as_floats

Grid = list[float]
"""Voxel size, where the range begins, where it ends: x, y, z each. The compiled module checks it."""


def as_grid(voxel_size: float | Sequence[float], point_cloud_range: Sequence[float]) -> Grid:
    """Return the grid as nine numbers; one voxel size stands for all axes."""
    size = as_floats(voxel_size, 3, "voxel_size", "(x, y, z)", one_for_all=True)
    return [*size, *as_floats(point_cloud_range, 6, "point_cloud_range", "(x, y, z from; x, y, z to)")]

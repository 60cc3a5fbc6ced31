"""The voxel of each point, and dense occupancy grids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastcv import _C
from fastcv.ops._define import define
from fastcv.ops._voxels import Grid, as_grid

__all__ = ["voxel_grid_size", "voxel_ids", "voxel_occupancy"]

_MODES = ("binary", "count", "density")


def _fake(points: Tensor, grid: Grid, offsets: Tensor | None, batch: Tensor | None) -> Tensor:
    return points.new_empty((points.shape[0], 4), dtype=torch.int32)


def _fake_occupancy(points: Tensor, grid: Grid, offsets: Tensor | None, mode: int) -> Tensor:
    lead = () if offsets is None else (offsets.shape[0] - 1,)
    return points.new_empty((*lead, *_C.voxel_grid_cells(grid)), dtype=torch.float32)


_voxel_ids = define(
    "voxel_ids(Tensor points, float[] grid, Tensor? offsets, Tensor? batch) -> Tensor",
    fake=_fake,
)

_voxel_occupancy = define(
    "voxel_occupancy(Tensor points, float[] grid, Tensor? offsets, int mode) -> Tensor",
    fake=_fake_occupancy,
)


def voxel_grid_size(point_cloud_range: Sequence[float], voxel_size: float | Sequence[float]) -> tuple[int, int, int]:
    """Return how many voxels a grid has along each axis, as all voxel operators count them.

    Parameters
    ----------
    point_cloud_range : six floats
        x, y, z from which and x, y, z to which the grid goes.
    voxel_size : float or (float, float, float)
        Sides of a voxel along x, y, z, in the same unit.

    Returns
    -------
    (int, int, int)
        Along x, y, z: ``floor((to - from) / size + 0.5)`` in double precision, half a voxel rounded up. Other ways to
        round, and float32, differ where the range is no whole number of voxels.

    Raises
    ------
    ValueError, TypeError
        As :func:`voxelize` does, for sizes or a range that make no grid.

    Examples
    --------
    >>> voxel_grid_size([0, -39.68, -3, 69.12, 39.68, 1], [0.16, 0.16, 4])
    (432, 496, 1)
    """
    z, y, x = _C.voxel_grid_cells(as_grid(voxel_size, point_cloud_range))
    return x, y, z


def voxel_ids(
    points: Tensor,
    voxel_size: float | Sequence[float],
    point_cloud_range: Sequence[float],
    offsets: Tensor | None = None,
    batch: Tensor | None = None,
) -> Tensor:
    """Return the voxel that each point lies in (dynamic voxelisation).

    Parameters
    ----------
    points : Tensor (P, 3 or more)
        Rows of x, y, z and whatever else: float16, bfloat16, float32 or float64. Voxels are found in float32, or in
        float64 for float64.
    voxel_size, point_cloud_range
        The grid, as in :func:`voxelize`.
    offsets : Tensor (B + 1,), optional
        int64: several clouds behind each other, cloud b being the rows ``offsets[b]`` to ``offsets[b + 1]``.
    batch : Tensor (P,), optional
        int64 or int32: the cloud of each point, in place of ``offsets``.

    Returns
    -------
    Tensor (P, 4)
        int32: b, z, y, x of each point; all -1 for points outside the range, with a NaN coordinate or of a negative
        cloud.

    Raises
    ------
    ValueError
        For a tensor of another shape, sizes or a range that make no grid, tensors on different devices, or (on the
        CPU) offsets that do not ascend from 0 to P.
    TypeError
        For an argument that is not a tensor or not the numbers it must be, or a tensor of an unsupported dtype.

    References
    ----------
    Zhou et al.: End-to-End Multi-View Fusion for 3D Object Detection in LiDAR Point Clouds (2019), section 3.1.

    Examples
    --------
    >>> voxel_ids(torch.tensor([[0.1, 0.6, 0.1], [2.0, 0.0, 0.0]]), 0.5, [0, 0, 0, 1, 1, 1])
    tensor([[ 0,  0,  1,  0],
            [-1, -1, -1, -1]], dtype=torch.int32)
    """
    ids: Tensor = _voxel_ids(points, as_grid(voxel_size, point_cloud_range), offsets, batch)
    return ids


def voxel_occupancy(
    points: Tensor,
    voxel_size: float | Sequence[float],
    point_cloud_range: Sequence[float],
    mode: str = "binary",
    offsets: Tensor | None = None,
) -> Tensor:
    """Return the dense occupancy grid of a point cloud.

    Parameters
    ----------
    points : Tensor (P, 3 or more)
        As in :func:`voxel_ids`.
    voxel_size, point_cloud_range
        The grid, as in :func:`voxelize`.
    mode : {'binary', 'count', 'density'}
        1 where there is a point; the number of points; or that number over the number of all points of the cloud inside
        the grid, so that the grid sums to one.
    offsets : Tensor (B + 1,), optional
        Several clouds, as in :func:`voxel_ids`.

    Returns
    -------
    Tensor (Z, Y, X) or (B, Z, Y, X)
        float32, 0 where there is no point.

    Raises
    ------
    ValueError, TypeError
        As :func:`voxel_ids` does; ValueError for another mode.

    References
    ----------
    Maturana, Scherer: VoxNet: A 3D Convolutional Neural Network for Real-Time Object Recognition (2015), section III.B.

    Examples
    --------
    >>> voxel_occupancy(torch.tensor([[0.1, 0.6, 0.1], [0.2, 0.7, 0.2]]), 0.5, [0, 0, 0, 1, 1, 0.5], mode="count")
    tensor([[[0., 0.],
             [2., 0.]]])
    """
    if mode not in _MODES:
        raise ValueError(f"mode must be 'binary', 'count' or 'density', got {mode!r}")
    grid = as_grid(voxel_size, point_cloud_range)
    occupancy: Tensor = _voxel_occupancy(points, grid, offsets, _MODES.index(mode))
    return occupancy

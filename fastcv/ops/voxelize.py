"""Hard voxelisation: the points of each occupied voxel, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastcv.ops._define import define, size_from_data
from fastcv.ops._voxels import Grid, as_grid

__all__ = ["voxelize", "voxelize_padded"]


def _new_outputs(
    points: Tensor, lead: tuple[Any, ...], max_points: int, offsets: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    voxels = points.new_empty((*lead, max_points, points.shape[1]))
    coords = points.new_empty((*lead, 3 if offsets is None else 4), dtype=torch.int32)
    return voxels, coords, points.new_empty(lead, dtype=torch.int32)


def _fake(
    points: Tensor, grid: Grid, offsets: Tensor | None, max_points: int, max_voxels: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    return _new_outputs(points, (size_from_data(points),), max_points, offsets)


def _fake_padded(
    points: Tensor, grid: Grid, offsets: Tensor | None, max_points: int, max_voxels: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    lead = () if offsets is None else (offsets.shape[0] - 1,)
    outputs = _new_outputs(points, (*lead, max_voxels), max_points, offsets)
    return *outputs, points.new_empty(lead, dtype=torch.int64)


_voxelize = define(
    "voxelize(Tensor points, float[] grid, Tensor? offsets, SymInt max_points_per_voxel, SymInt? max_voxels) "
    "-> (Tensor, Tensor, Tensor)",
    fake=_fake,
)

_voxelize_padded = define(
    "voxelize_padded(Tensor points, float[] grid, Tensor? offsets, SymInt max_points_per_voxel, SymInt max_voxels) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    fake=_fake_padded,
)


def voxelize(
    points: Tensor,
    voxel_size: float | Sequence[float],
    point_cloud_range: Sequence[float],
    max_points_per_voxel: int,
    max_voxels: int | None = None,
    offsets: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gather the points of each occupied voxel of a regular grid (hard voxelisation).

    Parameters
    ----------
    points : Tensor (P, F)
        Rows of x, y, z and F - 3 features: float16, bfloat16, float32 or float64. Voxels are found in float32, or in
        float64 for float64. Points outside the range, and those with a NaN coordinate, are dropped.
    voxel_size : float or (float, float, float)
        Sides of a voxel along x, y, z, in the unit of the points.
    point_cloud_range : six floats
        x, y, z from which and x, y, z to which the grid goes; it has
        :func:`voxel_grid_size` voxels along each axis.
    max_points_per_voxel : int
        M: of each voxel the first M points are kept.
    max_voxels : int, optional
        Keep at most this many voxels of each cloud, the first. None: all.
    offsets : Tensor (B + 1,), optional
        int64: several clouds behind each other, cloud b being the rows ``offsets[b]`` to ``offsets[b + 1]``.

    Returns
    -------
    voxels : Tensor (V, M, F)
        The points of each voxel in input order, then zeros. Voxels are in order of first appearance.
    coords : Tensor (V, 3) or (V, 4)
        int32: z, y, x of each voxel; with ``offsets`` b, z, y, x.
    num_points : Tensor (V,)
        int32: how many of the M are points.

    Raises
    ------
    ValueError
        For a tensor of another shape, sizes or a range that make no grid, numbers out of range, tensors on different
        devices, or offsets that do not ascend from 0 to P. On CUDA, where looking at the offsets would cost a
        synchronisation, points outside of all clouds are dropped.
    TypeError
        For an argument that is not a tensor or not the numbers it must be, or a tensor of an unsupported dtype.

    Notes
    -----
    The same voxels, bit for bit, on every device and for every number of threads, and those of spconv's
    ``PointToVoxel``. Time and memory are O(P + size of the result): no dense grid. The result has no gradient.

    On CUDA the call waits for the device once, for the size of the result: :func:`voxelize_padded` does not. Under
    ``torch.compile(fullgraph=True)`` the size needs ``torch._dynamo.config.capture_dynamic_output_shape_ops = True``.

    References
    ----------
    Zhou, Tuzel: VoxelNet: End-to-End Learning for Point Cloud Based 3D Object Detection (2018), section 2.1.1.

    Examples
    --------
    >>> points = torch.tensor([[0.1, 0.1, 0.1], [0.9, 0.1, 0.1], [0.2, 0.2, 0.2], [5.0, 0.0, 0.0]])
    >>> voxels, coords, num_points = voxelize(points, 0.5, [0, 0, 0, 1, 1, 1], max_points_per_voxel=2)
    >>> coords
    tensor([[0, 0, 0],
            [0, 0, 1]], dtype=torch.int32)
    >>> num_points
    tensor([2, 1], dtype=torch.int32)
    """
    result: tuple[Tensor, Tensor, Tensor] = _voxelize(
        points, as_grid(voxel_size, point_cloud_range), offsets, max_points_per_voxel, max_voxels
    )
    return result


def voxelize_padded(
    points: Tensor,
    voxel_size: float | Sequence[float],
    point_cloud_range: Sequence[float],
    max_points_per_voxel: int,
    max_voxels: int,
    offsets: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """:func:`voxelize` with results of fixed size: no synchronisation, and good for CUDA graphs.

    Parameters
    ----------
    points, voxel_size, point_cloud_range, max_points_per_voxel, offsets
        As in :func:`voxelize`.
    max_voxels : int
        V, the number of rows returned per cloud.

    Returns
    -------
    voxels : Tensor (V, M, F) or (B, V, M, F)
        As :func:`voxelize` gives them, then zeros; with ``offsets`` for each cloud.
    coords : Tensor (V, 3) or (B, V, 4)
        int32, then -1.
    num_points : Tensor (V,) or (B, V)
        int32, then 0.
    count : Tensor () or (B,)
        int64: how many rows are voxels.

    Raises
    ------
    ValueError, TypeError
        As :func:`voxelize` does.

    Examples
    --------
    >>> points = torch.tensor([[0.1, 0.1, 0.1], [0.9, 0.1, 0.1]])
    >>> voxels, coords, num_points, count = voxelize_padded(points, 0.5, [0, 0, 0, 1, 1, 1], 2, max_voxels=3)
    >>> num_points, count
    (tensor([1, 1, 0], dtype=torch.int32), tensor(2))
    """
    result: tuple[Tensor, Tensor, Tensor, Tensor] = _voxelize_padded(
        points, as_grid(voxel_size, point_cloud_range), offsets, max_points_per_voxel, max_voxels
    )
    return result

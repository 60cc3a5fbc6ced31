"""Points to voxels, with the names and arguments of ``spconv.pytorch.utils`` and ``spconv.utils``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastcv.ops.voxel_ids import voxel_grid_size, voxel_ids
from fastcv.ops.voxel_scatter import voxel_scatter
from fastcv.ops.voxelize import voxelize

__all__ = ["Point2VoxelCPU3d", "PointToVoxel", "gather_features_by_pc_voxel_id"]


class PointToVoxel:
    """Gathers the points of each occupied voxel of a regular 3-D grid (:func:`fastcv.ops.voxelize`).

    Parameters
    ----------
    vsize_xyz : three floats
        Sides of a voxel along x, y, z.
    coors_range_xyz : six floats
        x, y, z from which and x, y, z to which the grid goes.
    num_point_features : int
        Columns of the points, x, y, z first.
    max_num_voxels, max_num_points_per_voxel : int
        Most voxels, and most points of a voxel, that are kept: the first ones.
    device : torch.device
        Where the points will be.

    Attributes
    ----------
    vsize, grid_size, coors_range : list
        Sides of a voxel, number of voxels, and range, along z, y, x.
    """

    def __init__(
        self,
        vsize_xyz: Sequence[float],
        coors_range_xyz: Sequence[float],
        num_point_features: int,
        max_num_voxels: int,
        max_num_points_per_voxel: int,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(vsize_xyz) != 3 or len(coors_range_xyz) != 6:
            raise ValueError(
                f"vsize_xyz and coors_range_xyz must be three and six numbers, got {vsize_xyz} and {coors_range_xyz}"
            )
        self.ndim = 3
        self.device = torch.device(device)
        self.num_point_features = num_point_features
        self.max_num_voxels = max_num_voxels
        self.max_num_points_per_voxel = max_num_points_per_voxel
        low, high = [float(v) for v in coors_range_xyz[:3]], [float(v) for v in coors_range_xyz[3:]]
        self._grid = [float(v) for v in vsize_xyz], low + high
        self.grid_size = list(voxel_grid_size(low + high, self._grid[0]))[::-1]
        self.vsize = self._grid[0][::-1]
        self.coors_range = low[::-1] + high[::-1]

    def __call__(
        self, pc: Tensor, clear_voxels: bool = True, empty_mean: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return voxels, indices and num_per_voxel as :meth:`generate_voxel_with_id` does."""
        return self._generate(pc, empty_mean)

    def generate_voxel_with_id(
        self, pc: Tensor, clear_voxels: bool = True, empty_mean: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gather the points of each voxel.

        Parameters
        ----------
        pc : Tensor (P, num_point_features)
            The points.
        clear_voxels : bool
            Not used: places without points hold zeros in any case.
        empty_mean : bool
            Fill these with the mean of the voxel's points instead.

        Returns
        -------
        voxels : Tensor (V, max_num_points_per_voxel, num_point_features)
        indices : Tensor (V, 3)
            int32: z, y, x.
        num_per_voxel : Tensor (V,)
            int32: how many points of the voxel are kept.
        pc_voxel_id : Tensor (P,)
            int64: the row of the voxel that each point lies in, kept or not, or -1.
        """
        voxels, indices, count = self._generate(pc, empty_mean)
        number = torch.arange(pc.shape[0], dtype=torch.float64, device=pc.device)[:, None]
        first, _, voxel_of = voxel_scatter(number, voxel_ids(_as_float32(pc), *self._grid), "min")
        first = first[:, 0].long()
        # Rows are in the order of their voxels' first points. One more is for points of no voxel, whose number is -1.
        is_first = torch.zeros(pc.shape[0], dtype=torch.long, device=pc.device)
        is_first[first] = 1
        row = is_first.cumsum(0)[first] - 1
        row = torch.cat([torch.where(row < voxels.shape[0], row, -1), row.new_full((1,), -1)])
        return voxels, indices, count, row[voxel_of]

    def _generate(self, pc: Tensor, empty_mean: bool) -> tuple[Tensor, Tensor, Tensor]:
        if pc.dim() != 2 or pc.shape[1] != self.num_point_features:
            raise ValueError(f"pc must have shape (P, {self.num_point_features}), got {tuple(pc.shape)}")
        if pc.device.type != self.device.type:
            raise ValueError(f"pc must be on the device {self.device.type}, got {pc.device.type}")
        with torch.no_grad():
            voxels, indices, count = voxelize(
                _as_float32(pc), *self._grid, self.max_num_points_per_voxel, self.max_num_voxels
            )
            if empty_mean:
                mean = voxels.sum(1, keepdim=True) / count.to(voxels)[:, None, None]
                taken = torch.arange(voxels.shape[1], device=voxels.device) < count[:, None]
                voxels = torch.where(taken[:, :, None], voxels, mean)
        return voxels, indices, count


class Point2VoxelCPU3d(PointToVoxel):
    """:class:`PointToVoxel` with the methods of ``spconv.utils``; takes numpy arrays too, returns tensors."""

    def point_to_voxel(self, points: Any, clear_voxels: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Return voxels, indices (z, y, x) and the number of points of each voxel."""
        return self._generate(_as_tensor(points), False)

    def point_to_voxel_empty_mean(self, points: Any, clear_voxels: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """The same, with the mean of a voxel's points in its empty places."""
        return self._generate(_as_tensor(points), True)


def _as_float32(pc: Tensor) -> Tensor:
    return pc if pc.dtype is torch.float32 else pc.float()


def _as_tensor(points: Any) -> Tensor:
    """Return a tensor of anything that is one, or has ``numpy()``, or is an array."""
    if isinstance(points, Tensor):
        return points
    return torch.as_tensor(points.numpy() if hasattr(points, "numpy") else points)


def gather_features_by_pc_voxel_id(
    seg_res_features: Tensor, pc_voxel_id: Tensor, invalid_value: int | float = 0
) -> Tensor:
    """Give each point what was found for its voxel.

    Parameters
    ----------
    seg_res_features : Tensor (V, ...)
        A row for each voxel.
    pc_voxel_id : Tensor (P,)
        Integers: the voxel of each point, or -1, as of :meth:`PointToVoxel.generate_voxel_with_id`.
    invalid_value : number
        For points of no voxel.

    Returns
    -------
    Tensor (P, ...)
        In the dtype and on the device of ``seg_res_features``; differentiable in it.
    """
    rows = pc_voxel_id.to(seg_res_features.device).long()
    shape = (rows.shape[0], *seg_res_features.shape[1:])
    result = seg_res_features.new_full(shape, invalid_value)
    valid = rows != -1
    result[valid] = seg_res_features[rows[valid]]
    return result

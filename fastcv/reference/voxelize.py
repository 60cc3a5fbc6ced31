"""Hard voxelisation, point by point (Zhou, Tuzel 2018, "VoxelNet", section 2.1.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def voxel_cells(voxel_size: Sequence[float], point_cloud_range: Sequence[float]) -> list[int]:
    """Return the number of voxels along x, y, z."""
    return [int((point_cloud_range[3 + i] - point_cloud_range[i]) / voxel_size[i] + 0.5) for i in range(3)]


def voxel_ids(
    points: Tensor,
    voxel_size: Sequence[float],
    point_cloud_range: Sequence[float],
    offsets: Tensor | None = None,
) -> Tensor:
    """Return the cloud, z, y, x of each point (P, 4), -1 for points outside, by torch's own arithmetic."""
    dtype = torch.float64 if points.dtype is torch.float64 else torch.float32
    positions = (points[:, :3].to(dtype) - torch.tensor(point_cloud_range[:3], dtype=dtype)) / torch.tensor(
        voxel_size, dtype=dtype
    )
    cells = torch.tensor(voxel_cells(voxel_size, point_cloud_range))
    floor = positions.double().floor()
    inside = ((floor >= 0) & (floor < cells)).all(dim=1)
    ids = torch.full((len(points), 4), -1, dtype=torch.int32)
    clouds = torch.zeros(len(points), dtype=torch.int64)
    if offsets is not None:
        for b in range(len(offsets) - 1):
            clouds[int(offsets[b]) : int(offsets[b + 1])] = b
    ids[inside, 0] = clouds[inside].int()
    ids[inside, 1:] = floor[inside].flip(1).int()
    return ids


def voxelize(
    points: Tensor,
    voxel_size: Sequence[float],
    point_cloud_range: Sequence[float],
    max_points_per_voxel: int,
    max_voxels: int,
    offsets: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return voxels (V, M, F), coordinates (V, 3), or (V, 4) with offsets, and numbers of points (V,)."""
    members: dict[tuple[int, ...], list[int]] = {}
    voxels_of_cloud: dict[int, int] = {}
    for i, row in enumerate(voxel_ids(points, voxel_size, point_cloud_range, offsets).tolist()):
        if row[0] < 0:
            continue
        voxel = tuple(row)
        if voxel not in members:
            if voxels_of_cloud.get(row[0], 0) == max_voxels:
                continue
            voxels_of_cloud[row[0]] = voxels_of_cloud.get(row[0], 0) + 1
            members[voxel] = []
        if len(members[voxel]) < max_points_per_voxel:
            members[voxel].append(i)
    voxels = points.new_zeros(len(members), max_points_per_voxel, points.shape[1])
    for v, chosen in enumerate(members.values()):
        voxels[v, : len(chosen)] = points[chosen]
    coords = torch.tensor(list(members), dtype=torch.int32).reshape(-1, 4)
    num_points = torch.tensor([len(chosen) for chosen in members.values()], dtype=torch.int32)
    return voxels, coords if offsets is not None else coords[:, 1:], num_points


def voxel_occupancy(
    points: Tensor,
    voxel_size: Sequence[float],
    point_cloud_range: Sequence[float],
    mode: str = "binary",
    offsets: Tensor | None = None,
) -> Tensor:
    """Return the dense grid (Z, Y, X), or (B, Z, Y, X) with offsets."""
    x, y, z = voxel_cells(voxel_size, point_cloud_range)
    clouds = 1 if offsets is None else len(offsets) - 1
    grid = torch.zeros(clouds, z, y, x, dtype=torch.float64)
    for b, k, j, i in voxel_ids(points, voxel_size, point_cloud_range, offsets).tolist():
        if b >= 0:
            grid[b, k, j, i] += 1
    if mode == "binary":
        grid = (grid > 0).double()
    elif mode == "density":
        grid = grid / grid.sum((1, 2, 3), keepdim=True).clamp(min=1)
    return grid.float() if offsets is not None else grid[0].float()

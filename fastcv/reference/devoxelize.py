"""Features of voxels brought back to points (Tang et al. 2020, "SPVNAS", section 3.1), point by point."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastcv.reference.voxelize import voxel_cells, voxel_ids


def devoxelize(
    features: Tensor,
    coords: Tensor,
    points: Tensor,
    voxel_size: Sequence[float],
    point_cloud_range: Sequence[float],
    mode: str = "trilinear",
    offsets: Tensor | None = None,
) -> Tensor:
    """Return (P, C), differentiable in ``features``; give it float64 points to have an authority on rounding."""
    row_of: dict[tuple[int, ...], int] = {}
    cells = voxel_cells(voxel_size, point_cloud_range)
    for v, (b, *cell) in enumerate(coords.tolist()):
        if all(0 <= place < count for place, count in zip(reversed(cell), cells, strict=True)):  # outside: never found
            row_of.setdefault((b, *cell), v)
    ids = voxel_ids(points, voxel_size, point_cloud_range, offsets).tolist()
    output = []
    for p, (b, z, y, x) in enumerate(ids):
        value = features.new_zeros(features.shape[1]) + features.sum() * 0
        if b >= 0 and mode == "nearest":
            if (b, z, y, x) in row_of:
                value = features[row_of[b, z, y, x]]
        elif b >= 0:
            u = [(float(points[p, a]) - point_cloud_range[a]) / voxel_size[a] - 0.5 for a in range(3)]
            total, weighted = 0.0, value
            for dz in (0, 1):
                for dy in (0, 1):
                    for dx in (0, 1):
                        corner = (math.floor(u[2]) + dz, math.floor(u[1]) + dy, math.floor(u[0]) + dx)
                        weight = 1.0
                        for at, position in zip(corner, reversed(u), strict=True):
                            weight *= 1 - abs(position - at)
                        row = row_of.get((b, *corner), -1)
                        if row >= 0:
                            total += weight
                            weighted = weighted + weight * features[row]
            value = weighted / total if total > 0 else value
        output.append(value)
    return torch.stack(output) if output else features.sum() * 0 + features.new_zeros(0, features.shape[1])

"""From clouds to the voxels that networks on grids begin with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastcv.ops import voxel_ids, voxel_scatter

__all__ = ["cube", "flattened", "mean_voxels"]


def cube(extent: float) -> list[float]:
    """Return the range of a cube around the origin."""
    if not 0 < extent < float("inf"):
        raise ValueError(f"extent must be positive and finite, got {extent}")
    return [-extent] * 3 + [extent] * 3


def flattened(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return clouds (B, N, F) behind each other, and where each begins."""
    batch, count, _ = points.shape
    return points.flatten(0, 1), torch.arange(batch + 1, device=points.device) * count


def mean_voxels(
    points: Tensor, voxel_size: float | Sequence[float], point_cloud_range: Sequence[float], offsets: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the features of occupied voxels and their places, b, z, y, x.

    The features are means over a voxel's points: the offset from its middle in voxels (x, y, z), and the columns of
    ``points`` behind the third.
    """
    ids = voxel_ids(points.detach(), voxel_size, point_cloud_range, offsets)
    low = points.new_tensor(list(point_cloud_range[:3]))
    scaled = (points[:, :3] - low) / points.new_tensor(voxel_size)
    offset = scaled - ids[:, [3, 2, 1]].to(points.dtype) - 0.5
    features, voxels, _ = voxel_scatter(torch.cat([offset, points[:, 3:]], 1), ids, "mean")
    return features, voxels

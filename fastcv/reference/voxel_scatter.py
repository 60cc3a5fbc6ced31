"""Features of points reduced per voxel, voxel by voxel."""

from __future__ import annotations

import torch
from torch import Tensor


def voxel_scatter(features: Tensor, coords: Tensor, reduce: str = "mean") -> tuple[Tensor, Tensor, Tensor]:
    """Return reduced features (V, C), voxels (V, 4) in ascending order and the voxel of each point (P,).

    Differentiable in ``features``. A maximum or minimum that several points have is the first one's.
    """
    rows = [tuple(row) for row in coords.tolist()]
    voxels = sorted({row for row in rows if min(row) >= 0})
    number = {row: v for v, row in enumerate(voxels)}
    voxel_of = torch.tensor([number.get(row, -1) for row in rows], dtype=torch.int64)
    reduced = [features.new_zeros(0, features.shape[1]) + features.sum() * 0]
    for v in range(len(voxels)):
        members = features[voxel_of == v]
        if reduce == "sum":
            value = members.sum(0)
        elif reduce == "mean":
            value = members.sum(0) / len(members)
        else:
            sign = 1 if reduce == "max" else -1
            # argmax leaves open which of several it takes: the first, here
            best = (members * sign).max(dim=0).values * sign
            first = (members == best).int().argmax(dim=0)
            value = members.gather(0, first[None])[0]
        reduced.append(value[None])
    return torch.cat(reduced), torch.tensor(voxels, dtype=torch.int32).reshape(-1, 4), voxel_of

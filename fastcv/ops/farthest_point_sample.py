"""Farthest point sampling: a subset that covers the cloud."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcv.ops._define import define

__all__ = ["farthest_point_sample"]


def _fake(points: Tensor, lengths: Tensor | None, k: int, *_: Any) -> Tensor:
    return points.new_empty((points.shape[0], k), dtype=torch.int64)


_farthest_point_sample = define(
    "farthest_point_sample(Tensor points, Tensor? lengths, SymInt k, SymInt start, Tensor? starts) -> Tensor",
    fake=_fake,
)


def farthest_point_sample(points: Tensor, k: int, start: int | Tensor = 0, lengths: Tensor | None = None) -> Tensor:
    """Choose points one by one, each the one farthest from all chosen before it.

    Parameters
    ----------
    points : Tensor (B, N, 3)
        Clouds of x, y, z: float16, bfloat16, float32 or float64. Half types are compared in float32.
    k : int
        Number of points to choose from each cloud.
    start : int or Tensor (B,), int64 or int32
        Index of the first choice, one for all clouds or one for each. Where a cloud has no such point (by its length),
        or it is not finite, the first finite point is taken instead.
    lengths : Tensor (B,), int64 or int32, optional
        Number of points of each cloud; all N when left out.

    Returns
    -------
    Tensor (B, k), int64
        Indices in the order of choice. No point is chosen twice, and none with a NaN or infinite coordinate; when none
        is left, -1 follows.

    Raises
    ------
    ValueError
        For a tensor of another shape, a negative ``k`` or ``start``, a length outside of [0, N] (on CUDA, where looking
        would cost a synchronisation, it is cut off), or tensors on different devices.
    TypeError
        For an argument that is not a tensor or of an unsupported dtype.

    Notes
    -----
    Distances are squared, ``dx * dx + dy * dy + dz * dz``, each operation rounded by itself; of equals the lowest index
    is chosen. All devices choose alike, bit for bit. On the CPU blocks of points that a choice cannot reach are
    skipped, so that a choice costs far less than a pass over the cloud.

    References
    ----------
    Qi, Yi, Su, Guibas: PointNet++ (2017), section 3.2, "Sampling layer".

    Examples
    --------
    >>> points = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [5, 0, 0], [9, 0, 0]]])
    >>> farthest_point_sample(points, 3)
    tensor([[0, 3, 2]])
    """
    starts = start if isinstance(start, Tensor) and start.dim() > 0 else None
    first = 0 if starts is not None else start
    indices: Tensor = _farthest_point_sample(points, lengths, k, first, starts)
    return indices

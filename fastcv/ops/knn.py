"""The nearest points of each query, and PointNet++'s three."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcv.ops._define import define

__all__ = ["knn", "three_nn"]


def _fake(query: Tensor, points: Tensor, k: int, *_: Any) -> tuple[Tensor, Tensor]:
    shape = (*query.shape[:2], k)
    wide = torch.float64 if points.dtype is torch.float64 else torch.float32
    return points.new_empty(shape, dtype=wide), points.new_empty(shape, dtype=torch.int64)


_knn = define(
    "knn(Tensor query, Tensor points, SymInt k, Tensor? query_lengths, Tensor? lengths) -> (Tensor, Tensor)",
    fake=_fake,
)


def knn(
    query: Tensor,
    points: Tensor,
    k: int,
    query_lengths: Tensor | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the k nearest points of each query.

    Parameters
    ----------
    query : Tensor (B, Q, 3)
        Places x, y, z to search around: float16, bfloat16, float32 or float64. Half types are compared in float32.
    points : Tensor (B, N, 3)
        Clouds to search in, of the same dtype.
    k : int
        Number of neighbours.
    query_lengths, lengths : Tensor (B,), int64 or int32, optional
        Number of queries and of points of each cloud; all Q and N when left out.

    Returns
    -------
    distances : Tensor (B, Q, k)
        Squared distances, ascending, float32 (float64 for float64); infinity where there is no such neighbour.
    indices : Tensor (B, Q, k), int64
        The neighbours. Of points at the same squared distance the one with the lower index comes first. -1 where there
        is no such neighbour: the cloud has fewer points, or the query is none by ``query_lengths``.

    Raises
    ------
    ValueError
        For a tensor of another shape, a negative ``k``, a length outside of its range (on CUDA, where looking would
        cost a synchronisation, it is cut off), or tensors on different devices.
    TypeError
        For an argument that is not a tensor, of an unsupported dtype, or for two clouds of different dtypes.

    Notes
    -----
    Distances are ``dx * dx + dy * dy + dz * dz``, each operation rounded by itself: all devices give the same bits. A
    point counts as a neighbour when its squared distance is less than infinity, so points and queries with NaN or
    infinite coordinates have none. There is no gradient: for distances that have one, gather the neighbours with
    :func:`fastcv.ops.group_points`.

    References
    ----------
    Qi, Yi, Su, Guibas: PointNet++ (2017), section 3.3.

    Examples
    --------
    >>> points = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [5, 0, 0]]])
    >>> distances, indices = knn(points, points, 2)
    >>> indices
    tensor([[[0, 1],
             [1, 0],
             [2, 1]]])
    """
    found: tuple[Tensor, Tensor] = _knn(query, points, k, query_lengths, lengths)
    return found


def three_nn(target: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """Find the three nearest source points of each target point, for :func:`three_interpolate`.

    Parameters
    ----------
    target : Tensor (B, N, 3)
        Points that want features: float16, bfloat16, float32 or float64. Half types are compared in float32.
    source : Tensor (B, M, 3)
        Points that have features, of the same dtype.

    Returns
    -------
    distances : Tensor (B, N, 3)
        Distances (not squared), ascending, float32 (float64 for float64); infinity where there is no such point.
    indices : Tensor (B, N, 3), int64
        The points, of equals the one with the lower index first; -1 where there is none: M is less than three, or a
        coordinate is not finite.

    Raises
    ------
    ValueError, TypeError
        As :func:`knn` does, whose ``query`` and ``points`` these are.

    References
    ----------
    Chen et al.: MMCV (2018), ``three_nn``, whose indices are int32; Qi, Yi, Su, Guibas: PointNet++ (2017), section 3.4.

    Examples
    --------
    >>> source = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [5, 0, 0], [9, 0, 0]]])
    >>> three_nn(source[:, 3:], source)
    (tensor([[[0., 4., 8.]]]), tensor([[[3, 2, 1]]]))
    """
    squared, indices = knn(target, source, 3)
    return torch.sqrt(squared), indices

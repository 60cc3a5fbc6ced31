"""The nearest points of each query."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcv import _C
from fastcv.ops._arguments import check_tensor
from fastcv.ops._define import Operator
from fastcv.ops._points import as_lengths, check_clouds, check_count, contiguous

__all__ = ["knn"]


def _allocate(
    query: Tensor, points: Tensor, k: int, query_lengths: Tensor | None = None, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    check_clouds(query, points)
    batch, queries, _ = query.shape
    shape, strides = (batch, queries, k), (queries * k, k, 1)
    wide = torch.float64 if points.dtype is torch.float64 else torch.float32
    return (
        points.new_empty_strided(shape, strides, dtype=wide),
        points.new_empty_strided(shape, strides, dtype=torch.int64),
    )


def _forward(
    query: Tensor, points: Tensor, k: int, query_lengths: Tensor | None = None, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    distances, indices = _allocate(query, points, k)
    _C.knn(distances, indices, query.contiguous(), points.contiguous(), contiguous(query_lengths), contiguous(lengths))
    return distances, indices


_knn = Operator(
    "knn(Tensor query, Tensor points, SymInt k, Tensor? query_lengths, Tensor? lengths) -> (Tensor, Tensor)",
    forward=_forward,
    fake=_allocate,
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
        For an argument that is no tensor, of an unsupported dtype, or for two clouds of different dtypes.

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
    check_tensor(query, "query")
    check_tensor(points, "points")
    check_count(k, "k", 0)
    if query_lengths is not None:
        query_lengths = as_lengths(query_lengths, "query_lengths")
    if lengths is not None:
        lengths = as_lengths(lengths, "lengths")
    found: tuple[Tensor, Tensor] = _knn(query, points, k, query_lengths, lengths)
    return found

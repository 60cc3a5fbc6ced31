"""Points within a radius of each query."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcv.ops._define import define

__all__ = ["ball_query"]


def _fake(query: Tensor, points: Tensor, radius: float, k: int, *_: Any) -> Tensor:
    return points.new_empty((*query.shape[:2], k), dtype=torch.int64)


_ball_query = define(
    "ball_query(Tensor query, Tensor points, float radius, SymInt k, Tensor? query_lengths, Tensor? lengths, "
    "bool repeat_first, float min_radius) -> Tensor",
    fake=_fake,
)


def ball_query(
    query: Tensor,
    points: Tensor,
    radius: float,
    k: int,
    query_lengths: Tensor | None = None,
    lengths: Tensor | None = None,
    repeat_first: bool = False,
    min_radius: float = 0.0,
) -> Tensor:
    """Find the first k points, by index, that lie nearer to each query than a radius.

    Parameters
    ----------
    query : Tensor (B, Q, 3)
        Places x, y, z to search around: float16, bfloat16, float32 or float64. Half types are compared in float32.
    points : Tensor (B, N, 3)
        Clouds to search in, of the same dtype.
    radius : float
        In the units of the points; a point belongs to the ball when its squared distance is less than
        ``radius * radius``, rounded to the precision of the distances.
    k : int
        Greatest number of points per ball.
    query_lengths, lengths : Tensor (B,), int64 or int32, optional
        Number of queries and of points of each cloud; all Q and N when left out.
    repeat_first : bool
        Fill up balls of fewer points with their first point, as PointNet++ does; empty balls keep -1.
    min_radius : float
        Balls with a hole (dilated balls): points nearer than this are left out, apart from those at the query itself.

    Returns
    -------
    Tensor (B, Q, k), int64
        Indices in ascending order; -1, or the first one again, behind the last.

    Raises
    ------
    ValueError
        For a tensor of another shape, a negative ``radius``, ``min_radius`` or ``k``, a length outside of its range (on
        CUDA, where looking would cost a synchronisation, it is cut off), or tensors on different devices.
    TypeError
        For an argument that is not a tensor, of an unsupported dtype, or for two clouds of different dtypes.

    Notes
    -----
    Distances are ``dx * dx + dy * dy + dz * dz``, each operation rounded by itself: all devices decide alike. Points
    and queries with NaN or infinite coordinates are in no ball.

    References
    ----------
    Qi, Yi, Su, Guibas: PointNet++ (2017), section 3.2, "Grouping layer".
    Chen et al.: MMCV (2018), ``ball_query``, for ``min_radius``.

    Examples
    --------
    >>> points = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [5, 0, 0]]])
    >>> ball_query(points, points, 2.0, 2)
    tensor([[[ 0,  1],
             [ 0,  1],
             [ 2, -1]]])
    """
    indices: Tensor = _ball_query(query, points, radius, k, query_lengths, lengths, repeat_first, min_radius)
    return indices

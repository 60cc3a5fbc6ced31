"""Neighbours and samples of point clouds with the names, arguments and results of ``pytorch3d.ops``.

The searches are :func:`fastcv.ops.knn`, :func:`fastcv.ops.ball_query` and :func:`fastcv.ops.farthest_point_sample` for
up to three dimensions, where the norm is 2; for others they are made of torch's operations. Results are the same on
every run. In contrast to PyTorch3D all floating dtypes are kept, float64 is not rounded to float32, and derivatives go
to any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcv import ops
from fastcv.ops._arguments import as_float, as_int, check_tensor, describe_shape

__all__ = ["ball_query", "knn_gather", "knn_points", "sample_farthest_points"]

_MOST_DIFFERENCES = 1 << 24
"""Elements of an intermediate result at a time, where the work is torch's."""


class _KNN(NamedTuple):
    dists: Tensor
    idx: Tensor
    knn: Tensor | None


def knn_points(
    p1: Tensor,
    p2: Tensor,
    lengths1: Tensor | None = None,
    lengths2: Tensor | None = None,
    norm: int = 2,
    K: int = 1,
    version: int = -1,
    return_nn: bool = False,
    return_sorted: bool = True,
) -> _KNN:
    """Find the K nearest points in p2 of each point in p1.

    Parameters
    ----------
    p1, p2 : Tensor (N, P1, D) and (N, P2, D)
        Clouds that ask and clouds to search in, of one floating dtype.
    lengths1, lengths2 : Tensor (N,), int64 or int32, optional
        Number of points of each cloud; all of them when left out.
    norm : int
        2 for squared distances, 1 for sums of absolute differences.
    K : int
        Number of neighbours.
    version, return_sorted
        Of no effect: neighbours are always sorted.
    return_nn : bool
        Whether to return the neighbours themselves.

    Returns
    -------
    dists : Tensor (N, P1, K)
        Ascending; zeros where there is no such point in p1, or fewer than K in p2. Differentiable in p1 and p2.
    idx : Tensor (N, P1, K), int64
        Of equals the lower index first; zeros where there is none.
    knn : Tensor (N, P1, K, D) or None
        ``knn_gather(p2, idx, lengths2)``.

    Raises
    ------
    ValueError, TypeError
        For arguments of wrong shapes, dtypes or values.

    Notes
    -----
    Points at no finite distance are nobody's neighbours. The derivative of an absolute difference of zero is zero.

    References
    ----------
    Ravi et al.: Accelerating 3D Deep Learning with PyTorch3D (2020).

    Examples
    --------
    >>> points = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [5, 0, 0]]])
    >>> knn_points(points, points, K=2).idx
    tensor([[[0, 1],
             [1, 0],
             [2, 1]]])
    """
    _check_clouds(p1, p2)
    if norm not in (1, 2):
        raise ValueError(f"norm must be 1 or 2, got {norm!r}")
    k = _as_count(K, "K")
    lengths1, lengths2 = _as_lengths(lengths1, p1, "lengths1"), _as_lengths(lengths2, p2, "lengths2")
    with torch.no_grad():
        if norm == 2 and p1.shape[2] <= 3:
            idx = ops.knn(_in_space(p1), _in_space(p2), k, lengths1, lengths2)[1]
        else:
            idx = _search(p1, p2, lengths1, lengths2, k, lambda there: _nearest(there, k), norm)
    dists = _distances_to(p1, p2, idx, norm)
    idx = idx.clamp(min=0)
    return _KNN(dists, idx, knn_gather(p2, idx, lengths2) if return_nn else None)


def knn_gather(x: Tensor, idx: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Gather what belongs to the neighbours that :func:`knn_points` found.

    Parameters
    ----------
    x : Tensor (N, M, U)
        Features of the points that were searched.
    idx : Tensor (N, L, K), int64 or int32
        Indices of neighbours.
    lengths : Tensor (N,), int64 or int32, optional
        Number of points of each cloud of x.

    Returns
    -------
    Tensor (N, L, K, U)
        ``x[n, idx[n, l, k]]``; zeros from ``k = lengths[n]`` on. Differentiable in x.
    """
    check_tensor(x, "x")
    check_tensor(idx, "idx")
    if x.dim() != 3:
        raise ValueError(f"x must have shape (N, M, U), got {describe_shape(x)}")
    if idx.dim() != 3 or len(idx) != len(x):
        raise ValueError(f"idx must have shape (N, L, K) with N = {len(x)} as in x, got {describe_shape(idx)}")
    lengths = _as_lengths(lengths, x, "lengths")
    count = x.shape[1] if lengths is None else lengths[:, None, None].to(idx.device)
    there = torch.arange(idx.shape[2], device=idx.device) < count
    return _gather(x, torch.where(there, idx, -1))


def ball_query(
    p1: Tensor,
    p2: Tensor,
    lengths1: Tensor | None = None,
    lengths2: Tensor | None = None,
    K: int = 500,
    radius: float = 0.2,
    return_nn: bool = True,
) -> _KNN:
    """Find the first K points in p2, by index, that lie nearer to each point in p1 than a radius.

    Parameters
    ----------
    p1, p2, lengths1, lengths2
        As in :func:`knn_points`.
    K : int
        Greatest number of points per ball.
    radius : float
        In the units of the points.
    return_nn : bool
        Whether to return the points themselves.

    Returns
    -------
    dists : Tensor (N, P1, K)
        Squared distances; zeros where there is none. Differentiable in p1 and p2.
    idx : Tensor (N, P1, K), int64
        Ascending; -1 where there is none.
    knn : Tensor (N, P1, K, D) or None
        The points; zeros where there is none.
    """
    _check_clouds(p1, p2)
    k, radius = _as_count(K, "K"), as_float(radius, "radius")
    lengths1, lengths2 = _as_lengths(lengths1, p1, "lengths1"), _as_lengths(lengths2, p2, "lengths2")
    with torch.no_grad():
        if p1.shape[2] <= 3:
            idx = ops.ball_query(_in_space(p1), _in_space(p2), radius, k, lengths1, lengths2)
        else:
            limit = torch.tensor(radius * radius, dtype=_wide(p1).dtype, device=p1.device)
            idx = _search(p1, p2, lengths1, lengths2, k, lambda there: _first(there < limit, k), 2)
    return _KNN(_distances_to(p1, p2, idx, 2), idx, _gather(p2, idx) if return_nn else None)


def sample_farthest_points(
    points: Tensor,
    lengths: Tensor | None = None,
    K: int | Sequence[int] | Tensor = 50,
    random_start_point: bool = False,
) -> tuple[Tensor, Tensor]:
    """Choose points one by one, each the one farthest from all chosen before it.

    Parameters
    ----------
    points : Tensor (N, P, D)
        Clouds.
    lengths : Tensor (N,), int64 or int32, optional
        Number of points of each cloud; all P when left out.
    K : int, list of ints or Tensor (N,)
        Number of points to choose, from all clouds or from each.
    random_start_point : bool
        Whether the first choice is drawn from torch's generator, as PyTorch3D does, one draw for each cloud in turn. It
        is the first point otherwise.

    Returns
    -------
    selected_points : Tensor (N, max(K), D)
        Zeros behind the last. Differentiable in ``points``.
    selected_indices : Tensor (N, max(K)), int64
        -1 behind the last: a cloud has fewer points, or fewer are to be chosen.

    Raises
    ------
    ValueError, TypeError
        For arguments of wrong shapes, dtypes or values.

    Notes
    -----
    Of equals the lowest index is chosen. Of an empty cloud nothing is chosen, where PyTorch3D returns index 0.
    """
    check_tensor(points, "points")
    if points.dim() != 3:
        raise ValueError(f"points must have shape (N, P, D), got {describe_shape(points)}")
    if not points.is_floating_point():
        points = points.float()
    lengths = _as_lengths(lengths, points, "lengths")
    counts = _as_counts(K, len(points))
    most = max(counts, default=0)
    start = torch.zeros(len(points), dtype=torch.int64)
    if random_start_point:
        highs = [points.shape[1]] * len(points) if lengths is None else lengths.tolist()
        for n, high in enumerate(highs):
            start[n] = torch.randint(high, (1,)).item() if high > 0 else 0
    start = start.to(points.device)
    with torch.no_grad():
        if points.shape[2] <= 3:
            idx = ops.farthest_point_sample(_in_space(points), most, start, lengths)
        else:
            idx = _farthest(points, lengths, most, start)
    if min(counts, default=0) < most:
        wanted = torch.arange(most) < torch.tensor(counts)[:, None]
        idx = torch.where(wanted.to(idx.device), idx, -1)
    return ops.group_points(points, idx), idx


# ---- arguments -------------------------------------------------------------------------------------------------------


def _check_clouds(p1: Tensor, p2: Tensor) -> None:
    for cloud, name in ((p1, "p1"), (p2, "p2")):
        check_tensor(cloud, name)
        if cloud.dim() != 3:
            raise ValueError(f"{name} must have shape (N, P, D), got {describe_shape(cloud)}")
        if not cloud.is_floating_point():
            raise TypeError(f"{name} must be floating, got {str(cloud.dtype).removeprefix('torch.')}")
    if p1.shape[0] != p2.shape[0] or p1.shape[2] != p2.shape[2]:
        raise ValueError(
            f"p2 must have as many clouds and dimensions as p1 {describe_shape(p1)}, got {describe_shape(p2)}"
        )
    if p1.dtype != p2.dtype or p1.device != p2.device:
        raise TypeError(
            f"p2 must have the dtype and device of p1 ({p1.dtype}, {p1.device}), got {p2.dtype}, {p2.device}"
        )


def _as_count(value: int, name: str) -> int:
    count: int = as_int(value, name)
    if count < 0:
        raise ValueError(f"{name} must be at least 0, got {count}")
    return count


def _as_counts(value: int | Sequence[int] | Tensor, clouds: int) -> list[int]:
    if isinstance(value, Tensor) and value.dim() > 0:
        value = value.tolist()
    if not isinstance(value, list | tuple):
        return [_as_count(value, "K")] * clouds  # type: ignore[arg-type]
    if len(value) != clouds:
        raise ValueError(f"K must have one value per cloud, {clouds}, got {len(value)}")
    return [_as_count(count, "K") for count in value]


def _as_lengths(lengths: Tensor | None, cloud: Tensor, name: str) -> Tensor | None:
    if lengths is None:
        return None
    check_tensor(lengths, name)
    if lengths.shape != cloud.shape[:1]:
        raise ValueError(f"{name} must have shape (N,) = ({len(cloud)}), got {describe_shape(lengths)}")
    if lengths.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name} must be int64 or int32, got {str(lengths.dtype).removeprefix('torch.')}")
    if lengths.device.type == "cpu" and len(lengths) > 0:  # elsewhere looking would cost a synchronisation
        low, high = lengths.aminmax()
        if low < 0 or high > cloud.shape[1]:
            raise ValueError(f"{name} must be between 0 and {cloud.shape[1]}, got {int(low if low < 0 else high)}")
    return lengths.to(cloud.device)


# ---- made of torch's operations --------------------------------------------------------------------------------------


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype is torch.float64 else tensor.float()


def _in_space(points: Tensor) -> Tensor:
    """Points of fewer dimensions in three."""
    return F.pad(points, (0, 3 - points.shape[2])) if points.shape[2] < 3 else points


def _gather(x: Tensor, idx: Tensor) -> Tensor:
    if x.is_floating_point():
        return ops.group_points(x, idx)
    rows = torch.arange(len(x), device=x.device)[:, None, None]
    found = x[rows, idx.long().clamp(min=0)] if x.shape[1] > 0 else x.new_zeros((*idx.shape, x.shape[2]))
    return torch.where((idx < 0)[..., None], 0, found)


def _sum_over_axes(difference: Tensor, norm: int) -> Tensor:
    """As the kernels sum where there are up to three axes."""
    terms = difference.abs() if norm == 1 else difference * difference
    if not 1 <= terms.shape[-1] <= 3:
        return terms.sum(-1)
    first, *others = terms.unbind(-1)
    for other in others:
        first = first + other
    return first


def _distances_to(p1: Tensor, p2: Tensor, idx: Tensor, norm: int) -> Tensor:
    """From points (N, P1, D) to their neighbours; zeros where there is none."""
    there = (idx >= 0)[..., None]
    difference = _wide(p1)[:, :, None] - _gather(_wide(p2), idx)
    return _sum_over_axes(torch.where(there, difference, 0), norm)


def _search(
    p1: Tensor,
    p2: Tensor,
    lengths1: Tensor | None,
    lengths2: Tensor | None,
    k: int,
    choose: Callable[[Tensor], Tensor],
    norm: int,
) -> Tensor:
    """What ``choose`` takes of distances (N, some queries, P2), infinite where there is no point or query."""
    found = [p1.new_zeros(len(p1), 0, k, dtype=torch.int64)]
    for part, first in _parts(_wide(p1), p2):
        distances = _sum_over_axes(part[:, :, None] - _wide(p2)[:, None], norm).nan_to_num(torch.inf, torch.inf)
        for lengths, axis, begin in ((lengths1, 1, first), (lengths2, 2, 0)):
            if lengths is not None:
                places = torch.arange(begin, begin + distances.shape[axis], device=p1.device)
                gone = places >= lengths[:, None]
                distances.masked_fill_(gone[:, :, None] if axis == 1 else gone[:, None], torch.inf)
        found.append(choose(distances))
    return torch.cat(found, 1)


def _parts(p1: Tensor, p2: Tensor) -> Iterator[tuple[Tensor, int]]:
    step = max(1, _MOST_DIFFERENCES // max(1, p2.numel()))
    for first in range(0, p1.shape[1], step):
        yield p1[:, first : first + step], first


def _nearest(distances: Tensor, k: int) -> Tensor:
    """Indices (..., k) of the least, of equals the lower index first; -1 where nothing finite is left."""
    kept = min(k, distances.shape[-1])
    if kept == 0:
        return distances.new_full((*distances.shape[:-1], k), -1, dtype=torch.int64)
    last = distances.kthvalue(kept, dim=-1, keepdim=True).values
    below, equal = distances < last, distances == last
    equal &= equal.cumsum(-1) <= kept - below.sum(-1, keepdim=True)
    indices = (below | equal).nonzero()[:, -1].view(*distances.shape[:-1], kept)
    values, order = distances.gather(-1, indices).sort(dim=-1, stable=True)
    indices = torch.where(values < torch.inf, indices.gather(-1, order), -1)
    return F.pad(indices, (0, k - kept), value=-1)


def _first(inside: Tensor, k: int) -> Tensor:
    """Indices (N, queries, k) of the first that are inside, then -1."""
    place = inside.cumsum(-1)
    cloud, query, column = (inside & (place <= k)).nonzero().unbind(-1)
    indices = place.new_full((*inside.shape[:-1], k), -1)
    indices[cloud, query, place[cloud, query, column] - 1] = column
    return indices


def _farthest(points: Tensor, lengths: Tensor | None, k: int, start: Tensor) -> Tensor:
    points = _wide(points)
    rows = torch.arange(len(points), device=points.device)
    nearest = torch.where(points.isfinite().all(2), torch.inf, -1.0).to(points.dtype)
    if lengths is not None:
        nearest[torch.arange(points.shape[1], device=points.device) >= lengths[:, None]] = -1
    chosen = start.new_full((len(points), k), -1)
    for step in range(k if points.shape[1] > 0 else 0):
        farthest = nearest.argmax(1)
        if step == 0:
            farthest = torch.where(nearest[rows, start] > 0, start, farthest)
        left = nearest[rows, farthest] >= 0
        chosen[:, step] = torch.where(left, farthest, -1)
        distances = _sum_over_axes(points - points[rows, farthest][:, None], 2).nan_to_num(torch.inf, torch.inf)
        nearest = torch.minimum(nearest, distances)
        nearest[rows, farthest] = -1
    return chosen

"""Point-set operators of PointNet++ (Qi et al. 2017) in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def farthest_point_sample(points: Tensor, k: int, start: int | Tensor = 0, lengths: Tensor | None = None) -> Tensor:
    """Choose k points of each cloud (B, N, 3) -> (B, k), each farthest from those before; -1 when none is left."""
    chosen = torch.full((len(points), k), -1)
    starts = torch.as_tensor(start).expand(len(points)).tolist()
    for row, cloud, length, first in zip(chosen, _wide(points), _lengths(points, lengths), starts, strict=True):
        cloud = cloud[:length]
        left = cloud.isfinite().all(1)
        nearest = torch.full((length,), torch.inf, dtype=cloud.dtype)
        for step in range(k):
            candidates = left.nonzero()[:, 0]
            if len(candidates) == 0:
                break
            greatest = nearest[candidates].max()
            index = int(candidates[(nearest[candidates] == greatest).nonzero()[0, 0]])
            if step == 0 and first < length and left[first]:
                index = first
            row[step] = index
            left[index] = False
            nearest = torch.minimum(nearest, _squared_distances(cloud[index], cloud).nan_to_num(torch.inf, torch.inf))
    return chosen


def knn(
    query: Tensor, points: Tensor, k: int, query_lengths: Tensor | None = None, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Find the k nearest of points (B, N, 3) to query (B, Q, 3) -> squared distances and indices (B, Q, k)."""
    query, points = _wide(query), _wide(points)
    distances = torch.full((*query.shape[:2], k), torch.inf, dtype=points.dtype)
    indices = torch.full(distances.shape, -1)
    for b, (asking, length) in enumerate(zip(_lengths(query, query_lengths), _lengths(points, lengths), strict=True)):
        for q in range(asking):
            squared = _squared_distances(query[b, q], points[b, :length])
            order = squared.sort(stable=True).indices
            order = order[squared[order] < torch.inf][:k]
            distances[b, q, : len(order)] = squared[order]
            indices[b, q, : len(order)] = order
    return distances, indices


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
    """Find the first k of points (B, N, 3) nearer to query (B, Q, 3) than the radius -> (B, Q, k), filled with -1.

    They are no nearer than ``min_radius``, or at the query itself.
    """
    query, points = _wide(query), _wide(points)
    indices = torch.full((*query.shape[:2], k), -1)
    limit, least = torch.tensor([radius * radius, min_radius * min_radius], dtype=points.dtype)
    for b, (asking, length) in enumerate(zip(_lengths(query, query_lengths), _lengths(points, lengths), strict=True)):
        for q in range(asking):
            squared = _squared_distances(query[b, q], points[b, :length])
            inside = ((squared < limit) & ((squared >= least) | (squared == 0))).nonzero()[:k, 0]
            if repeat_first and len(inside):
                indices[b, q] = inside[0]
            indices[b, q, : len(inside)] = inside
    return indices


def group_points(features: Tensor, indices: Tensor) -> Tensor:
    """Gather features (B, N, C) by indices (B, ...) -> (B, ..., C); zeros for -1."""
    padded = torch.cat([features, features.new_zeros(len(features), 1, features.shape[2])], 1)
    return torch.stack([rows[chosen] for rows, chosen in zip(padded, indices, strict=True)])


def gather_points(features: Tensor, indices: Tensor) -> Tensor:
    """Gather features (B, C, N) by indices (B, M) -> (B, C, M); zeros for -1."""
    chosen = features.gather(2, indices.long().clamp(min=0)[:, None].expand(-1, features.shape[1], -1))
    return torch.where(indices[:, None] < 0, 0, chosen)


def three_nn(target: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """Find the three nearest of source (B, M, 3) to target (B, N, 3) -> distances and indices (B, N, 3)."""
    squared, indices = knn(target, source, 3)
    return squared.sqrt(), indices


def three_interpolate(features: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Sum features (B, M, C) of indices (B, N, K) with weights (B, N, K) -> (B, N, C)."""
    known = group_points(_wide(features), indices)
    used = torch.where(indices < 0, 0.0, weights.to(known.dtype))
    return (known * used[..., None]).sum(2).to(features.dtype)


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype is torch.float64 else tensor.float()


def _lengths(clouds: Tensor, lengths: Tensor | None) -> list[int]:
    return [clouds.shape[1]] * len(clouds) if lengths is None else lengths.tolist()


def _squared_distances(place: Tensor, cloud: Tensor) -> Tensor:
    """Return the squared distance of each point of a cloud (N, 3), each operation rounded by itself."""
    dx, dy, dz = (cloud - place).unbind(1)
    return dx * dx + dy * dy + dz * dz

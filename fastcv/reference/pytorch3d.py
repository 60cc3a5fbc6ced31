"""Neighbours and samples of ``pytorch3d.ops`` in plain torch, by their documentation (Ravi et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor


def _all(lengths: Tensor | None, clouds: Tensor) -> list[int]:
    return [clouds.shape[1]] * len(clouds) if lengths is None else lengths.tolist()


def knn_points(
    p1: Tensor,
    p2: Tensor,
    lengths1: Tensor | None = None,
    lengths2: Tensor | None = None,
    norm: int = 2,
    K: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the K nearest of p2 (N, P2, D) to p1 (N, P1, D) -> distances, indices, points; padded with zeros."""
    indices = torch.zeros(*p1.shape[:2], K, dtype=torch.int64)
    distances = []
    for n, (asking, length) in enumerate(zip(_all(lengths1, p1), _all(lengths2, p2), strict=True)):
        for i in range(p1.shape[1]):
            row = p1.new_zeros(K)
            if i < asking:
                difference = (p2[n, :length] - p1[n, i]).abs()
                all_distances = (difference if norm == 1 else difference**2).sum(1)
                nearest = all_distances.sort(stable=True).indices[:K]
                row = torch.cat([all_distances[nearest], row[len(nearest) :]])
                indices[n, i, : len(nearest)] = nearest
            distances.append(row)
    stacked = torch.stack(distances) if distances else p1.new_zeros(0)
    return stacked.view(indices.shape), indices, knn_gather(p2, indices, lengths2)


def knn_gather(x: Tensor, idx: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Gather x (N, M, U) by idx (N, L, K) -> (N, L, K, U); zeros from k = lengths[n] on."""
    rows = torch.stack([features[chosen] for features, chosen in zip(x, idx, strict=True)])
    for n, length in enumerate(_all(lengths, x)):
        rows[n, :, length:] = 0
    return rows


def ball_query(
    p1: Tensor,
    p2: Tensor,
    lengths1: Tensor | None = None,
    lengths2: Tensor | None = None,
    K: int = 500,
    radius: float = 0.2,
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the first K of p2 nearer to p1 than the radius -> squared distances and points, zeros; indices, -1."""
    indices = torch.full((*p1.shape[:2], K), -1)
    distances, points = p1.new_zeros(indices.shape), p1.new_zeros(*indices.shape, p1.shape[2])
    for n, (asking, length) in enumerate(zip(_all(lengths1, p1), _all(lengths2, p2), strict=True)):
        for i in range(asking):
            squared = (p2[n, :length] - p1[n, i]).square().sum(1)
            inside = (squared < radius * radius).nonzero()[:K, 0]
            indices[n, i, : len(inside)] = inside
            distances[n, i, : len(inside)] = squared[inside]
            points[n, i, : len(inside)] = p2[n, inside]
    return distances, indices, points


def sample_farthest_points(
    points: Tensor, lengths: Tensor | None, K: list[int], start: list[int]
) -> tuple[Tensor, Tensor]:
    """Choose K[n] points of each cloud (N, P, D), from start[n] on -> points, zeros; indices, -1."""
    indices = torch.full((len(points), max(K)), -1)
    chosen = points.new_zeros(*indices.shape, points.shape[2])
    for n, length in enumerate(_all(lengths, points)):
        nearest = points.new_full((length,), torch.inf)
        latest = start[n]
        for step in range(min(K[n], length)):
            if step > 0:
                latest = int((nearest == nearest.max()).nonzero()[0, 0])
            indices[n, step] = latest
            chosen[n, step] = points[n, latest]
            nearest = torch.minimum(nearest, (points[n, :length] - points[n, latest]).square().sum(1))
            nearest[indices[n, : step + 1]] = -1
    return chosen, indices

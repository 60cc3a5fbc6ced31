"""Pooling over a kernel map in plain torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sparse_max_pool(features: Tensor, neighbours: Tensor, reverse: Tensor) -> Tensor:
    """Take the largest of each site's neighbours: features (N, C) and neighbours (K, M) to (M, C).

    A neighbour of -1 is passed over; a site without neighbours gives 0. NaN is larger than all, and of equal values the
    first along K gets the gradient. ``reverse`` says nothing that ``neighbours`` does not.
    """
    if neighbours.numel() == 0 or features.shape[0] == 0:
        return features.sum() * 0 + features.new_zeros(neighbours.shape[1], features.shape[1])
    there = (neighbours >= 0)[:, :, None]
    values = features[neighbours.clamp(min=0).long()]
    ranks = torch.where(there, values.detach().nan_to_num(math.inf, math.inf, -math.inf), -math.inf)
    ranks = torch.stack([ranks, values.detach().isnan() & there, there.expand_as(ranks)])  # +inf < NaN, none < -inf
    for level in (1, 2, 0):  # keep what is largest by NaN, then by being there, then by value
        there = there & (ranks[level] == torch.where(there, ranks[level], -math.inf).amax(0))
    chosen = there.long().argmax(0, keepdim=True)
    return torch.where(there.any(0), values.gather(0, chosen)[0], torch.zeros_like(values[0]))


def sparse_avg_pool(
    features: Tensor, neighbours: Tensor, reverse: Tensor, count_include_missing: bool = False
) -> Tensor:
    """Average each site's neighbours: features (N, C) and neighbours (K, M) to (M, C).

    The divisor is the number of neighbours that are there, or K with ``count_include_missing``; a site without
    neighbours gives 0. ``reverse`` says nothing that ``neighbours`` does not.
    """
    output = features[:0].sum() + features.new_zeros(neighbours.shape[1], features.shape[1])
    for rows in neighbours.long():
        (there,) = (rows >= 0).nonzero(as_tuple=True)
        output = output.index_add(0, there, features[rows[there]])
    counts = (neighbours >= 0).sum(0).clamp(min=1)[:, None]
    return output / (max(neighbours.shape[0], 1) if count_include_missing else counts)

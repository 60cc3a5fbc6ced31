"""Matching of boxes in plain Python (Ren et al. 2015, "Faster R-CNN", section 3.1.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def match_boxes(
    gt: Tensor,
    candidates: Tensor,
    high_threshold: float,
    low_threshold: float,
    allow_low_quality_matches: bool = False,
) -> Tensor:
    """Match candidates (M, 4) to ground truth (N, 4) -> (M,): index of the box, -1 below, -2 between the thresholds."""
    if len(gt) == 0:
        return candidates.new_full((len(candidates),), -1, dtype=torch.int64)
    working = gt.dtype if gt.dtype is torch.float64 else torch.float32
    high, low = (torch.tensor(value, dtype=working) for value in (high_threshold, low_threshold))
    overlaps = [[_overlap(g, c) for c in candidates.to(working)] for g in gt.to(working)]
    most_of_gt = [_greatest(row)[0] for row in overlaps if row]
    matches = []
    for i in range(len(candidates)):
        column = [row[i] for row in overlaps]
        value, index = _greatest(column)
        match = -1 if value < low else -2 if value < high else index
        if allow_low_quality_matches and any(bool(v == most) for v, most in zip(column, most_of_gt, strict=True)):
            match = index
        matches.append(match)
    return torch.tensor(matches, dtype=torch.int64, device=candidates.device)


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    width = (torch.minimum(a[2], b[2]) - torch.maximum(a[0], b[0])).clamp(min=0)
    height = (torch.minimum(a[3], b[3]) - torch.maximum(a[1], b[1])).clamp(min=0)
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (area_a + area_b - width * height)


def _greatest(values: list[Tensor]) -> tuple[Tensor, int]:
    """Return the first of the greatest values and its index; NaN is greater than every number."""
    for index, value in enumerate(values):
        if math.isnan(value):
            return value, index
    index = max(range(len(values)), key=lambda i: (float(values[i]), -i))
    return values[index], index

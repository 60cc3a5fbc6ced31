"""Greedy non-maximum suppression in plain torch."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fastcv.reference.box_iou_rotated import box_iou_rotated


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Return the indices of boxes (N, 4) that no better-scored kept box covers by more than the threshold."""
    return batched_nms(boxes, scores, torch.zeros_like(scores, dtype=torch.int64), iou_threshold)


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Return the same where boxes suppress only boxes with their own value of ``idxs``; best score first over all."""
    boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
    return _greedy(scores, idxs, iou_threshold, lambda index, later: overlap_with(boxes[index], boxes[later]))


def nms_rotated(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Return the same for rotated boxes (N, 5)."""
    return batched_nms_rotated(boxes, scores, torch.zeros_like(scores, dtype=torch.int64), iou_threshold)


def batched_nms_rotated(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Return the same for rotated boxes (N, 5) that suppress only boxes with their own value of ``idxs``."""
    overlaps = box_iou_rotated(boxes, boxes)
    return _greedy(scores, idxs, iou_threshold, lambda index, later: overlaps[index, later])


def _greedy(scores: Tensor, idxs: Tensor, iou_threshold: float, overlap: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Return what is kept, where ``overlap(index, later)`` are the overlaps of one box with later ones."""
    # Python's sort is stable; a NaN score comes last.
    values = scores.tolist()
    order = sorted(range(len(values)), key=lambda i: (1, 0.0) if math.isnan(values[i]) else (0, -values[i]))
    dropped = torch.zeros(len(scores), dtype=torch.bool)
    kept = []
    for position, index in enumerate(order):
        if dropped[index]:
            continue
        kept.append(index)
        later = torch.tensor(order[position + 1 :], dtype=torch.int64)
        # In double precision: the overlap rounded to the boxes' dtype against the threshold as it was given.
        covered = overlap(index, later).double() > iou_threshold
        dropped[later] |= covered & (idxs[later] == idxs[index])
    return torch.tensor(kept, dtype=torch.int64)


def overlap_with(box: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of one box with others (M, 4): NaN where that is 0 / 0."""
    low, high = torch.maximum(box[:2], others[:, :2]), torch.minimum(box[2:], others[:, 2:])
    sides = (high - low).clamp(min=0)
    intersection = sides[:, 0] * sides[:, 1]
    area = (box[2] - box[0]) * (box[3] - box[1])
    areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    return intersection / (area + areas - intersection)

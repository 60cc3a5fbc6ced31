"""torchvision's suppression within classes, for comparison."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def by_class(torchvision_ops: Any, boxes: Tensor, scores: Tensor, idxs: Tensor, threshold: float) -> Tensor:
    """torchvision's nms for each class, merged by a stable sort (its own loop leaves the order of ties open)."""
    keep = torch.zeros(len(boxes), dtype=torch.bool)
    for value in idxs.unique():
        (members,) = torch.where(idxs == value)
        keep[members[torchvision_ops.nms(boxes[members], scores[members], threshold)]] = True
    (kept,) = torch.where(keep)
    return kept[scores[kept].sort(descending=True, stable=True).indices]

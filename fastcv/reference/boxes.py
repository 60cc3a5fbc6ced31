"""Boxes of masks, pixel by pixel."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["masks_to_boxes"]


def masks_to_boxes(masks: Tensor) -> Tensor:
    """First and last column and row with a pixel that is not zero, (N, H, W) -> (N, 4); zeros where there is none."""
    boxes = torch.zeros(masks.shape[0], 4)
    for index, mask in enumerate(masks):
        rows, columns = mask.nonzero(as_tuple=True)
        if len(rows) > 0:
            boxes[index] = torch.stack([columns.min(), rows.min(), columns.max(), rows.max()])
    return boxes

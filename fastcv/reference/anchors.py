"""Anchors in plain loops (Ren et al. 2015, "Faster R-CNN", section 3.1.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastcv.reference.box_coding import Weights, decode_boxes


def anchor_grid(
    feature_sizes: Sequence[tuple[int, int]], strides: Sequence[tuple[int, int]], cell_anchors: Sequence[Tensor]
) -> Tensor:
    """Anchors of all levels -> (A, 4), in the order level, y, x, cell."""
    rows = []
    for (height, width), (stride_y, stride_x), cells in zip(feature_sizes, strides, cell_anchors, strict=True):
        for y in range(height):
            for x in range(width):
                shift = torch.tensor([x * stride_x, y * stride_y] * 2).to(cells.dtype)
                rows += [cell + shift for cell in cells]
    return torch.stack(rows) if rows else cell_anchors[0].new_zeros(0, 4)


def decode_anchors(
    deltas: Tensor,
    indices: Tensor,
    feature_sizes: Sequence[tuple[int, int]],
    strides: Sequence[tuple[int, int]],
    cell_anchors: Sequence[Tensor],
    weights: Weights = (1.0, 1.0, 1.0, 1.0),
    clip: float = math.log(1000 / 16),
    image_size: tuple[int, int] | None = None,
) -> Tensor:
    """Decode the anchors `indices` (K,) with deltas (K, 4) -> (K, 4), inside the image where one is given."""
    boxes = decode_boxes(deltas, anchor_grid(feature_sizes, strides, cell_anchors)[indices], weights, clip)
    if image_size is None:
        return boxes
    height, width = image_size
    return torch.stack([boxes[:, k].clamp(0, (width, height)[k % 2]) for k in range(4)], dim=1)

"""Boxes as offsets from other boxes, row by row (Girshick et al. 2014, "R-CNN", appendix C)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Weights = tuple[float, float, float, float]


def encode_boxes(reference_boxes: Tensor, proposals: Tensor, weights: Weights = (10.0, 10.0, 5.0, 5.0)) -> Tensor:
    """Express boxes (N, 4) as offsets from proposals (N, 4) -> (N, 4)."""
    wx, wy, ww, wh = weights
    rows = []
    for box, proposal in zip(reference_boxes, proposals, strict=True):
        x, y, width, height = _center_and_size(box)
        px, py, pwidth, pheight = _center_and_size(proposal)
        row = [
            wx * (x - px) / pwidth,
            wy * (y - py) / pheight,
            ww * torch.log(width / pwidth),
            wh * torch.log(height / pheight),
        ]
        rows.append(torch.stack(row))
    return torch.stack(rows) if rows else reference_boxes * 1


def decode_boxes(
    deltas: Tensor, boxes: Tensor, weights: Weights = (10.0, 10.0, 5.0, 5.0), clip: float = math.log(1000 / 16)
) -> Tensor:
    """Apply offsets (N, 4 C) to boxes (N, 4) -> (N, 4 C)."""
    wx, wy, ww, wh = weights
    rows = []
    for row, box in zip(deltas, boxes, strict=True):
        x, y, width, height = _center_and_size(box)
        decoded = []
        for dx, dy, dw, dh in row.reshape(-1, 4):
            cx, cy = x + dx / wx * width, y + dy / wy * height
            half_width = width * torch.exp((dw / ww).clamp(max=clip)) / 2
            half_height = height * torch.exp((dh / wh).clamp(max=clip)) / 2
            decoded += [cx - half_width, cy - half_height, cx + half_width, cy + half_height]
        rows.append(torch.stack(decoded) if decoded else row)
    return torch.stack(rows) if rows else deltas * 1


def _center_and_size(box: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = box
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1

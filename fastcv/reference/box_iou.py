"""Overlaps of boxes in plain torch (Rezatofighi et al. 2019; Zheng et al. 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["box_iou", "complete_box_iou", "distance_box_iou", "generalized_box_iou"]


def _pairs(boxes1: Tensor, boxes2: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return x1, y1, x2, y2 of both sets, (N, 1) and (1, M)."""
    return boxes1[:, None].unbind(-1), boxes2[None].unbind(-1)


def _sizes(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return intersection, union, and the sides of the enclosing box, each (N, M)."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = _pairs(boxes1, boxes2)
    width = torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)
    height = torch.minimum(ay2, by2) - torch.maximum(ay1, by1)
    # relu: at zero it has no derivative, and clamp has one before torch 2.14.
    intersection = torch.relu(width) * torch.relu(height)
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - intersection
    outer_width = torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)
    outer_height = torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    return intersection, union, torch.relu(outer_width), torch.relu(outer_height)


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of boxes (N, 4) and (M, 4), x1, y1, x2, y2 -> (N, M)."""
    intersection, union, _, _ = _sizes(boxes1, boxes2)
    return intersection / union


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU - (C - U) / C, where C is the area of the enclosing box -> (N, M)."""
    intersection, union, width, height = _sizes(boxes1, boxes2)
    return intersection / union - (width * height - union) / (width * height)


def distance_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """IoU - d^2 / q^2, where d is between the centres and q is the diagonal of the enclosing box -> (N, M)."""
    intersection, union, width, height = _sizes(boxes1, boxes2)
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = _pairs(boxes1, boxes2)
    distance = ((ax1 + ax2 - bx1 - bx2) / 2) ** 2 + ((ay1 + ay2 - by1 - by2) / 2) ** 2
    return intersection / union - distance / (width**2 + height**2 + eps)


def complete_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """Distance IoU - alpha v, where v compares the aspect ratios; alpha is a constant to derivatives -> (N, M)."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = _pairs(boxes1, boxes2)
    turn = torch.atan((ax2 - ax1) / (ay2 - ay1)) - torch.atan((bx2 - bx1) / (by2 - by1))
    aspect = 4 / math.pi**2 * turn**2
    alpha = (aspect / (1 - box_iou(boxes1, boxes2) + aspect + eps)).detach()
    return distance_box_iou(boxes1, boxes2, eps) - alpha * aspect

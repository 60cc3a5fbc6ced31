"""Losses on the overlap of boxes with their partners in plain torch (Rezatofighi et al. 2019; Zheng et al. 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["complete_box_iou_loss", "distance_box_iou_loss", "generalized_box_iou_loss"]


def _areas(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return intersection, union, and the sides of the enclosing box of boxes (N, 4), each (N,)."""
    ax1, ay1, ax2, ay2 = boxes1.unbind(-1)
    bx1, by1, bx2, by2 = boxes2.unbind(-1)
    width = torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)
    height = torch.minimum(ay2, by2) - torch.maximum(ay1, by1)
    overlapping = (width > 0) & (height > 0)
    intersection = torch.where(overlapping, width * height, torch.zeros_like(width))
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - intersection
    outer_width = torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)
    outer_height = torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    return intersection, union, outer_width, outer_height


def generalized_box_iou_loss(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """1 - I / (U + eps) + (C - U) / (C + eps) of boxes (N, 4) -> (N,)."""
    intersection, union, width, height = _areas(boxes1, boxes2)
    enclosing = width * height
    return 1 - intersection / (union + eps) + (enclosing - union) / (enclosing + eps)


def distance_box_iou_loss(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """1 - I / (U + eps) + d^2 / (q^2 + eps) of boxes (N, 4) -> (N,)."""
    intersection, union, width, height = _areas(boxes1, boxes2)
    offset = (boxes1[:, :2] + boxes1[:, 2:] - boxes2[:, :2] - boxes2[:, 2:]) / 2
    return 1 - intersection / (union + eps) + (offset**2).sum(-1) / (width**2 + height**2 + eps)


def complete_box_iou_loss(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """Distance loss + alpha v of boxes (N, 4) -> (N,); alpha is a constant to derivatives."""
    size1, size2 = boxes1[:, 2:] - boxes1[:, :2], boxes2[:, 2:] - boxes2[:, :2]
    turn = torch.atan(size1[:, 0] / size1[:, 1]) - torch.atan(size2[:, 0] / size2[:, 1])
    aspect = 4 / math.pi**2 * turn**2
    intersection, union, _, _ = _areas(boxes1, boxes2)
    alpha = (aspect / (1 - intersection / (union + 1e-7) + aspect + eps)).detach()
    return distance_box_iou_loss(boxes1, boxes2) + alpha * aspect

"""The formats of rotated boxes, and how one is written as another: torchvision's formulas, in its order.

``cxcywhr``
    Centre, width, height and angle in degrees, counter-clockwise as an image is seen (y downwards).
``xywhr``
    The corner that is the upper left one before the turn, where the turn has brought it; width, height and angle.
``xyxyxyxy``
    The corners that are the upper left, upper right, lower right and lower left one before the turn.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["COLUMNS", "convert_rotated"]

COLUMNS = {"cxcywhr": 5, "xywhr": 5, "xyxyxyxy": 8}
"""How many numbers a box has, by format."""


def convert_rotated(boxes: Tensor, in_fmt: str, out_fmt: str, rounded: bool) -> Tensor:
    """Return boxes of one rotated format in another, of a floating dtype.

    ``rounded`` is for boxes of integers: each step of a conversion is rounded to one.
    """
    steps = []
    if in_fmt == "cxcywhr":
        steps.append(_centre_to_corner)
    elif in_fmt == "xyxyxyxy":
        steps.append(_corners_to_corner)
    if out_fmt == "cxcywhr":
        steps.append(_corner_to_centre)
    elif out_fmt == "xyxyxyxy":
        steps.append(_corner_to_corners)
    for step in steps:
        boxes = step(boxes).round() if rounded else step(boxes)
    return boxes


def _turn(degrees: Tensor) -> tuple[Tensor, Tensor]:
    radians = degrees * torch.pi / 180.0
    return torch.cos(radians), torch.sin(radians)


def _centre_to_corner(boxes: Tensor) -> Tensor:
    cx, cy, w, h, r = boxes.unbind(-1)
    cos, sin = _turn(r)
    x, y = cx - w / 2 * cos - h / 2 * sin, cy - h / 2 * cos + w / 2 * sin
    return torch.stack((x, y, w, h, r), dim=-1)


def _corner_to_centre(boxes: Tensor) -> Tensor:
    x, y, w, h, r = boxes.unbind(-1)
    cos, sin = _turn(r)
    cx, cy = x + w / 2 * cos + h / 2 * sin, y - w / 2 * sin + h / 2 * cos
    return torch.stack((cx, cy, w, h, r), dim=-1)


def _corner_to_corners(boxes: Tensor) -> Tensor:
    x1, y1, w, h, r = boxes.unbind(-1)
    cos, sin = _turn(r)
    x2, y2 = x1 + w * cos, y1 - w * sin
    x3, y3 = x2 + h * sin, y2 + h * cos
    x4, y4 = x1 + h * sin, y1 + h * cos
    return torch.stack((x1, y1, x2, y2, x3, y3, x4, y4), dim=-1)


def _corners_to_corner(boxes: Tensor) -> Tensor:
    x1, y1, x2, y2, x3, y3, _, _ = boxes.unbind(-1)
    angle = torch.atan2(y1 - y2, x2 - x1) * 180 / torch.pi
    width = ((x2 - x1) ** 2 + (y1 - y2) ** 2).sqrt()
    height = ((x3 - x2) ** 2 + (y3 - y2) ** 2).sqrt()
    return torch.stack((x1, y1, width, height, angle), dim=-1)

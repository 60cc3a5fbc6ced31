"""Overlaps of rotated boxes: one polygon clipped by the sides of the other (Sutherland, Hodgman 1974)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Point = tuple[float, float]


def box_iou_rotated(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Return the IoU (N, M), float32, of boxes (N, 5) and (M, 5): cx, cy, w, h, degrees counter-clockwise."""
    pairs = [[_iou(a, b) for b in boxes2.double().tolist()] for a in boxes1.double().tolist()]
    return torch.tensor(pairs, dtype=torch.float32).reshape(len(boxes1), len(boxes2))


def _iou(a: list[float], b: list[float]) -> float:
    areas = a[2] * a[3], b[2] * b[3]
    if not all(map(math.isfinite, (*a, *b, *areas))) or min(areas) < 1e-14:
        return 0.0
    origin = a[0], a[1]
    inside = _corners(a, origin)
    window = _corners(b, origin)
    for start, end in zip(window, window[1:] + window[:1], strict=True):
        inside = _clip(inside, start, end)
    area = abs(_area(inside))
    return area / (areas[0] + areas[1] - area)


def _corners(box: list[float], origin: Point) -> list[Point]:
    """Return the corners, in the order that keeps the inside on one side."""
    cx, cy, w, h, degrees = box
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    half = [(-abs(w) / 2, -abs(h) / 2), (abs(w) / 2, -abs(h) / 2), (abs(w) / 2, abs(h) / 2), (-abs(w) / 2, abs(h) / 2)]
    return [(cx - origin[0] + u * cos + v * sin, cy - origin[1] - u * sin + v * cos) for u, v in half]


def _clip(polygon: list[Point], start: Point, end: Point) -> list[Point]:
    """Return what of a convex polygon lies on the inner side of a line."""

    def side(point: Point) -> float:
        return (end[0] - start[0]) * (point[1] - start[1]) - (end[1] - start[1]) * (point[0] - start[0])

    kept = []
    for point, following in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        here, there = side(point), side(following)
        if here >= 0:
            kept.append(point)
        if (here < 0) != (there < 0):
            share = here / (here - there)
            kept.append((point[0] + share * (following[0] - point[0]), point[1] + share * (following[1] - point[1])))
    return kept


def _area(polygon: list[Point]) -> float:
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return sum(a[0] * b[1] - a[1] * b[0] for a, b in pairs) / 2

"""Outlines of generated scenes: how far each pixel is inside a figure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fastcv.data.textures import Array, Random

__all__ = ["KEYPOINTS", "PERSON", "SHAPES", "Outline", "clutter", "figure"]

_MARGIN = 1.5  # radii from the centre of a figure to the edge of its window
_MOST_TILT = 0.6  # radians, of a person

PERSON = "person"
KEYPOINTS = ("head", "left_hand", "right_hand", "left_foot", "right_foot")


@dataclass
class Outline:
    """A figure's window in the image, and the signed distance of each pixel there to its edge, positive inside."""

    rows: slice
    columns: slice
    distance: Array
    parts: list[Array] = field(default_factory=list)  # the same for parts with colours of their own
    keypoints: Array | None = None  # (K, 2): x, y in the image


def figure(name: str, random: Random, size: int, radius: float) -> Outline:
    """Return a figure of a class at a random place."""
    tilt = random.between(-_MOST_TILT, _MOST_TILT) if name == PERSON else random.between(0, 2 * math.pi)
    inset = min(0.7 * radius, 0.45 * size)
    center_x, center_y = random.between(inset, size - inset), random.between(inset, size - inset)
    flatness = 1.0 if name == PERSON else random.between(0.78, 1)
    rows, columns, x, y = _window(center_x, center_y, _MARGIN * radius, size)
    cos, sin = math.cos(tilt), math.sin(tilt)
    u, v = (x * cos + y * sin) / radius, (y * cos - x * sin) / (radius * flatness)
    scale = radius * flatness
    if name != PERSON:
        return Outline(rows, columns, -scale * _SHAPES[name](u, v))
    limbs, points = _person(u, v, random)
    parts = [-scale * part for part in limbs]
    place = np.array(points, np.float32) * radius
    turned = np.stack(
        [place[:, 0] * cos - place[:, 1] * sin + center_x, place[:, 0] * sin + place[:, 1] * cos + center_y]
    )
    return Outline(rows, columns, np.maximum.reduce(parts), parts, np.ascontiguousarray(turned.T))


def clutter(random: Random, size: int) -> Outline:
    """Return a bent or straight stroke, or a speck: nothing that looks like a figure."""
    center_x, center_y = random.between(0, size), random.between(0, size)
    if random.chance(0.4):
        radius = size * random.between(0.008, 0.02)
        rows, columns, x, y = _window(center_x, center_y, radius + 4, size)
        return Outline(rows, columns, radius - np.hypot(x, y))
    length, thickness = size * random.between(0.08, 0.3), size * random.between(0.006, 0.02)
    rows, columns, x, y = _window(center_x, center_y, length + 4, size)
    angle = random.between(0, 2 * math.pi)
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    bend = random.between(-0.5, 0.5) / length
    v = v + bend * (u * u - length * length / 3)
    slope = np.sqrt(1 + (2 * bend * u) ** 2)
    distance: Array = np.minimum(thickness - np.abs(v) / slope, length - np.abs(u)).astype(np.float32)
    return Outline(rows, columns, distance)


def _window(center_x: float, center_y: float, reach: float, size: int) -> tuple[slice, slice, Array, Array]:
    """Return the rows and columns within reach, and there x and y of the pixels' centres from the centre."""
    rows, columns = (
        slice(max(0, math.floor(c - reach)), min(size, math.ceil(c + reach) + 1)) for c in (center_y, center_x)
    )
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + np.float32(0.5 - center_y)
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None] + np.float32(0.5 - center_x)
    return rows, columns, x, y


# Each shape gives the distance to its edge, negative inside, where its radius is about 1.


def _circle(u: Array, v: Array) -> Array:
    return np.hypot(u, v) - np.float32(0.9)


def _square(u: Array, v: Array) -> Array:
    return np.maximum(np.abs(u), np.abs(v)) - np.float32(0.8)


def _triangle(u: Array, v: Array) -> Array:
    return np.maximum(v, np.abs(u) * np.float32(math.sqrt(0.75)) - v / 2) - np.float32(0.55)


def _star(u: Array, v: Array) -> Array:
    """Five points; one side is the line from a point at radius 1.1 to a notch at 0.48, folded over all others."""
    fifth = 2 * math.pi / 5
    turn = np.arctan2(u, -v)
    turn = np.abs((turn + fifth / 2) % fifth - fifth / 2)
    length = np.hypot(u, v)
    x, y = length * np.sin(turn), length * np.cos(turn)
    notch_x, notch_y = 0.48 * math.sin(fifth / 2), 0.48 * math.cos(fifth / 2)
    along_x, along_y = notch_x, notch_y - 1.1
    distance: Array = (x * -along_y + (y - 1.1) * along_x) / math.hypot(along_x, along_y)
    return distance


def _ring(u: Array, v: Array) -> Array:
    return np.abs(np.hypot(u, v) - np.float32(0.7)) - np.float32(0.24)


def _cross(u: Array, v: Array) -> Array:
    u, v = np.abs(u), np.abs(v)
    return np.maximum(np.minimum(u, v) - np.float32(0.3), np.maximum(u, v) - np.float32(0.98))


def _moon(u: Array, v: Array) -> Array:
    return np.maximum(np.hypot(u, v) - np.float32(1), np.float32(0.8) - np.hypot(u - np.float32(0.5), v))


def _heart(u: Array, v: Array) -> Array:
    """A square that stands on a corner, with half circles at its upper sides."""
    v = v - np.float32(0.1)
    p, q = (u + v) * np.float32(math.sqrt(0.5)), (u - v) * np.float32(math.sqrt(0.5))
    h = np.float32(0.58)
    square = np.maximum(np.abs(p), np.abs(q)) - h
    return np.minimum(square, np.minimum(np.hypot(p, q - h), np.hypot(p + h, q)) - h)


_SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": _circle, "square": _square, "triangle": _triangle, "star": _star, "ring": _ring, "cross": _cross,
    "moon": _moon, "heart": _heart,
}  # fmt: skip
SHAPES = tuple(_SHAPES)


def _person(u: Array, v: Array, random: Random) -> tuple[list[Array], list[tuple[float, float]]]:
    """Return the distances to legs, trunk with arms, and head; and the keypoints. It faces us: its left is right."""
    head = (0.0, -0.85)
    trunk = _capsule(u, v, (0, -0.4), (0, 0.12), 0.2)
    hands, feet = [], []
    legs: Array | None = None
    for side in (1, -1):
        lift, spread = random.between(0.35, 2.5), random.between(0.1, 0.65)
        shoulder, hip = (side * 0.14, -0.46), (side * 0.1, 0.16)
        hand = (shoulder[0] + side * 0.72 * math.sin(lift), shoulder[1] + 0.72 * math.cos(lift))
        foot = (hip[0] + side * 0.92 * math.sin(spread), hip[1] + 0.92 * math.cos(spread))
        trunk = np.minimum(trunk, _capsule(u, v, shoulder, hand, 0.1))
        leg = _capsule(u, v, hip, foot, 0.115)
        legs = leg if legs is None else np.minimum(legs, leg)
        hands.append(hand)
        feet.append(foot)
    assert legs is not None
    parts = [legs, trunk, np.hypot(u, v - np.float32(head[1])) - np.float32(0.24)]
    return parts, [head, *hands, *feet]


def _capsule(u: Array, v: Array, start: tuple[float, float], end: tuple[float, float], radius: float) -> Array:
    """Return the distance to a line with round ends."""
    along_u, along_v = end[0] - start[0], end[1] - start[1]
    u, v = u - np.float32(start[0]), v - np.float32(start[1])
    part = np.clip((u * along_u + v * along_v) / (along_u**2 + along_v**2), 0, 1)
    return np.hypot(u - part * along_u, v - part * along_v) - np.float32(radius)

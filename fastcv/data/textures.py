"""Colours, patterns and light of generated scenes."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

__all__ = ["Array", "Colours", "Random", "background_colours", "figure_colours", "light", "texture"]

Array: TypeAlias = Any  # of float32; the types of NumPy do not follow arithmetic with numbers of Python
Colours = tuple[Array, Array]  # RGB; a pattern goes from one to the other


class Random:
    """Random numbers of one image."""

    def __init__(self, seed: int, index: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index])))

    def chance(self, probability: float) -> bool:
        return self._generator.random() < probability

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self._generator.random()

    def integer(self, low: int, high: int) -> int:
        """Return low to high - 1."""
        return min(low + int((high - low) * self._generator.random()), high - 1)

    def array(self, *shape: int) -> Array:
        """Return numbers from 0 to 1."""
        return self._generator.random(shape, dtype=np.float32)

    def normal(self, *shape: int) -> Array:
        return self._generator.standard_normal(shape, dtype=np.float32)


def _rgb(hue: float, saturation: float, value: float) -> Array:
    offsets = np.array([5, 3, 1], np.float32)
    k = (offsets + 6 * hue) % 6
    ramp = np.clip(np.minimum(k, 4 - k), 0, 1)
    return (value * (1 - saturation * ramp)).astype(np.float32)


def background_colours(random: Random) -> Colours:
    hue, saturation, value = random.between(0, 1), random.between(0.05, 0.5), random.between(0.35, 0.95)
    other = value + random.between(0.06, 0.2) * (1 if value < 0.6 else -1)
    return _rgb(hue, saturation, value), _rgb(hue + random.between(-0.08, 0.08), saturation, other)


def figure_colours(random: Random, behind: Colours) -> Colours:
    """Return colours that differ from those behind."""
    for _ in range(12):
        hue, saturation, value = random.between(0, 1), random.between(0.35, 0.95), random.between(0.3, 1)
        first = _rgb(hue, saturation, value)
        shift = random.between(0.1, 0.35) * (1 if value < 0.6 else -1)
        second = _rgb(hue + random.between(-0.12, 0.12), saturation * random.between(0.4, 1), value + shift)
        if min(float(np.abs(a - b).sum()) for a in (first, second) for b in behind) > 0.45:
            break
    return first, second


def texture(random: Random, height: int, width: int, colours: Colours, scale: float) -> Array:
    """Return a pattern (height, width, 3); ``scale`` is about the length in pixels that it repeats after."""
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]
    angle = random.between(0, 2 * math.pi)
    period = scale * random.between(0.6, 1.5)
    cos, sin = math.cos(angle) / period, math.sin(angle) / period
    start, other = random.between(0, 1), random.between(0, 1)
    sharp = period / 2  # so that an edge is a pixel wide
    kind = random.integer(0, 6)
    if kind == 0:  # plain
        pattern: Array = np.full((height, width), 0.5 * start, np.float32)
    elif kind == 1:  # gradient
        pattern = (x * cos + y * sin) * (period / max(height, width)) + start - 0.5
    elif kind == 2:  # stripes
        pattern = 0.5 + sharp * (_wave(x * cos + (y * sin + start)) - random.between(-0.1, 0.1))
    elif kind == 3:  # checks
        pattern = 0.5 + sharp * _wave(x * cos + (y * sin + start)) * np.sign(_wave(y * cos - (x * sin + other)))
    elif kind == 4:  # dots
        along, across = _wave(x * cos + (y * sin + start)), _wave(y * cos - (x * sin + other))
        distance = np.hypot(along + np.float32(0.25), across + np.float32(0.25))
        pattern = 0.5 + 2 * sharp * (random.between(0.2, 0.4) - distance)
    else:
        pattern = _clouds(random, height, width, max(2, round(max(height, width) / period)))
    first, second = colours
    mixed: Array = first + np.clip(pattern, 0, 1)[..., None] * (second - first)
    return mixed


def _wave(phase: Array) -> Array:
    """Return a triangle wave of period 1 from -0.25 to 0.25."""
    return np.abs(phase - np.floor(phase) - np.float32(0.5)) - np.float32(0.25)


def _clouds(random: Random, height: int, width: int, cells: int) -> Array:
    """Return smooth noise of two wavelengths, mostly from 0 to 1."""
    smooth = np.zeros((height, width), np.float32)
    for number, strength in ((cells, 1.1), (2 * cells, 0.5)):
        grid = random.array(number + 1, number + 1) - 0.5
        smooth += strength * (_ramps(height, number) @ grid @ _ramps(width, number).T)
    result: Array = smooth + np.float32(0.5)
    return result


def _ramps(length: int, cells: int) -> Array:
    """Return the weights (length, cells + 1) of values at the edges of cells, smooth in between."""
    place = (np.arange(length, dtype=np.float32) + 0.5) * (cells / length)
    near = np.clip(1 - np.abs(place[:, None] - np.arange(cells + 1, dtype=np.float32)), 0, 1)
    weights: Array = near * near * (3 - 2 * near)
    return weights


def light(random: Random, size: int) -> Array:
    """Return the brightness of each pixel (size, size, 1): light from one side."""
    place = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    angle, slope = random.between(0, 2 * math.pi), random.between(0, 0.35)
    slant = place[:, None] * math.sin(angle) + place[None] * math.cos(angle)
    result: Array = (random.between(0.85, 1.05) + slope * slant)[..., None]
    return result

"""Photographs of a folder, in parts, as the grounds of generated scenes."""

from __future__ import annotations

from functools import lru_cache
from os import PathLike
from pathlib import Path

import numpy as np

from fastcv._optional import require
from fastcv.data.images import open_image
from fastcv.data.textures import Array, Random

__all__ = ["Photographs"]

_SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))
_LONGEST = 1024  # pixels; larger photographs are kept smaller
_LEAST_PART = 0.25  # of the photograph's shorter side


class Photographs:
    """The images of a folder, in the order of their names."""

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.files = sorted(file for file in Path(folder).iterdir() if file.suffix.lower() in _SUFFIXES)
        if not self.files:
            raise ValueError(f"backgrounds must be a folder with images, got {folder}")

    def ground(self, random: Random, size: int) -> Array:
        """Return a square part of one of them (size, size, 3), 0 to 1, in colours somewhat changed."""
        pillow = require("PIL.Image", "reading photographs")
        photo = pillow.fromarray(_photograph(self.files[random.integer(0, len(self.files))]))
        side = min(photo.size) * random.between(_LEAST_PART, 1)
        left, top = (random.between(0, length - side) for length in photo.size)
        box = (left, top, left + side, top + side)
        part = np.asarray(photo.resize((size, size), pillow.Resampling.BILINEAR, box=box)).astype(np.float32) / 255
        if random.chance(0.5):
            part = part[:, ::-1]
        if random.chance(0.3):
            part = np.roll(part, random.integer(1, 3), axis=2)
        gains = np.array([random.between(0.7, 1.2) for _ in range(3)], np.float32)
        ground: Array = np.clip(part * gains, 0, 1)
        return ground


@lru_cache(maxsize=64)
def _photograph(path: Path) -> Array:
    """Return a photograph (H, W, 3), uint8."""
    photo = open_image(path)
    photo.thumbnail((_LONGEST, _LONGEST))
    return np.asarray(photo)

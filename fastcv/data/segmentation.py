"""Masks in the forms of COCO: polygons, and runs of pixels, compressed or not."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcv._optional import require
from fastcv.data.checks import is_integer, numbers_of, shown

__all__ = ["checked_segmentation", "decode_segmentation"]

_FARTHEST = 1e5  # pixels; who draws polygons needs memory for each pixel along an edge


def checked_segmentation(value: object, width: int, height: int) -> list[list[float]] | dict[str, Any] | None:
    """Return a segmentation that can be decoded, or None if it has no area: polygons of less than three corners.

    Raises
    ------
    ValueError
        For what is neither polygons nor runs of that size. The message starts with what is wrong.
    """
    if isinstance(value, list):
        polygons = []
        for number, polygon in enumerate(value):
            name = f"segmentation[{number}]"
            numbers = numbers_of(polygon, len(polygon) if isinstance(polygon, list) else 0, name)
            if len(numbers) % 2:
                raise ValueError(f"{name} must have pairs of x and y, got {len(numbers)} numbers")
            if any(abs(number) > _FARTHEST for number in numbers):
                raise ValueError(f"{name} must be near the image, got {max(map(abs, numbers)):g}")
            if len(numbers) >= 6:
                polygons.append(numbers)
        return polygons or None
    if isinstance(value, dict):
        if value.get("size") != [height, width]:
            raise ValueError(f"segmentation must have size [{height}, {width}], got {shown(value.get('size'))}")
        counts = value.get("counts")
        runs = _uncompressed(counts) if isinstance(counts, str) else counts
        if not isinstance(runs, list) or not all(is_integer(run) and run >= 0 for run in runs):
            raise ValueError(f"segmentation must have counts that are a string or a list, got {shown(counts)}")
        if sum(runs) != height * width:
            raise ValueError(f"segmentation must have counts of {height * width} pixels in all, got {sum(runs)}")
        return {"size": [height, width], "counts": counts}
    raise ValueError(f"segmentation must be a list of polygons or an object with size and counts, got {shown(value)}")


def _uncompressed(text: str) -> list[int]:
    """Return the runs of COCO's compressed form: 5 bits a character, low ones first; differences from the third on.

    pycocotools decodes the same, but reads and writes outside of its memory if the text is damaged.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("segmentation must have counts in COCO's compressed form, got a damaged string")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("segmentation must have counts in COCO's compressed form, got a string that ends too early")
    return runs


def decode_segmentation(
    segmentation: list[list[float]] | dict[str, Any], height: int, width: int, fractions: bool = False
) -> NDArray[np.uint8]:
    """Return the mask (height, width) of a checked segmentation: 0 or 1."""
    coder = require("pycocotools.mask", "decoding COCO's masks")
    if isinstance(segmentation, dict):
        runs = segmentation
        if isinstance(segmentation["counts"], list):
            runs = coder.frPyObjects(segmentation, height, width)
    else:
        polygons = segmentation
        if fractions:
            polygons = [[v * (height if i % 2 else width) for i, v in enumerate(polygon)] for polygon in polygons]
        runs = coder.merge(coder.frPyObjects(polygons, height, width))
    mask: NDArray[np.uint8] = coder.decode(runs)
    return mask

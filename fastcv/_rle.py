"""COCO's compressed masks: runs of pixels, column by column, as text."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["encode_mask"]


def encode_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return a mask (H, W) as ``{"size": [H, W], "counts": text}``, as pycocotools' ``encode`` does."""
    pixels = np.asarray(mask, dtype=bool).ravel(order="F")
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    starts = np.concatenate(([0], edges, [pixels.size]))
    runs = np.diff(starts).tolist()
    if pixels.size and pixels[0]:  # the first run is of zeros, if need be of none
        runs.insert(0, 0)
    return {"size": list(mask.shape), "counts": _as_text(runs)}


def _as_text(runs: list[int]) -> str:
    """Return runs as text: from the fourth on less the last but one; 5 bits a character, low ones first."""
    characters = []
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != (-1 if bits & 0x10 else 0)
            characters.append(chr((bits | 0x20 if more else bits) + 48))
    return "".join(characters)

"""Pasting of masks in plain Python (He et al. 2017, "Mask R-CNN", section 3.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def paste_masks(
    masks: Tensor, boxes: Tensor, image_size: tuple[int, int], padding: int = 1, threshold: float | None = None
) -> Tensor:
    """Paste masks (N, 1, P, Q) of boxes (N, 4) into images of zeros: (N, 1, H, W)."""
    height, width = image_size
    working = masks.dtype if masks.dtype is torch.float64 else torch.float32
    pasted = torch.zeros(len(masks), 1, height, width, dtype=working)
    rows, columns = masks.shape[2:]
    for image, mask, box in zip(pasted[:, 0], masks[:, 0].to(working), boxes, strict=True):
        grown = _grow(box if box.dtype is torch.float64 else box.float(), columns, padding)
        if grown is None:
            continue
        padded = torch.zeros(rows + 2 * padding, columns + 2 * padding, dtype=working)
        padded[padding : padding + rows, padding : padding + columns] = mask
        left, top, right, bottom = grown
        for y in range(max(top, 0), min(bottom + 1, height)):
            y0, y1, fy = _neighbours(y - top, rows + 2 * padding, max(bottom - top + 1, 1))
            for x in range(max(left, 0), min(right + 1, width)):
                x0, x1, fx = _neighbours(x - left, columns + 2 * padding, max(right - left + 1, 1))
                above = (1 - fx) * padded[y0, x0] + fx * padded[y0, x1]
                below = (1 - fx) * padded[y1, x0] + fx * padded[y1, x1]
                image[y, x] = (1 - fy) * above + fy * below
    return pasted.to(masks.dtype) if threshold is None else pasted > threshold


def _grow(box: Tensor, columns: int, padding: int) -> list[int] | None:
    """Return the corners of the enlarged box as integers, None when they are out of reach."""
    centre = (box[:2] + box[2:]) * 0.5
    half = (box[2:] - box[:2]) * 0.5 * ((columns + 2 * padding) / columns)
    corners = torch.cat([centre - half, centre + half]).tolist()
    if not all(math.isfinite(corner) and abs(corner) < 2**29 for corner in corners):
        return None
    return [int(corner) for corner in corners]


def _neighbours(offset: int, side: int, size: int) -> tuple[int, int, float]:
    """Return the two cells of a padded mask of `side` between which pixel `offset` of `size` lies, and where."""
    source = max((offset + 0.5) * side / size - 0.5, 0.0)
    low = min(int(source), side - 1)
    return low, min(low + 1, side - 1), source - low

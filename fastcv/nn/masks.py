"""Masks of boxes, put where they belong in the image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["paste_masks_in_image"]


def paste_masks_in_image(masks: Tensor, boxes: Tensor, img_shape: tuple[int, int], padding: int = 1) -> Tensor:
    """Enlarge masks (K, 1, M, M) to their boxes (K, 4), and put each into an image: (K, 1, H, W)."""
    height, width = img_shape
    scale = (masks.shape[-1] + 2 * padding) / masks.shape[-1]
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * scale
    centre = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    corners = torch.cat([centre - half, centre + half], 1).long().tolist()
    images = masks.new_zeros(len(masks), 1, height, width)
    for image, mask, (x1, y1, x2, y2) in zip(images, F.pad(masks, (padding,) * 4), corners, strict=True):
        size = (max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1))
        enlarged = F.interpolate(mask[None], size=size, mode="bilinear", align_corners=False)[0]
        left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2 + 1, width), min(y2 + 1, height)
        image[:, top:bottom, left:right] = enlarged[:, top - y1 : bottom - y1, left - x1 : right - x1]
    return images

"""Generated images of shapes without classes: for segmentation from the background, and detection of one class."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcv.data.scenes import synthetic_scenes

__all__ = ["synthetic_instances", "synthetic_shapes"]
_CLASSES = 8


def synthetic_shapes(count: int, size: int = 64, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return the images of :func:`synthetic_scenes` with the pixels that show a shape.

    Parameters
    ----------
    count : int
        Number of images.
    size : int
        Height and width in pixels, at least 16.
    seed : int
        Random seed.

    Returns
    -------
    images : Tensor (count, 3, size, size)
        float32, 0 to 1.
    masks : Tensor (count, size, size)
        int64: 1 where a shape covers more than half of the pixel, otherwise 0.

    Examples
    --------
    >>> images, masks = synthetic_shapes(8, size=64)
    >>> images.shape, masks.shape
    (torch.Size([8, 3, 64, 64]), torch.Size([8, 64, 64]))
    """
    data = synthetic_scenes(count, size, seed, classes=_CLASSES)
    images, masks = torch.empty(count, 3, size, size), torch.empty(count, size, size, dtype=torch.int64)
    for index in range(count):
        image, target = data[index]
        images[index], masks[index] = image, target["masks"].sum(0)
    return images, masks


def synthetic_instances(count: int, size: int = 128, seed: int = 0) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Return the images of :func:`synthetic_shapes` with targets for detectors of one class.

    Parameters
    ----------
    count, size, seed : int
        As in :func:`synthetic_shapes`.

    Returns
    -------
    images : list of Tensor (3, size, size)
        float32, 0 to 1.
    targets : list of dict
        For each image "boxes", float32 (N, 4), x1, y1, x2, y2 in pixels around the visible part; "labels", int64 (N,),
        ones; "masks", uint8 (N, size, size), the visible part.

    Examples
    --------
    >>> images, targets = synthetic_instances(2)
    >>> sorted(targets[0])
    ['boxes', 'labels', 'masks']
    """
    images, targets = [], []
    data = synthetic_scenes(count, size, seed, classes=_CLASSES)
    for index in range(count):
        image, target = data[index]
        images.append(image)
        labels = torch.ones_like(target["labels"])
        targets.append({"boxes": target["boxes"], "labels": labels, "masks": target["masks"]})
    return images, targets

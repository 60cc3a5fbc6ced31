"""Anchors that suit a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastcv.ops.box_iou import box_iou

__all__ = ["fit_anchors"]


def fit_anchors(
    data: Sequence[Any] | Tensor, count: int, size: int | tuple[int, int] = 416
) -> list[tuple[float, float]]:
    """Cluster the sizes of a data set's boxes into anchors: k-means with 1 - IoU as the distance.

    Parameters
    ----------
    data : data set, or Tensor (N, 2)
        ``data[i]`` gives an image (C, H, W) and a target with "boxes" (M, 4), x1, y1, x2, y2 in pixels; or widths and
        heights, already in pixels of the network's input.
    count : int
        How many anchors: 5 for :func:`yolov2_tiny`, 6 for :func:`yolov3_tiny`.
    size : int or (height, width)
        Of the network's input, to which images are brought with their aspect ratio.

    Returns
    -------
    list of (width, height)
        In pixels of the network's input, by ascending area.

    Raises
    ------
    ValueError
        If there are fewer boxes than anchors, or ``count`` is not positive.

    Notes
    -----
    The first centres are spread over the areas of the boxes, so the result is the same for every run.

    References
    ----------
    Redmon, Farhadi: YOLO9000: Better, Faster, Stronger (2016), section 2, "Dimension Clusters".

    Examples
    --------
    >>> fit_anchors(torch.tensor([[10.0, 10.0], [11.0, 9.0], [50.0, 80.0]]), 2)
    [(10.5, 9.5), (50.0, 80.0)]
    """
    if count < 1:
        raise ValueError(f"count must be positive, got {count}")
    sizes = data.double() if isinstance(data, Tensor) else _sizes(data, (size, size) if isinstance(size, int) else size)
    if sizes.dim() != 2 or sizes.shape[1] != 2:
        raise ValueError(f"data must have shape (N, 2), got {tuple(sizes.shape)}")
    sizes = sizes[(sizes > 0).all(1)]
    if len(sizes) < count:
        raise ValueError(f"data must have at least {count} boxes with an area, one per anchor, got {len(sizes)}")
    by_area = sizes[sizes.prod(1).argsort(stable=True)]
    centres = by_area[((torch.arange(count) + 0.5) * len(sizes) / count).long()]
    boxes = _centred(by_area)
    nearest = torch.full((len(sizes),), -1)
    for _ in range(1000):
        previous, nearest = nearest, box_iou(boxes, _centred(centres)).argmax(1)
        if torch.equal(previous, nearest):
            break
        members = nearest.bincount(minlength=count)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, nearest, by_area)
        centres = torch.where(members > 0, sums / members.clamp(min=1), centres)
    return [(width, height) for width, height in centres[centres.prod(1).argsort(stable=True)].tolist()]


def _sizes(data: Sequence[Any], size: tuple[int, int]) -> Tensor:
    found = [torch.zeros(0, 2, dtype=torch.float64)]
    for index in range(len(data)):
        image, target = data[index]
        scale = min(size[0] / image.shape[-2], size[1] / image.shape[-1])
        boxes = target["boxes"].double()
        found.append((boxes[:, 2:] - boxes[:, :2]) * scale)
    return torch.cat(found)


def _centred(sizes: Tensor) -> Tensor:
    return torch.cat([-sizes / 2, sizes / 2], 1)

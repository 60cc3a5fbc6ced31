"""Synthetic images of blobs and polygons on a textured background, with annotations: no download needed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastcv.ops import masks_to_boxes, upsample_bilinear2d

__all__ = ["synthetic_instances", "synthetic_shapes"]

_LEAST_PIXELS = 24  # of an instance; instances that are hidden more are left out


def synthetic_shapes(count: int, size: int = 64, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Generate images with one to four shapes each.

    Background and shapes have different textures of similar colours; edges are anti-aliased. The same arguments give
    the same images.

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
    generator = _generator(count, size, seed)
    images, masks = torch.empty(count, 3, size, size), torch.empty(count, size, size, dtype=torch.int64)
    for index in range(count):
        images[index], coverages = _draw(size, generator)
        masks[index] = coverages.amax(0) > 0.5
    return images, masks


def synthetic_instances(count: int, size: int = 128, seed: int = 0) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Generate the images of :func:`synthetic_shapes` with targets for detectors.

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
        ones; "masks", uint8 (N, size, size), the visible part. Shapes of which less than 24 pixels are visible are left
        out.

    Examples
    --------
    >>> images, targets = synthetic_instances(2)
    >>> sorted(targets[0])
    ['boxes', 'labels', 'masks']
    """
    generator = _generator(count, size, seed)
    images, targets = [], []
    for _ in range(count):
        image, coverages = _draw(size, generator)
        masks = coverages > 0.5
        hidden = torch.zeros(size, size, dtype=torch.bool)
        for mask in reversed(masks.unbind()):  # the last was drawn over the others
            visible = mask & ~hidden
            hidden |= mask
            mask.copy_(visible)
        masks = masks[masks.flatten(1).sum(1) >= _LEAST_PIXELS]
        edge = torch.tensor([0.0, 0.0, 1.0, 1.0])  # masks_to_boxes counts to the last pixel's near side
        images.append(image)
        labels = torch.ones(len(masks), dtype=torch.int64)
        targets.append({"boxes": masks_to_boxes(masks) + edge, "labels": labels, "masks": masks.to(torch.uint8)})
    return images, targets


def _generator(count: int, size: int, seed: int) -> torch.Generator:
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
    if size < 16:
        raise ValueError(f"size must be at least 16, got {size}")
    return torch.Generator().manual_seed(seed)


def _draw(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return an image and the coverage (N, size, size) of its shapes, in drawing order."""
    image = _texture(size, generator)
    coverages = []
    for _ in range(int(torch.randint(1, 5, (), generator=generator))):
        coverage = _shape_coverage(size, generator)
        image = image + coverage * (_texture(size, generator, redder=0.35) - image)
        coverages.append(coverage)
    noise = 0.04 * torch.randn(3, size, size, generator=generator)
    return (image + noise).clamp(0, 1), torch.stack(coverages)


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _texture(size: int, generator: torch.Generator, redder: float = 0.0) -> Tensor:
    """Return (3, size, size): a colour, and noise of several wavelengths around it."""
    colour = 0.35 + 0.3 * torch.rand(3, 1, 1, generator=generator)
    texture = colour + torch.tensor([redder, 0.0, -redder])[:, None, None]
    for cells, strength in ((3, 0.25), (8, 0.2), (20, 0.15)):
        grid = torch.rand(1, 3, cells, cells, generator=generator) - 0.5
        texture = texture + strength * upsample_bilinear2d(grid, size, align_corners=True)[0]
    return texture


def _shape_coverage(size: int, generator: torch.Generator) -> Tensor:
    """Return (size, size): the fraction of each pixel that a random shape covers."""
    center_x, center_y = (_uniform(0.15, 0.85, generator) * size for _ in range(2))
    radius = _uniform(0.1, 0.26, generator) * size
    pixel = torch.arange(size) + 0.5
    y, x = pixel[:, None] - center_y, pixel[None, :] - center_x
    angle = torch.atan2(y, x).remainder(2 * math.pi)
    if float(torch.rand((), generator=generator)) < 0.5:
        distance = _blob_distance(angle, torch.hypot(x, y), radius, generator)
    else:
        distance = _polygon_distance(angle, x, y, radius, generator)
    return (distance + 0.5).clamp(0, 1)


def _blob_distance(angle: Tensor, from_center: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    """Return the signed distance of each pixel to the edge of a wavy circle, positive inside."""
    edge = torch.full_like(angle, 1.0)
    for waves in range(2, 6):
        edge += _uniform(0, 0.3, generator) / waves * torch.cos(waves * angle + _uniform(0, 2 * math.pi, generator))
    return radius * edge - from_center


def _polygon_distance(angle: Tensor, x: Tensor, y: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    """Return the signed distance of each pixel to the nearest-facing side of a polygon, positive inside."""
    corners = int(torch.randint(3, 8, (), generator=generator))
    turns = (torch.arange(corners) + 0.6 * torch.rand(corners, generator=generator)) * (2 * math.pi / corners)
    lengths = radius * (0.8 + 0.5 * torch.rand(corners, generator=generator))
    corner_x, corner_y = lengths * torch.cos(turns), lengths * torch.sin(turns)
    side = (
        torch.searchsorted(turns, angle.contiguous(), right=True) - 1
    )  # -1: before the first corner, so the last side
    first, second = side.remainder(corners), (side + 1).remainder(corners)
    along_x, along_y = corner_x[second] - corner_x[first], corner_y[second] - corner_y[first]
    outside = (x - corner_x[first]) * along_y - (y - corner_y[first]) * along_x
    return -outside / torch.hypot(along_x, along_y)

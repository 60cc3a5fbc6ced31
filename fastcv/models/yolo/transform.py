"""Images in the size of a network, and boxes back in the size of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Placement", "boxes_in_images", "letterbox", "stretch"]


@dataclass(frozen=True)
class Placement:
    """Where an image lies in the network's input: its scale in both directions, its corner, and its own size."""

    scale_x: float
    scale_y: float
    left: int
    top: int
    height: int
    width: int

    def boxes_in_image(self, boxes: Tensor) -> Tensor:
        """Return boxes of the network's input in pixels of the image, cut at its borders."""
        return boxes_in_images(boxes[None], [self])[0]

    def boxes_in_network(self, boxes: Tensor) -> Tensor:
        """Return boxes of the image, cut at its borders, in pixels of the network's input."""
        most = boxes.new_tensor([self.width, self.height, self.width, self.height])
        boxes = torch.minimum(boxes.clamp(min=0), most)
        corner = boxes.new_tensor([self.left, self.top, self.left, self.top])
        return boxes * boxes.new_tensor([self.scale_x, self.scale_y, self.scale_x, self.scale_y]) + corner


def boxes_in_images(boxes: Tensor, placements: Sequence[Placement]) -> Tensor:
    """Return boxes (N, K, 4) of the network's input in pixels of their images, cut at the borders of these."""
    rows = [(p.left, p.top, p.scale_x, p.scale_y, p.width, p.height) for p in placements]
    corner, scale, most = boxes.new_tensor(rows).view(-1, 1, 3, 2).repeat(1, 1, 1, 2).unbind(2)
    return torch.minimum(((boxes - corner) / scale).clamp(min=0), most)


def stretch(image: Tensor, size: tuple[int, int]) -> tuple[Tensor, Placement]:
    """Resize an image (C, H, W), or a batch (N, C, H, W), to a height and width, bilinearly, in any aspect ratio."""
    height, width = image.shape[-2:]
    return _resized(image, size), Placement(size[1] / width, size[0] / height, 0, 0, height, width)


def letterbox(image: Tensor, size: tuple[int, int]) -> tuple[Tensor, Placement]:
    """Resize an image (C, H, W), or a batch, keeping its aspect ratio, and centre it on grey, 0.5, as Darknet does."""
    height, width = image.shape[-2:]
    if size[1] * height <= size[0] * width:
        new = (max(1, height * size[1] // width), size[1])
    else:
        new = (size[0], max(1, width * size[0] // height))
    top, left = (size[0] - new[0]) // 2, (size[1] - new[1]) // 2
    ground = image.new_full((*image.shape[:-2], *size), 0.5)
    ground[..., top : top + new[0], left : left + new[1]] = _resized(image, new)
    return ground, Placement(new[1] / width, new[0] / height, left, top, height, width)


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(image.shape[-2:]) == size:
        return image
    batch = image if image.dim() == 4 else image[None]
    resized = F.interpolate(batch, size, mode="bilinear", align_corners=False)
    return resized if image.dim() == 4 else resized[0]

"""Anchors for the feature maps of a batch of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastcv.ops.anchors import anchor_grid

__all__ = ["AnchorGenerator"]


class AnchorGenerator(nn.Module):
    """Anchors of several sizes and aspect ratios at every place of every feature map.

    A drop-in for ``torchvision.models.detection.anchor_utils.AnchorGenerator``, equal to it in every value.

    Parameters
    ----------
    sizes : sequence of sequences of int
        Sides of the anchors in pixels, per feature map. A flat sequence is one size per map.
    aspect_ratios : sequence of sequences of float
        Height over width, per feature map. A flat sequence serves all maps.

    Attributes
    ----------
    cell_anchors : list of Tensor (S, 4)
        Anchors of one place of each map, rounded to whole pixels; in the dtype and on the device last used.
    """

    cell_anchors: list[Tensor]

    def __init__(self, sizes: Any = ((128, 256, 512),), aspect_ratios: Any = ((0.5, 1.0, 2.0),)) -> None:
        super().__init__()
        if not isinstance(sizes[0], list | tuple):
            sizes = tuple((size,) for size in sizes)
        if not isinstance(aspect_ratios[0], list | tuple):
            aspect_ratios = (aspect_ratios,) * len(sizes)
        self.sizes = sizes
        self.aspect_ratios = aspect_ratios
        self.cell_anchors = [self.generate_anchors(s, a) for s, a in zip(sizes, aspect_ratios, strict=False)]

    def generate_anchors(
        self,
        scales: Sequence[int],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Return the anchors of one place: (scales * ratios, 4), ratio after ratio, around (0, 0)."""
        scale = torch.as_tensor(scales, dtype=dtype, device=device)
        ratio = torch.as_tensor(aspect_ratios, dtype=dtype, device=device).sqrt()
        widths = ((1 / ratio)[:, None] * scale[None, :]).view(-1)
        heights = (ratio[:, None] * scale[None, :]).view(-1)
        return (torch.stack([-widths, -heights, widths, heights], dim=1) / 2).round()

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        """Bring the cells to a dtype and device."""
        for cells in self.cell_anchors:
            if cells.dtype is not dtype or cells.device != device:
                self.cell_anchors = [cells.to(dtype=dtype, device=device) for cells in self.cell_anchors]
                return

    def num_anchors_per_location(self) -> list[int]:
        """Return the number of anchors per place of each feature map."""
        return [len(s) * len(a) for s, a in zip(self.sizes, self.aspect_ratios, strict=False)]

    def grid_anchors(self, grid_sizes: Sequence[Sequence[int]], strides: Sequence[Sequence[Any]]) -> list[Tensor]:
        """Return the anchors of each feature map, given its (height, width) and (vertical, horizontal) stride."""
        steps = [(int(y), int(x)) for y, x in strides]
        anchors = anchor_grid(grid_sizes, steps, self.cell_anchors)
        counts = [h * w * len(cells) for (h, w), cells in zip(grid_sizes, self.cell_anchors, strict=True)]
        return list(anchors.split(counts))

    def forward(self, image_list: Any, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the anchors of each image, (A, 4) in the order map, y, x, anchor.

        Parameters
        ----------
        image_list
            Anything with ``tensors`` (N, C, H, W) and ``image_sizes``, one per image, such as torchvision's ImageList.
        feature_maps : sequence of Tensor (N, C, h, w)
            The maps that the anchors are for; the first gives dtype and device.
        """
        height, width = image_list.tensors.shape[-2:]
        grid_sizes = [tuple(feature_map.shape[-2:]) for feature_map in feature_maps]
        strides = [(height // h if h > 0 else 0, width // w if w > 0 else 0) for h, w in grid_sizes]
        self.set_cell_anchors(feature_maps[0].dtype, feature_maps[0].device)
        images = len(image_list.image_sizes)
        anchors = anchor_grid(grid_sizes, strides, self.cell_anchors, images)
        return [anchors[image] for image in range(images)]

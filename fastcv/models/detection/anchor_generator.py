"""Anchors for the feature maps of a batch of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastcv.models.detection.matching import is_unchanged
from fastcv.ops.anchors import anchor_grid

__all__ = ["AnchorGenerator"]


class AnchorGenerator(nn.Module):
    """Anchors of several sizes and aspect ratios at every location of every feature map.

    A drop-in for ``torchvision.models.detection.anchor_utils.AnchorGenerator``, equal to it in every value.

    Parameters
    ----------
    sizes : sequence of sequences of int
        Side lengths of the anchors in pixels, per feature map. A flat sequence holds one size per map.
    aspect_ratios : sequence of sequences of float
        Height divided by width, per feature map. A flat sequence is used for all maps.

    Attributes
    ----------
    cell_anchors : list of Tensor (S, 4)
        Anchors of one location of each map, rounded to whole pixels, in the dtype and on the device last used.
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
        """Return the anchors of one location, centred on (0, 0): (scales * ratios, 4), scales within ratios."""
        scale = torch.as_tensor(scales, dtype=dtype, device=device)
        ratio = torch.as_tensor(aspect_ratios, dtype=dtype, device=device).sqrt()
        widths = ((1 / ratio)[:, None] * scale[None, :]).view(-1)
        heights = (ratio[:, None] * scale[None, :]).view(-1)
        return (torch.stack([-widths, -heights, widths, heights], dim=1) / 2).round()

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        """Convert the cell anchors to a dtype and device."""
        cells_of(self, dtype, device)

    def num_anchors_per_location(self) -> list[int]:
        """Return the number of anchors per location of each feature map."""
        return [len(s) * len(a) for s, a in zip(self.sizes, self.aspect_ratios, strict=False)]

    def grid_anchors(self, grid_sizes: Sequence[Sequence[int]], strides: Sequence[Sequence[Any]]) -> list[Tensor]:
        """Return the anchors of each feature map, given its (height, width) and (vertical, horizontal) stride."""
        _check_maps(self, len(grid_sizes))
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

        Raises
        ------
        ValueError
            Unless ``sizes`` and ``aspect_ratios`` have an entry for each map.
        """
        _check_maps(self, len(feature_maps))
        height, width = image_list.tensors.shape[-2:]
        grid_sizes = [tuple(feature_map.shape[-2:]) for feature_map in feature_maps]
        strides = [(height // h if h > 0 else 0, width // w if w > 0 else 0) for h, w in grid_sizes]
        cells = cells_of(self, feature_maps[0].dtype, feature_maps[0].device)
        images = len(image_list.image_sizes)
        if isinstance(self, AnchorGenerator) and not is_unchanged(self, AnchorGenerator, ("grid_anchors",)):
            anchors = torch.cat(self.grid_anchors(grid_sizes, strides))  # a program has replaced it
            return [anchors] * images
        anchors = anchor_grid(grid_sizes, strides, cells, images)
        return [anchors[image] for image in range(images)]


def _check_maps(generator: Any, maps: int) -> None:
    """Raise ValueError unless a generator, ours or torchvision's, has anchors for this number of maps."""
    if len(generator.cell_anchors) != maps:
        raise ValueError(
            f"sizes and aspect_ratios must have one entry per feature map, {maps}, got {len(generator.sizes)} and "
            f"{len(generator.aspect_ratios)}"
        )


def cells_of(generator: Any, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Return the ``cell_anchors`` of a generator, ours or torchvision's, in a dtype and on a device.

    The generator keeps converted cells for its next call. Callers must use the returned list: another thread may
    replace the generator's at any time.
    """
    cells: list[Tensor] = generator.cell_anchors
    if any(anchors.dtype is not dtype or anchors.device != device for anchors in cells):
        cells = [anchors.to(dtype=dtype, device=device) for anchors in cells]
        generator.cell_anchors = cells
    return cells

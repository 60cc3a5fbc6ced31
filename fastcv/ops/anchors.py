"""Anchors of a feature pyramid: the whole grid, or single ones decoded on the spot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastcv import _C
from fastcv.ops._arguments import as_pair, check_tensor, describe_shape
from fastcv.ops._define import Operator
from fastcv.ops.box_coding import DEFAULT_CLIP

__all__ = ["anchor_grid", "decode_anchors"]

Sizes = Sequence[Sequence[int]]
Strides = Sequence[int | Sequence[int]]


def _allocate_grid(cells: Tensor, levels: Sequence[int], images: int | None) -> Tensor:
    count = 0
    for level in range(0, len(levels), 5):
        count += levels[level] * levels[level + 1] * levels[level + 4]
    return cells.new_empty((count, 4) if images is None else (images, count, 4))


def _grid(cells: Tensor, levels: Sequence[int], images: int | None) -> Tensor:
    anchors = _allocate_grid(cells, levels, images)
    _C.anchor_grid(anchors, cells.contiguous(), levels)
    return anchors


def _allocate_decoded(deltas: Tensor, *_: Any) -> Tensor:
    return deltas.new_empty_strided((deltas.shape[0], 4), (4, 1))


def _decode(deltas: Tensor, indices: Tensor, cells: Tensor, levels: Sequence[int], *options: Any) -> Tensor:
    decoded = _allocate_decoded(deltas)
    _C.decode_anchors(decoded, deltas.contiguous(), indices.contiguous(), cells.contiguous(), levels, *options)
    return decoded


# `levels` holds five numbers per level: height, width, stride along y, stride along x, number of cells.
_anchor_grid = Operator(
    "anchor_grid(Tensor cell_anchors, SymInt[] levels, SymInt? images) -> Tensor", forward=_grid, fake=_allocate_grid
)

_decode_anchors = Operator(
    "decode_anchors(Tensor deltas, Tensor indices, Tensor cell_anchors, SymInt[] levels, float weight_x, "
    "float weight_y, float weight_w, float weight_h, float clip, bool clips_to_image, float image_height, "
    "float image_width) -> Tensor",
    forward=_decode,
    fake=_allocate_decoded,
)


def _describe_levels(
    feature_sizes: Sizes, strides: Strides, cell_anchors: Sequence[Tensor]
) -> tuple[Tensor, list[int]]:
    """Return the cells of all levels as one tensor, and the numbers that the kernels want of each level."""
    if not isinstance(cell_anchors, list | tuple):
        raise TypeError(f"cell_anchors must be one (S, 4) tensor per level, got {type(cell_anchors).__name__}")
    if not len(feature_sizes) == len(strides) == len(cell_anchors) > 0:
        raise ValueError(
            "feature_sizes, strides and cell_anchors must have one entry per level, at least one, got "
            f"{len(feature_sizes)}, {len(strides)} and {len(cell_anchors)}"
        )
    levels: list[int] = []
    for index, (size, stride, cells) in enumerate(zip(feature_sizes, strides, cell_anchors, strict=True)):
        check_tensor(cells, f"cell_anchors[{index}]")
        if cells.dim() != 2 or cells.shape[1] != 4:
            raise ValueError(f"cell_anchors[{index}] must have shape (S, 4), got {describe_shape(cells)}")
        if cells.dtype is not cell_anchors[0].dtype:
            raise TypeError(f"cell_anchors[{index}] must have the dtype of the first, got {cells.dtype}")
        try:
            height, width = size
        except (TypeError, ValueError):
            raise TypeError(f"feature_sizes[{index}] must be (height, width), got {size!r}") from None
        levels += (height, width, *_as_stride(stride, index), cells.shape[0])
    return (cell_anchors[0] if len(cell_anchors) == 1 else torch.cat(list(cell_anchors))), levels


def _as_stride(stride: int | Sequence[int], index: int) -> tuple[int, int]:
    if type(stride) is tuple and len(stride) == 2:
        return stride
    return as_pair(stride, f"strides[{index}]")


def anchor_grid(
    feature_sizes: Sizes, strides: Strides, cell_anchors: Sequence[Tensor], images: int | None = None
) -> Tensor:
    """Lay the anchors of every place of a feature pyramid out in one tensor.

    Parameters
    ----------
    feature_sizes : sequence of (height, width)
        Size of each level's feature map; at most 16 levels.
    strides : sequence of int or (int, int)
        Pixels of the image from one place of a level to the next, one number or (vertical, horizontal).
    cell_anchors : sequence of Tensor (S, 4)
        Anchors x1, y1, x2, y2 of one place of each level, relative to it. All of one dtype (float16, bfloat16, float32,
        float64) and device, which are the result's.
    images : int, optional
        Repeat the anchors for so many images.

    Returns
    -------
    Tensor (A, 4), or (images, A, 4)
        Anchors in pixels of the image, in the order level, y, x, cell.

    Raises
    ------
    ValueError
        For sequences of different lengths, a tensor of another shape, more than 16 levels, or 2^31 anchors or more.
    TypeError
        For something that is no tensor, or of an unsupported or differing dtype.

    Notes
    -----
    Values are those of ``torchvision.models.detection.anchor_utils.AnchorGenerator.grid_anchors``, all levels
    concatenated; :class:`fastcv.nn.AnchorGenerator` also makes the cells and works out the strides.

    References
    ----------
    Ren, He, Girshick, Sun: Faster R-CNN (2015), section 3.1.1.

    Examples
    --------
    >>> cells = torch.tensor([[-8.0, -8.0, 8.0, 8.0]])
    >>> anchor_grid([(1, 2)], [16], [cells])
    tensor([[-8., -8.,  8.,  8.],
            [ 8., -8., 24.,  8.]])
    """
    cells, levels = _describe_levels(feature_sizes, strides, cell_anchors)
    if images is not None and images < 0:
        raise ValueError(f"images must not be negative, got {images}")
    anchors: Tensor = _anchor_grid(cells, levels, images)
    return anchors


def decode_anchors(
    deltas: Tensor,
    indices: Tensor,
    feature_sizes: Sizes,
    strides: Strides,
    cell_anchors: Sequence[Tensor],
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    clip: float = DEFAULT_CLIP,
    image_size: Sequence[int] | None = None,
) -> Tensor:
    """Decode chosen anchors straight from their place in the grid, without making the grid.

    Equal to ``decode_boxes(deltas, anchor_grid(feature_sizes, strides, cell_anchors)[indices], weights, clip)``, then
    clipped to the image.

    Parameters
    ----------
    deltas : Tensor (K, 4) or (B, K, 4)
        Offsets x, y, width, height, as :func:`decode_boxes` takes them; in the dtype of ``cell_anchors``.
    indices : Tensor (K,) or (B, K), int64
        Which anchor each of them moves: its row in :func:`anchor_grid`.
    feature_sizes, strides, cell_anchors
        As in :func:`anchor_grid`.
    weights : four floats
        Those that the offsets were encoded with.
    clip : float
        Greatest log of the ratio by which a side may grow.
    image_size : (height, width), optional
        Boxes are cut to [0, width] and [0, height].

    Returns
    -------
    Tensor (K, 4) or (B, K, 4)
        Boxes x1, y1, x2, y2 in the dtype of ``deltas``.

    Raises
    ------
    ValueError
        As :func:`anchor_grid`, and for an index outside the grid. On CUDA, where looking at the indices would cost a
        synchronisation, such a box is all zeros.
    TypeError
        As :func:`anchor_grid`, and for indices that are not int64.

    Notes
    -----
    For inference: the result carries no gradient. Train with :func:`anchor_grid` and :func:`decode_boxes`.
    """
    check_tensor(deltas, "deltas")
    check_tensor(indices, "indices")
    if deltas.dim() not in (2, 3) or deltas.shape[-1] != 4:
        raise ValueError(f"deltas must have shape (K, 4) or (B, K, 4), got {describe_shape(deltas)}")
    if indices.shape != deltas.shape[:-1]:
        raise ValueError(
            f"indices must have the shape of deltas without the last axis, {describe_shape(deltas[..., 0])}, got "
            f"{describe_shape(indices)}"
        )
    if len(weights) != 4:
        raise ValueError(f"weights must be four numbers (x, y, width, height), got {weights!r}")
    cells, levels = _describe_levels(feature_sizes, strides, cell_anchors)
    clips = image_size is not None
    height, width = (float(side) for side in image_size) if image_size is not None else (0.0, 0.0)
    arguments = (cells, levels, *weights, clip, clips, height, width)
    decoded: Tensor
    if deltas.dim() == 2:
        decoded = _decode_anchors(deltas, indices, *arguments)
    else:
        decoded = _decode_anchors(deltas.reshape(-1, 4), indices.reshape(-1), *arguments).view(deltas.shape)
    return decoded

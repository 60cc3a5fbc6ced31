"""Anchors of a feature pyramid: the whole grid, or single ones decoded on the spot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastcv.ops._arguments import as_floats, as_ints, as_size
from fastcv.ops._define import define
from fastcv.ops.box_coding import DEFAULT_CLIP

__all__ = ["anchor_grid", "decode_anchors"]

MAX_LEVELS = 16

Sizes = Sequence[Sequence[int]]
Strides = Sequence[int | Sequence[int]]


def _fake_grid(cells: list[Tensor], sizes: list[int], strides: list[int], images: int | None) -> Tensor:
    count = sum(sizes[2 * level] * sizes[2 * level + 1] * len(tensor) for level, tensor in enumerate(cells))
    return cells[0].new_empty((count, 4) if images is None else (images, count, 4))


def _fake_decoded(deltas: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(deltas, memory_format=torch.contiguous_format)


# `feature_sizes` and `strides` hold two numbers per level, along y and along x.
_LEVELS = "Tensor[] cell_anchors, SymInt[] feature_sizes, SymInt[] strides"

_anchor_grid = define(f"anchor_grid({_LEVELS}, SymInt? images) -> Tensor", fake=_fake_grid)

# `image_size` is empty where boxes are not clipped.
_decode_anchors = define(
    f"decode_anchors(Tensor deltas, Tensor indices, {_LEVELS}, float weight_x, float weight_y, float weight_w, "
    "float weight_h, float clip, SymInt[] image_size) -> Tensor",
    fake=_fake_decoded,
)


def _entries(value: Any, name: str) -> list[Any]:
    try:
        return list(value)
    except TypeError:
        raise TypeError(f"{name} must have one entry per level, got {type(value).__name__}") from None


def _as_stride(value: Any, name: str) -> tuple[int, ...]:
    return as_ints(value, 2, name, 0, "(vertical, horizontal)")


def _flat(entries: list[Any], name: str, convert: Callable[[Any, str], Sequence[int]]) -> list[int]:
    """Return two numbers per entry, one after the other."""
    numbers = []
    if int not in {*map(type, entries)}:  # Dynamo of torch 2.10 cannot catch what unpacking an int raises
        try:
            numbers = [number for y, x in entries for number in (y, x)]
        except (TypeError, ValueError):
            numbers = []
    if len(numbers) > 0 and {*map(type, numbers)} == {int} and min(numbers) >= 0 and max(numbers) < 2**63:
        return numbers  # what nearly every call has, in a third of the time
    return [number for level, entry in enumerate(entries) for number in convert(entry, f"{name}[{level}]")]


def _as_levels(
    feature_sizes: Sizes, strides: Strides, cell_anchors: Sequence[Tensor]
) -> tuple[list[Tensor], list[int], list[int]]:
    """Return the cells of the levels, and their sizes and strides as the operators take them."""
    if not isinstance(cell_anchors, list | tuple):
        raise TypeError(f"cell_anchors must be one (S, 4) tensor per level, got {type(cell_anchors).__name__}")
    sizes, steps = _entries(feature_sizes, "feature_sizes"), _entries(strides, "strides")
    counts = len(sizes), len(steps), len(cell_anchors)
    if len(set(counts)) != 1 or not 1 <= counts[0] <= MAX_LEVELS:
        raise ValueError(
            f"feature_sizes, strides and cell_anchors must have one entry per level, 1 to {MAX_LEVELS}, got "
            f"{counts[0]}, {counts[1]} and {counts[2]}"
        )
    return list(cell_anchors), _flat(sizes, "feature_sizes", as_size), _flat(steps, "strides", _as_stride)


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
        Number of images for which the anchors are repeated.

    Returns
    -------
    Tensor (A, 4), or (images, A, 4)
        Anchors in pixels of the image, in the order level, y, x, cell.

    Raises
    ------
    ValueError
        For sequences of different lengths, a tensor of another shape, more than 16 levels, or 2^31 anchors or more.
    TypeError
        For something that is not a tensor, or of an unsupported or differing dtype.

    Notes
    -----
    Values are those of ``torchvision.models.detection.anchor_utils.AnchorGenerator.grid_anchors``, all levels
    concatenated; :class:`fastcv.models.detection.AnchorGenerator` also makes the cells and works out the strides.

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
    anchors: Tensor = _anchor_grid(*_as_levels(feature_sizes, strides, cell_anchors), images)
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
    levels = _as_levels(feature_sizes, strides, cell_anchors)
    size = () if image_size is None else as_size(image_size, "image_size")
    decoded: Tensor = _decode_anchors(deltas, indices, *levels, *as_floats(weights, 4, "weights"), clip, list(size))
    return decoded

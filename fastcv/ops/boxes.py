"""Small box functions. All but ``masks_to_boxes`` are a few torch operations over (N, 4); a kernel brings nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastcv.ops._arguments import as_float, as_int, check_tensor, describe_shape
from fastcv.ops._define import define
from fastcv.ops._rotated_boxes import COLUMNS, convert_rotated
from fastcv.ops.box_iou import box_iou, complete_box_iou, distance_box_iou, generalized_box_iou
from fastcv.ops.nms import batched_nms, nms

__all__ = [
    "batched_nms",
    "box_area",
    "box_convert",
    "box_iou",
    "clip_boxes_to_image",
    "complete_box_iou",
    "distance_box_iou",
    "generalized_box_iou",
    "masks_to_boxes",
    "nms",
    "remove_small_boxes",
]

_FORMATS = ("xyxy", "xywh", "cxcywh")
_ALL_FORMATS = (*_FORMATS, *COLUMNS)


def _check_boxes(boxes: Tensor, columns: int = 4) -> None:
    check_tensor(boxes, "boxes")
    if boxes.dim() == 0 or boxes.shape[-1] != columns:
        raise ValueError(f"boxes must have shape (..., {columns}), got {describe_shape(boxes)}")
    if boxes.is_complex() or boxes.dtype is torch.bool:
        dtype = str(boxes.dtype).removeprefix("torch.")
        raise TypeError(f"boxes must be of a floating or an integer dtype, got {dtype}")


def _check_format(fmt: Any, name: str, formats: tuple[str, ...] = _FORMATS) -> None:
    if fmt not in formats:
        raise ValueError(f"{name} must be one of {', '.join(formats)}, got {fmt!r}")


def _widened(boxes: Tensor) -> Tensor:
    """Return boxes in a dtype that holds their sums and products: float32 for half types, int64 for integers."""
    if boxes.dtype is torch.float32 or boxes.dtype is torch.float64:
        return boxes
    return boxes.float() if boxes.is_floating_point() else boxes.long()


def box_area(boxes: Tensor, fmt: str = "xyxy") -> Tensor:
    """Area of each box.

    Parameters
    ----------
    boxes : Tensor (..., 4)
        Boxes in pixels, of a floating or an integer dtype.
    fmt : str
        ``"xyxy"`` (two corners), ``"xywh"`` (corner and size) or ``"cxcywh"`` (centre and size).

    Returns
    -------
    Tensor (...)
        In the dtype of ``boxes``; half types give float32, integers int64. (torchvision's int32 overflows at a side of
        46 341 pixels.)

    Raises
    ------
    ValueError
        For boxes of another shape or another ``fmt``.
    TypeError
        For an argument that is not a tensor, or complex or boolean boxes.
    """
    _check_boxes(boxes)
    _check_format(fmt, "fmt")
    x, y, right, bottom = _widened(boxes).unbind(-1)
    return (right - x) * (bottom - y) if fmt == "xyxy" else right * bottom


def box_convert(boxes: Tensor, in_fmt: str, out_fmt: str) -> Tensor:
    """Write boxes in another format.

    Parameters
    ----------
    boxes : Tensor (..., K)
        Boxes in pixels, of a floating or an integer dtype; K as the format has it.
    in_fmt, out_fmt : str
        ``"xyxy"`` (two corners), ``"xywh"`` (corner and size) or ``"cxcywh"`` (centre and size), of four numbers. For
        rotated boxes ``"cxcywhr"`` (centre, size and angle), ``"xywhr"`` (corner, size and angle), of five, or
        ``"xyxyxyxy"`` (four corners), of eight. The angle is in degrees, counter-clockwise as an image is seen, about
        the centre; corners are the upper left, upper right, lower right and lower left one before the turn.

    Returns
    -------
    Tensor (..., K)
        A copy in the dtype of ``boxes``, computed in a wider one. Integers become float32 where a centre is involved;
        those of rotated boxes are rounded.

    Raises
    ------
    ValueError
        For boxes of another shape or another format.
    TypeError
        For an argument that is not a tensor, or complex or boolean boxes.
    NotImplementedError
        Between a rotated format and one that is not.
    """
    _check_format(in_fmt, "in_fmt", _ALL_FORMATS)
    _check_format(out_fmt, "out_fmt", _ALL_FORMATS)
    _check_boxes(boxes, COLUMNS.get(in_fmt, 4))
    if in_fmt == out_fmt:
        return boxes.clone()
    if (in_fmt in COLUMNS) != (out_fmt in COLUMNS):
        raise NotImplementedError(f"in_fmt and out_fmt must both be rotated or neither, got {in_fmt!r} and {out_fmt!r}")
    if in_fmt in COLUMNS:
        rounded = not boxes.is_floating_point()
        return convert_rotated(_widened(boxes), in_fmt, out_fmt, rounded).to(boxes.dtype)
    x1, y1, x2, y2 = _widened(boxes).unbind(-1)
    if in_fmt == "xywh":
        x2, y2 = x1 + x2, y1 + y2
    elif in_fmt == "cxcywh":
        half_width, half_height = 0.5 * x2, 0.5 * y2
        x1, y1, x2, y2 = x1 - half_width, y1 - half_height, x1 + half_width, y1 + half_height
    if out_fmt == "xywh":
        x2, y2 = x2 - x1, y2 - y1
    elif out_fmt == "cxcywh":
        x1, y1, x2, y2 = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
    converted = torch.stack((x1, y1, x2, y2), dim=-1)
    has_fractions = converted.is_floating_point() and not boxes.is_floating_point()
    return converted if has_fractions else converted.to(boxes.dtype)


def clip_boxes_to_image(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Move the sides of boxes that lie outside an image onto its border.

    Parameters
    ----------
    boxes : Tensor (..., 4)
        Boxes x1, y1, x2, y2 in pixels.
    size : (int, int)
        Height and width of the image.

    Returns
    -------
    Tensor (..., 4)
        In the dtype of ``boxes``.

    Raises
    ------
    ValueError
        For boxes of another shape.
    TypeError
        For an argument that is not a tensor, complex or boolean boxes, or a ``size`` that is not a pair.
    """
    _check_boxes(boxes)
    height, width = (_limit(side, boxes.dtype) for side in _as_sides(size))
    x, y = boxes[..., 0::2].clamp(min=0, max=width), boxes[..., 1::2].clamp(min=0, max=height)
    return torch.stack((x, y), dim=-1).reshape(boxes.shape)


def _as_sides(size: Any) -> tuple[Any, ...]:
    """Return height and width. As with torchvision they may have fractions."""
    try:
        sides = tuple(side if isinstance(side, float) else as_int(side, "size") for side in size)
    except TypeError:
        sides = ()
    if len(sides) != 2:
        raise TypeError(f"size must be two ints (height, width), got {size!r}")
    return sides


def _limit(side: Any, dtype: torch.dtype) -> Any:
    """Return the largest coordinate that boxes of this dtype may have: no number that it cannot hold."""
    if isinstance(side, float) or dtype in (torch.float32, torch.float64, torch.int64):
        return side
    if dtype.is_floating_point:
        return side if side <= torch.finfo(dtype).max else math.inf
    info = torch.iinfo(dtype)
    return max(info.min, min(side, info.max))


def remove_small_boxes(boxes: Tensor, min_size: float) -> Tensor:
    """Indices of the boxes whose sides both are ``min_size`` or more.

    Parameters
    ----------
    boxes : Tensor (N, 4)
        Boxes x1, y1, x2, y2 in pixels.
    min_size : float
        In pixels.

    Returns
    -------
    Tensor (K,), int64
        In ascending order. A box with NaN is never among them.

    Raises
    ------
    ValueError
        For boxes of another shape.
    TypeError
        For an argument that is not a tensor, or complex or boolean boxes.
    """
    _check_boxes(boxes)
    least = (as_int if type(min_size) is int else as_float)(min_size, "min_size")
    boxes = _widened(boxes)
    keep = (boxes[..., 2:] - boxes[..., :2] >= least).all(-1)
    return torch.where(keep)[0]


def _fake(masks: Tensor) -> Tensor:
    return masks.new_empty((masks.shape[0], 4), dtype=torch.float32)


_masks_to_boxes = define("masks_to_boxes(Tensor masks) -> Tensor", fake=_fake)


def masks_to_boxes(masks: Tensor) -> Tensor:
    """Smallest box around the pixels of each mask.

    Parameters
    ----------
    masks : Tensor (N, H, W)
        Of any dtype but complex; a pixel is set when it is not zero. bool and uint8 are read where they are.

    Returns
    -------
    Tensor (N, 4), float32
        First and last column and row that hold a set pixel, as x1, y1, x2, y2: both are indices of pixels, so a single
        pixel has x1 = x2. Zeros for a mask without set pixels (torchvision returns no boxes at all when H or W is 0).

    Raises
    ------
    ValueError
        For masks of another shape.
    TypeError
        For an argument that is not a tensor, or complex masks.
    """
    boxes: Tensor = _masks_to_boxes(masks)
    return boxes

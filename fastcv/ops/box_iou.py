"""Overlaps of every box of one set with every box of another: IoU and its generalized, distance and complete forms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcv.ops._arguments import check_tensor, describe_shape
from fastcv.ops._gradient_pair import define_with_gradient_pair
from fastcv.ops._rotated_boxes import COLUMNS, convert_rotated
from fastcv.ops.box_iou_rotated import box_iou_rotated

__all__ = ["box_iou", "complete_box_iou", "distance_box_iou", "generalized_box_iou"]

_IOU, _GENERALIZED, _DISTANCE, _COMPLETE = range(4)
_FORMATS = ("xyxy", "xywh", "cxcywh")
_ALL_FORMATS = (*_FORMATS, *COLUMNS)


def _fake(boxes1: Tensor, boxes2: Tensor, *_: Any) -> Tensor:
    dtype = torch.float64 if torch.float64 in (boxes1.dtype, boxes2.dtype) else torch.float32
    lead = torch.broadcast_shapes(boxes1.shape[:-2], boxes2.shape[:-2])
    return boxes1.new_empty((*lead, boxes1.shape[-2], boxes2.shape[-2]), dtype=dtype)


_box_iou = define_with_gradient_pair("box_iou", "boxes1", "boxes2", "int kind, float eps", _fake)


def _as_corners(boxes: Tensor, fmt: str, name: str) -> Tensor:
    check_tensor(boxes, name)
    if boxes.dim() < 2 or boxes.shape[-1] != 4 or boxes.dtype is torch.bool or boxes.is_complex():
        return boxes  # the operator says what is wrong
    if not boxes.dtype.is_floating_point:
        boxes = boxes.double()  # a centre may lie between integers
    elif boxes.dtype.itemsize < 4:
        boxes = boxes.float()
    position, size = boxes[..., :2], boxes[..., 2:]
    low = position if fmt == "xywh" else position - size / 2
    high = position + size if fmt == "xywh" else position + size / 2
    return torch.cat([low, high], dim=-1)


def _as_turned(boxes: Tensor, fmt: str, name: str) -> Tensor:
    """Return rotated boxes (N, K) as centre, size and angle."""
    check_tensor(boxes, name)
    if boxes.dim() != 2 or boxes.shape[1] != COLUMNS[fmt]:
        raise ValueError(f"{name} must have shape (N, {COLUMNS[fmt]}), got {describe_shape(boxes)}")
    if fmt == "cxcywhr" or not boxes.is_floating_point():
        return boxes[:, :5]  # the operator says what is wrong with integers
    return convert_rotated(boxes.float() if boxes.dtype.itemsize < 4 else boxes, fmt, "cxcywhr", rounded=False)


def box_iou(boxes1: Tensor, boxes2: Tensor, fmt: str = "xyxy") -> Tensor:
    """Divide intersection by union, for every box of one set with every box of another.

    Parameters
    ----------
    boxes1 : Tensor (..., N, 4)
        Boxes in pixels, of a floating or an integer dtype. Half types are computed in float32, integers in float64.
    boxes2 : Tensor (..., M, 4)
        Likewise. Leading axes are broadcast against those of ``boxes1``.
    fmt : str
        What the four numbers are: ``"xyxy"`` (two corners), ``"xywh"`` (corner and size) or ``"cxcywh"`` (centre and
        size). Or a rotated format of :func:`box_convert`: ``"cxcywhr"``, ``"xywhr"`` or ``"xyxyxyxy"``; sets have the
        shapes (N, 5) and (M, 5), or (N, 8) and (M, 8), and a floating dtype then.

    Returns
    -------
    Tensor (..., N, M)
        float64 when one of the sets is float64, else float32, as torchvision has it. NaN for two boxes without area and
        for boxes with NaN. Of rotated boxes always float32, and zero in place of NaN: see :func:`box_iou_rotated`.

    Raises
    ------
    ValueError
        For tensors of another shape, leading axes that do not broadcast, tensors on different devices, or another
        ``fmt``.
    TypeError
        For an argument that is not a tensor, or complex or boolean boxes.
    NotImplementedError
        When the IoU of rotated boxes is differentiated.

    Notes
    -----
    The values are those of ``torchvision.ops.box_iou``, bit for bit in float32 and float64 with ``"xyxy"``. Nothing but
    the result is stored. Differentiable once, in both sets; the gradient is deterministic and halves at ties, as
    torch's own ``maximum`` does.

    Examples
    --------
    >>> box_iou(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0], [5.0, 5.0, 6.0, 6.0]]))
    tensor([[0.3333, 0.0000]])
    """
    overlap: Tensor
    if fmt == "xyxy":
        overlap = _box_iou(boxes1, boxes2, _IOU, 0.0)
        return overlap
    if fmt not in _ALL_FORMATS:
        raise ValueError(f"fmt must be one of {', '.join(_ALL_FORMATS)}, got {fmt!r}")
    if fmt in COLUMNS:
        return box_iou_rotated(_as_turned(boxes1, fmt, "boxes1"), _as_turned(boxes2, fmt, "boxes2"))
    overlap = _box_iou(_as_corners(boxes1, fmt, "boxes1"), _as_corners(boxes2, fmt, "boxes2"), _IOU, 0.0)
    return overlap if torch.float64 in (boxes1.dtype, boxes2.dtype) else overlap.float()


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU less the share of the enclosing box that neither box covers, for every pair of boxes.

    Parameters
    ----------
    boxes1 : Tensor (..., N, 4)
        Boxes x1, y1, x2, y2 in pixels, of a floating or an integer dtype.
    boxes2 : Tensor (..., M, 4)
        Likewise. Leading axes are broadcast against those of ``boxes1``.

    Returns
    -------
    Tensor (..., N, M)
        In [-1, 1]. dtype, errors and derivatives as for :func:`box_iou`.

    References
    ----------
    Rezatofighi et al.: Generalized Intersection over Union (2019), section 3.
    """
    overlap: Tensor = _box_iou(boxes1, boxes2, _GENERALIZED, 0.0)
    return overlap


def distance_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """IoU less the squared distance of the centres over that of the enclosing box's corners, for every pair of boxes.

    Parameters
    ----------
    boxes1 : Tensor (..., N, 4)
        Boxes x1, y1, x2, y2 in pixels, of a floating or an integer dtype.
    boxes2 : Tensor (..., M, 4)
        Likewise. Leading axes are broadcast against those of ``boxes1``.
    eps : float
        Added to the squared diagonal, in square pixels.

    Returns
    -------
    Tensor (..., N, M)
        dtype, errors and derivatives as for :func:`box_iou`.

    References
    ----------
    Zheng et al.: Distance-IoU Loss (2020), section 3.
    """
    overlap: Tensor = _box_iou(boxes1, boxes2, _DISTANCE, eps)
    return overlap


def complete_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """:func:`distance_box_iou` less a penalty for different aspect ratios, for every pair of boxes.

    Parameters
    ----------
    boxes1 : Tensor (..., N, 4)
        Boxes x1, y1, x2, y2 in pixels, of a floating or an integer dtype.
    boxes2 : Tensor (..., M, 4)
        Likewise. Leading axes are broadcast against those of ``boxes1``.
    eps : float
        Added to the squared diagonal, and to the denominator of the penalty's weight.

    Returns
    -------
    Tensor (..., N, M)
        dtype, errors and derivatives as for :func:`box_iou`; the penalty's weight alpha counts as a constant.

    References
    ----------
    Zheng et al.: Distance-IoU Loss (2020), section 4.
    """
    overlap: Tensor = _box_iou(boxes1, boxes2, _COMPLETE, eps)
    return overlap

"""Overlaps of every rotated box of one set with every rotated box of another."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from fastcv.ops._define import Gradient, define

__all__ = ["box_iou_rotated"]


def _fake(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    return boxes1.new_empty((boxes1.shape[0], boxes2.shape[0]), dtype=torch.float32)


def _save_nothing(arguments: tuple[Any, ...], output: Any) -> tuple[tuple[Tensor, ...], Any]:
    return (), None


def _refuse(*_: Any) -> NoReturn:
    raise NotImplementedError("the IoU of rotated boxes cannot be differentiated; call it under torch.no_grad()")


_box_iou_rotated = define(
    "box_iou_rotated(Tensor boxes1, Tensor boxes2) -> Tensor",
    fake=_fake,
    gradient=Gradient(("boxes1", "boxes2"), _save_nothing, _refuse),
)


def box_iou_rotated(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Divide intersection by union, for every rotated box of one set with every rotated box of another.

    Parameters
    ----------
    boxes1 : Tensor (N, 5)
        Boxes cx, cy, w, h, angle: centre and sides in pixels; the angle in degrees, by which the box is turned about
        its centre, counter-clockwise as an image is seen (y downwards). float16, bfloat16, float32 or float64, of any
        strides; computed in float32, in float64 when one of the sets is float64.
    boxes2 : Tensor (M, 5)
        Likewise.

    Returns
    -------
    Tensor (N, M)
        float32, whatever the dtype of the boxes, as torchvision has it. Zero for a box with an area below 1e-14 or
        with a number that is not finite.

    Raises
    ------
    ValueError
        For tensors of another shape or on different devices.
    TypeError
        For an argument that is not a tensor, or boxes of another dtype.
    NotImplementedError
        When differentiated. (torchvision gives no gradient and a warning.)

    Notes
    -----
    The meaning is that of ``torchvision.ops.box_iou(..., fmt="cxcywhr")`` and of detectron2's
    ``pairwise_iou_rotated``. The intersection is an exact integral along the sides of the one box in the frame of the
    other, so boxes that touch, coincide or nearly coincide need no tolerances; boxes far from the origin lose no more
    digits than their coordinates have. The same bits on all devices and for every number of threads.

    Examples
    --------
    >>> box_iou_rotated(torch.tensor([[5.0, 5.0, 2.0, 2.0, 0.0]]), torch.tensor([[5.0, 5.0, 2.0, 2.0, 45.0]]))
    tensor([[0.7071]])
    """
    overlap: Tensor = _box_iou_rotated(boxes1, boxes2)
    return overlap

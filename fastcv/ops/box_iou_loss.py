"""Losses on the overlap of boxes with their partners: generalized, distance and complete IoU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcv.ops._arguments import check_reduction
from fastcv.ops._gradient_pair import define_with_gradient_pair
from fastcv.ops.ordered_sum import reduce_loss

__all__ = ["complete_box_iou_loss", "distance_box_iou_loss", "generalized_box_iou_loss"]

_GENERALIZED, _DISTANCE, _COMPLETE = range(1, 4)


def _fake(boxes1: Tensor, boxes2: Tensor, *_: Any) -> Tensor:
    dtype = torch.float64 if torch.float64 in (boxes1.dtype, boxes2.dtype) else torch.float32
    return boxes1.new_empty(boxes1.shape[:-1], dtype=dtype)


_box_iou_loss = define_with_gradient_pair("box_iou_loss", "boxes1", "boxes2", "int kind, float eps", _fake)


def _loss(boxes1: Tensor, boxes2: Tensor, reduction: str, eps: float, kind: int) -> Tensor:
    check_reduction(reduction)
    loss = _box_iou_loss(boxes1, boxes2, kind, eps)
    if reduction == "mean" and loss.numel() == 0:
        reduction = "sum"
    return reduce_loss(loss, reduction)


def generalized_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """One minus the generalized IoU of each box with its partner.

    Parameters
    ----------
    boxes1, boxes2 : Tensor (N, 4) or (4,)
        Boxes x1, y1, x2, y2 in pixels, of a floating or an integer dtype. Computed in float64 when one is float64, else
        in float32, which also is the dtype of the loss.
    reduction : str
        ``"none"``, ``"mean"`` or ``"sum"``. The mean of no boxes is zero.
    eps : float
        Added to the areas that divide, in square pixels.

    Returns
    -------
    Tensor (N,), or () when reduced or for boxes (4,)

    Raises
    ------
    ValueError
        For tensors of another shape or on different devices, a negative ``eps``, or another ``reduction``.
    TypeError
        For an argument that is not a tensor, or complex or boolean boxes.

    Notes
    -----
    Values and gradients, to both, are those of ``torchvision.ops.generalized_box_iou_loss``. A sum and a mean have the
    same bits for every number of threads. Differentiable once.

    References
    ----------
    Rezatofighi et al.: Generalized Intersection over Union (2019), algorithm 2.
    """
    return _loss(boxes1, boxes2, reduction, eps, _GENERALIZED)


def distance_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """One minus the distance IoU of each box with its partner.

    Parameters
    ----------
    boxes1, boxes2 : Tensor (N, 4) or (4,)
        Boxes x1, y1, x2, y2 in pixels, as for :func:`generalized_box_iou_loss`.
    reduction : str
        ``"none"``, ``"mean"`` or ``"sum"``. The mean of no boxes is zero.
    eps : float
        Added to the area and to the squared diagonal that divide.

    Returns
    -------
    Tensor (N,), or () when reduced or for boxes (4,)
        Errors and derivatives as for :func:`generalized_box_iou_loss`.

    References
    ----------
    Zheng et al.: Distance-IoU Loss (2020), section 3.
    """
    return _loss(boxes1, boxes2, reduction, eps, _DISTANCE)


def complete_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """One minus the complete IoU of each box with its partner.

    Parameters
    ----------
    boxes1, boxes2 : Tensor (N, 4) or (4,)
        Boxes x1, y1, x2, y2 in pixels, as for :func:`generalized_box_iou_loss`.
    reduction : str
        ``"none"``, ``"mean"`` or ``"sum"``. The mean of no boxes is zero.
    eps : float
        Added to the denominator of the weight of the aspect penalty. The distance takes 1e-7 whatever is given, as in
        torchvision.

    Returns
    -------
    Tensor (N,), or () when reduced or for boxes (4,)
        Errors and derivatives as for :func:`generalized_box_iou_loss`; the weight of the penalty counts as a constant.

    References
    ----------
    Zheng et al.: Distance-IoU Loss (2020), section 4.
    """
    return _loss(boxes1, boxes2, reduction, eps, _COMPLETE)

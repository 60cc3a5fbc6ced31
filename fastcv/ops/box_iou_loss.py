"""Losses on the overlap of boxes with their partners: generalized, distance and complete IoU."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from fastcv import _C
from fastcv.ops._arguments import check_reduction, check_tensor, describe_shape, reduce_loss
from fastcv.ops._define import Gradient, Operator

__all__ = ["complete_box_iou_loss", "distance_box_iou_loss", "generalized_box_iou_loss"]

_GENERALIZED, _DISTANCE, _COMPLETE = range(1, 4)
_COMPUTED = (torch.float32, torch.float64)


def _allocate(boxes1: Tensor, boxes2: Tensor, kind: int, eps: float) -> Tensor:
    return boxes1.new_empty_strided((boxes1.shape[0],), (1,))


def _forward(boxes1: Tensor, boxes2: Tensor, kind: int, eps: float) -> Tensor:
    output = _allocate(boxes1, boxes2, kind, eps)
    _C.box_iou_loss_forward(output, boxes1, boxes2, kind, eps)
    return output


def _allocate_gradient(
    grad: Tensor, boxes1: Tensor, boxes2: Tensor, kind: int, eps: float, needs1: bool, needs2: bool
) -> tuple[Tensor, Tensor]:
    return (
        boxes1.new_empty(boxes1.shape if needs1 else (0,)),
        boxes2.new_empty(boxes2.shape if needs2 else (0,)),
    )


def _forward_gradient(
    grad: Tensor, boxes1: Tensor, boxes2: Tensor, kind: int, eps: float, needs1: bool, needs2: bool
) -> tuple[Tensor, Tensor]:
    gradients = _allocate_gradient(grad, boxes1, boxes2, kind, eps, needs1, needs2)
    _C.box_iou_loss_backward(*gradients, grad, boxes1, boxes2, kind, eps, needs1, needs2)
    return gradients


def _save(arguments: tuple[Any, ...], output: Tensor) -> tuple[tuple[Tensor, ...], Any]:
    boxes1, boxes2, kind, eps = arguments
    return (boxes1, boxes2), (kind, eps)


def _backward(tensors: Any, constants: Any, needs: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    gradients = _box_iou_loss_backward(grad, *tensors, *constants, *needs)
    return tuple(gradient if needed else None for gradient, needed in zip(gradients, needs, strict=True))


def _save_nothing(arguments: tuple[Any, ...], outputs: Any) -> tuple[tuple[Tensor, ...], Any]:
    return (), None


def _refuse_second_derivative(*_: Any) -> NoReturn:
    raise NotImplementedError("the overlap losses can be differentiated once, not twice")


_box_iou_loss = Operator(
    "box_iou_loss(Tensor boxes1, Tensor boxes2, int kind, float eps) -> Tensor",
    forward=_forward,
    fake=_allocate,
    gradient=Gradient(("boxes1", "boxes2"), _save, _backward),
)

_box_iou_loss_backward = Operator(
    "box_iou_loss_backward(Tensor grad, Tensor boxes1, Tensor boxes2, int kind, float eps, bool needs1, bool needs2) "
    "-> (Tensor, Tensor)",
    forward=_forward_gradient,
    fake=_allocate_gradient,
    gradient=Gradient(("grad", "boxes1", "boxes2"), _save_nothing, _refuse_second_derivative),
)


def _loss(boxes1: Tensor, boxes2: Tensor, reduction: str, eps: float, kind: int) -> Tensor:
    check_reduction(reduction)
    if not isinstance(eps, int | float):
        raise TypeError(f"eps must be a number, got {type(eps).__name__}")
    if not eps >= 0:
        raise ValueError(f"eps must not be negative, got {eps}")
    for boxes, name in ((boxes1, "boxes1"), (boxes2, "boxes2")):
        check_tensor(boxes, name)
        if boxes.dim() == 0 or boxes.shape[-1] != 4:
            raise ValueError(f"{name} must have shape (N, 4) or (4,), got {describe_shape(boxes)}")
        if boxes.is_complex() or boxes.dtype is torch.bool:
            raise TypeError(f"{name} must be of a floating or an integer dtype, got {boxes.dtype}")
    if boxes1.shape != boxes2.shape:
        raise ValueError(f"boxes2 must have the shape of boxes1 {describe_shape(boxes1)}, got {describe_shape(boxes2)}")
    dtype = torch.float64 if torch.float64 in (boxes1.dtype, boxes2.dtype) else torch.float32
    lead = boxes1.shape[:-1]
    boxes1, boxes2 = (boxes.to(dtype).reshape(-1, 4).contiguous() for boxes in (boxes1, boxes2))
    loss: Tensor = _box_iou_loss(boxes1, boxes2, kind, float(eps))
    return reduce_loss(loss if len(lead) == 1 else loss.reshape(lead), reduction)


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
        For an argument that is no tensor, or complex or boolean boxes.

    Notes
    -----
    Values and gradients, to both, are those of ``torchvision.ops.generalized_box_iou_loss``. Differentiable once.

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

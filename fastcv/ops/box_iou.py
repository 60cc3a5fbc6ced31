"""Overlaps of every box of one set with every box of another: IoU and its generalized, distance and complete forms."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from fastcv import _C
from fastcv.ops._arguments import check_tensor, describe_shape
from fastcv.ops._define import Gradient, Operator

__all__ = ["box_iou", "complete_box_iou", "distance_box_iou", "generalized_box_iou"]

_IOU, _GENERALIZED, _DISTANCE, _COMPLETE = range(4)
_COMPUTED = (torch.float32, torch.float64)
_FORMATS = ("xyxy", "xywh", "cxcywh")


def _check_shapes(boxes1: Tensor, boxes2: Tensor) -> None:
    for boxes, name, meaning in ((boxes1, "boxes1", "(..., N, 4)"), (boxes2, "boxes2", "(..., M, 4)")):
        if boxes.dim() < 2 or boxes.shape[-1] != 4:
            raise ValueError(f"{name} must have shape {meaning}, got {describe_shape(boxes)}")


def _allocate(boxes1: Tensor, boxes2: Tensor, kind: int, eps: float, narrow: bool) -> Tensor:
    _check_shapes(boxes1, boxes2)
    dtype = torch.float32 if narrow else boxes1.dtype
    n, m = boxes1.shape[-2], boxes2.shape[-2]
    if boxes1.dim() == 2:
        return boxes1.new_empty((n, m), dtype=dtype)
    return boxes1.new_empty((boxes1.shape[0], n, m), dtype=dtype)


def _forward(boxes1: Tensor, boxes2: Tensor, kind: int, eps: float, narrow: bool) -> Tensor:
    return _C.box_iou_forward(boxes1, boxes2, kind, eps, narrow)


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
    batch = boxes1.shape[0] if boxes1.dim() == 3 else 1
    workspace = boxes1.new_empty(_C.box_iou_workspace(batch, boxes1.shape[-2], boxes2.shape[-2]))
    _C.box_iou_backward(*gradients, grad, boxes1, boxes2, workspace, kind, eps, needs1, needs2)
    return gradients


def _save(arguments: tuple[Any, ...], output: Tensor) -> tuple[tuple[Tensor, ...], Any]:
    boxes1, boxes2, kind, eps, _ = arguments
    return (boxes1, boxes2), (kind, eps)


def _backward(tensors: Any, constants: Any, needs: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    gradients = _box_iou_backward(grad, *tensors, *constants, *needs)
    return tuple(gradient if needed else None for gradient, needed in zip(gradients, needs, strict=True))


def _save_nothing(arguments: tuple[Any, ...], outputs: Any) -> tuple[tuple[Tensor, ...], Any]:
    return (), None


def _refuse_second_derivative(*_: Any) -> NoReturn:
    raise NotImplementedError("the overlaps of boxes can be differentiated once, not twice")


_box_iou = Operator(
    "box_iou(Tensor boxes1, Tensor boxes2, int kind, float eps, bool narrow) -> Tensor",
    forward=_forward,
    fake=_allocate,
    gradient=Gradient(("boxes1", "boxes2"), _save, _backward),
)

_box_iou_backward = Operator(
    "box_iou_backward(Tensor grad, Tensor boxes1, Tensor boxes2, int kind, float eps, bool needs1, bool needs2) "
    "-> (Tensor, Tensor)",
    forward=_forward_gradient,
    fake=_allocate_gradient,
    gradient=Gradient(("grad", "boxes1", "boxes2"), _save_nothing, _refuse_second_derivative),
)


def _overlap(boxes1: Tensor, boxes2: Tensor, kind: int, eps: float) -> Tensor:
    check_tensor(boxes1, "boxes1")
    check_tensor(boxes2, "boxes2")
    dtype = boxes1.dtype
    if (
        dtype in _COMPUTED
        and boxes2.dtype is dtype
        and boxes1.dim() == boxes2.dim() == 2
        and boxes1.is_contiguous()
        and boxes2.is_contiguous()
    ):
        overlap: Tensor = _box_iou.call(boxes1, boxes2, kind, eps, False)
        return overlap
    return _prepared_overlap(boxes1, boxes2, kind, eps)


def _prepared_overlap(boxes1: Tensor, boxes2: Tensor, kind: int, eps: float) -> Tensor:
    """The way for everything but two contiguous matrices of the same floating dtype."""
    _check_shapes(boxes1, boxes2)
    for boxes, name in ((boxes1, "boxes1"), (boxes2, "boxes2")):
        if boxes.is_complex() or boxes.dtype is torch.bool:
            raise TypeError(f"{name} must be of a floating or an integer dtype, got {boxes.dtype}")
    promoted = torch.promote_types(boxes1.dtype, boxes2.dtype)
    narrow = not promoted.is_floating_point
    wanted = torch.float64 if narrow or promoted is torch.float64 else torch.float32
    boxes1, boxes2 = boxes1.to(wanted), boxes2.to(wanted)
    if boxes1.dim() == 2 and boxes2.dim() == 2:
        overlap: Tensor = _box_iou(boxes1.contiguous(), boxes2.contiguous(), kind, eps, narrow)
        return overlap
    try:
        lead = torch.broadcast_shapes(boxes1.shape[:-2], boxes2.shape[:-2])
    except RuntimeError:
        raise ValueError(
            "boxes1 and boxes2 must have leading axes that broadcast, got "
            f"{describe_shape(boxes1)} and {describe_shape(boxes2)}"
        ) from None
    n, m = boxes1.shape[-2], boxes2.shape[-2]
    count = 1
    for size in lead:
        count *= size
    boxes1 = boxes1.expand(*lead, n, 4).reshape(count, n, 4).contiguous()
    boxes2 = boxes2.expand(*lead, m, 4).reshape(count, m, 4).contiguous()
    overlaps: Tensor = _box_iou(boxes1, boxes2, kind, eps, narrow)
    return overlaps.reshape(*lead, n, m)


def _check_eps(eps: float) -> float:
    if not isinstance(eps, int | float):
        raise TypeError(f"eps must be a number, got {type(eps).__name__}")
    if not eps >= 0:
        raise ValueError(f"eps must not be negative, got {eps}")
    return float(eps)


def _as_corners(boxes: Tensor, fmt: str, name: str) -> Tensor:
    check_tensor(boxes, name)
    if boxes.dim() < 2 or boxes.shape[-1] != 4:
        raise ValueError(f"{name} must have shape (..., N, 4), got {describe_shape(boxes)}")
    if not boxes.dtype.is_floating_point:
        boxes = boxes.double()  # a centre may lie between integers
    elif boxes.dtype not in _COMPUTED:
        boxes = boxes.float()
    position, size = boxes[..., :2], boxes[..., 2:]
    low = position if fmt == "xywh" else position - size / 2
    high = position + size if fmt == "xywh" else position + size / 2
    return torch.cat([low, high], dim=-1)


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
        size).

    Returns
    -------
    Tensor (..., N, M)
        float64 when one of the sets is float64, else float32, as torchvision has it. NaN for two boxes without area and
        for boxes with NaN.

    Raises
    ------
    ValueError
        For tensors of another shape, leading axes that do not broadcast, tensors on different devices, or another
        ``fmt`` (the rotated formats of torchvision are not among them).
    TypeError
        For an argument that is no tensor, or complex or boolean boxes.

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
    if fmt == "xyxy":
        return _overlap(boxes1, boxes2, _IOU, 0.0)
    if fmt not in _FORMATS:
        raise ValueError(f"fmt must be one of {', '.join(_FORMATS)}, got {fmt!r}")
    corners1, corners2 = _as_corners(boxes1, fmt, "boxes1"), _as_corners(boxes2, fmt, "boxes2")
    overlap = _overlap(corners1, corners2, _IOU, 0.0)
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
    return _overlap(boxes1, boxes2, _GENERALIZED, 0.0)


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
    return _overlap(boxes1, boxes2, _DISTANCE, _check_eps(eps))


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
    return _overlap(boxes1, boxes2, _COMPLETE, _check_eps(eps))

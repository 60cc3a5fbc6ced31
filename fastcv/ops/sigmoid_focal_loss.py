"""Focal loss of logits, for dense detection."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import Tensor

from fastcv import _C
from fastcv.ops._arguments import check_reduction, check_tensor, describe_shape
from fastcv.ops._define import Gradient, Operator

__all__ = ["sigmoid_focal_loss"]


def _allocate(inputs: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    return inputs.new_empty(inputs.shape)


def _forward(inputs: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    output = _allocate(inputs, targets, alpha, gamma)
    _C.sigmoid_focal_loss_forward(output, inputs, targets, alpha, gamma)
    return output


def _allocate_gradient(
    grad: Tensor, inputs: Tensor, targets: Tensor, alpha: float, gamma: float, needs_inputs: bool, needs_targets: bool
) -> tuple[Tensor, Tensor]:
    return (
        inputs.new_empty(inputs.shape if needs_inputs else (0,)),
        targets.new_empty(targets.shape if needs_targets else (0,)),
    )


def _forward_gradient(
    grad: Tensor, inputs: Tensor, targets: Tensor, alpha: float, gamma: float, needs_inputs: bool, needs_targets: bool
) -> tuple[Tensor, Tensor]:
    gradients = _allocate_gradient(grad, inputs, targets, alpha, gamma, needs_inputs, needs_targets)
    # The gradient of a mean or a sum stays one number, seen through strides of zero.
    _C.sigmoid_focal_loss_backward(
        *gradients, grad.reshape(-1), inputs, targets, alpha, gamma, needs_inputs, needs_targets
    )
    return gradients


def _save(arguments: tuple[Any, ...], output: Tensor) -> tuple[tuple[Tensor, ...], Any]:
    inputs, targets, alpha, gamma = arguments
    return (inputs, targets), (alpha, gamma)


def _backward(tensors: Any, constants: Any, needs: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    gradients = _sigmoid_focal_loss_backward(grad, *tensors, *constants, *needs)
    return tuple(gradient if needed else None for gradient, needed in zip(gradients, needs, strict=True))


def _save_nothing(arguments: tuple[Any, ...], outputs: Any) -> tuple[tuple[Tensor, ...], Any]:
    return (), None


def _refuse_second_derivative(*_: Any) -> NoReturn:
    raise NotImplementedError("the focal loss can be differentiated once, not twice")


_sigmoid_focal_loss = Operator(
    "sigmoid_focal_loss(Tensor inputs, Tensor targets, float alpha, float gamma) -> Tensor",
    forward=_forward,
    fake=_allocate,
    gradient=Gradient(("inputs", "targets"), _save, _backward),
)

_sigmoid_focal_loss_backward = Operator(
    "sigmoid_focal_loss_backward(Tensor grad, Tensor inputs, Tensor targets, float alpha, float gamma, "
    "bool needs_inputs, bool needs_targets) -> (Tensor, Tensor)",
    forward=_forward_gradient,
    fake=_allocate_gradient,
    gradient=Gradient(("grad", "inputs", "targets"), _save_nothing, _refuse_second_derivative),
)


def sigmoid_focal_loss(
    inputs: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2, reduction: str = "none"
) -> Tensor:
    """Cross entropy of logits, weighted down where the prediction is right already.

    Parameters
    ----------
    inputs : Tensor (...)
        Logits: float16, bfloat16, float32 or float64. Half types are computed in float32 and rounded once.
    targets : Tensor (...)
        Labels, 0 to 1, of the shape and the dtype of ``inputs``.
    alpha : float
        Weight of positives, in [0, 1]; negatives have 1 - alpha. -1 for no weights.
    gamma : float
        Exponent of the modulating factor, not negative.
    reduction : str
        ``"none"``, ``"mean"`` or ``"sum"``.

    Returns
    -------
    Tensor (...), or () when reduced

    Raises
    ------
    ValueError
        For targets of another shape or on another device, an ``alpha`` or a ``gamma`` outside its range, or another
        ``reduction``.
    TypeError
        For an argument that is no tensor, of an unsupported dtype, or targets of another dtype.

    Notes
    -----
    Values and gradients, to inputs and to targets, are those of ``torchvision.ops.sigmoid_focal_loss``, without its
    loss of digits for confident predictions. Differentiable once.

    References
    ----------
    Lin, Goyal, Girshick, He, Dollár: Focal Loss for Dense Object Detection (2017), equation 5.
    """
    check_tensor(inputs, "inputs")
    check_tensor(targets, "targets")
    check_reduction(reduction)
    if not (0 <= alpha <= 1 or alpha == -1):
        raise ValueError(f"alpha must be in [0, 1], or -1 for no weights, got {alpha}")
    if not gamma >= 0:
        raise ValueError(f"gamma must not be negative, got {gamma}")
    if not inputs.dtype.is_floating_point:
        raise TypeError(f"inputs must be float16, bfloat16, float32 or float64, got {inputs.dtype}")
    if targets.dtype is not inputs.dtype:
        raise TypeError(f"targets must have the dtype of inputs ({inputs.dtype}), got {targets.dtype}")
    if targets.shape != inputs.shape:
        raise ValueError(
            f"targets must have the shape of inputs {describe_shape(inputs)}, got {describe_shape(targets)}"
        )
    loss: Tensor = _sigmoid_focal_loss(inputs.contiguous(), targets.contiguous(), float(alpha), float(gamma))
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()

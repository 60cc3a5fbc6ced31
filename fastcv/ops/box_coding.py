"""Boxes as offsets from other boxes, and back: what box regressors learn and predict."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastcv.ops._arguments import as_floats, check_tensor
from fastcv.ops._define import Gradient, define

__all__ = ["decode_boxes", "encode_boxes"]

DEFAULT_CLIP = math.log(1000.0 / 16)


def _fake(first: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(first, memory_format=torch.contiguous_format)


def _fake_gradients(grad_output: Tensor, first: Tensor, second: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _fake(first), _fake(second)


# The fused kernels give first derivatives. Where those may be differentiated in turn (create_graph=True), the same
# formulas made of torch's operations take their place.


def _spans(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centres and sizes: (N, 2) each."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return low + 0.5 * (high - low), high - low


def _encode_gradient(grad: Tensor, reference_boxes: Tensor, proposals: Tensor, *weights: float) -> Any:
    (center, size), (origin, unit) = _spans(reference_boxes), _spans(proposals)
    weighted = grad * grad.new_tensor(weights)
    shift, growth = weighted[:, :2] / unit, weighted[:, 2:]
    along, along_proposal = growth / size, -shift * (center - origin) / unit - growth / unit
    grad_reference = torch.cat([0.5 * shift - along, 0.5 * shift + along], dim=1)
    return grad_reference, torch.cat([-0.5 * shift - along_proposal, along_proposal - 0.5 * shift], dim=1)


def _decode_gradient(grad: Tensor, deltas: Tensor, boxes: Tensor, *coding: float) -> Any:
    *weights, clip = coding
    weight = deltas.new_tensor(weights)
    unit = _spans(boxes)[1][:, None]
    shift, growth = (deltas.reshape(len(deltas), deltas.shape[1] // 4, 4) / weight).split(2, dim=2)
    low, high = grad.reshape(len(deltas), deltas.shape[1] // 4, 4).split(2, dim=2)
    center, extent = low + high, 0.5 * (high - low) * torch.exp(growth.clamp(max=clip))
    grad_growth = torch.where(growth <= clip, extent * unit, 0)
    along, center_sum = (center * shift + extent).sum(1), 0.5 * center.sum(1)
    grad_deltas = (torch.cat([center * unit, grad_growth], dim=2) / weight).reshape(deltas.shape)
    return grad_deltas, torch.cat([center_sum - along, center_sum + along], dim=1)


def _save(arguments: tuple[Any, ...], output: Tensor) -> tuple[tuple[Tensor, ...], Any]:
    return arguments[:2], arguments[2:]


def _differentiate(operator: Callable[..., Any], formula: Callable[..., Any]) -> Callable[..., Any]:
    def backward(tensors: Any, constants: Any, needs: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        function = formula if torch.is_grad_enabled() else operator
        first, second = function(grad, *tensors, *constants)
        return first if needs[0] else None, second if needs[1] else None

    return backward


_WEIGHTS = "float weight_x, float weight_y, float weight_w, float weight_h"

_encode_boxes_backward = define(
    f"encode_boxes_backward(Tensor grad_output, Tensor reference_boxes, Tensor proposals, {_WEIGHTS}) "
    "-> (Tensor, Tensor)",
    fake=_fake_gradients,
)

_encode_boxes = define(
    f"encode_boxes(Tensor reference_boxes, Tensor proposals, {_WEIGHTS}) -> Tensor",
    fake=_fake,
    gradient=Gradient(
        ("reference_boxes", "proposals"), _save, _differentiate(_encode_boxes_backward, _encode_gradient)
    ),
)

_decode_boxes_backward = define(
    f"decode_boxes_backward(Tensor grad_output, Tensor deltas, Tensor boxes, {_WEIGHTS}, float clip) "
    "-> (Tensor, Tensor)",
    fake=_fake_gradients,
)

_decode_boxes = define(
    f"decode_boxes(Tensor deltas, Tensor boxes, {_WEIGHTS}, float clip) -> Tensor",
    fake=_fake,
    gradient=Gradient(("deltas", "boxes"), _save, _differentiate(_decode_boxes_backward, _decode_gradient)),
)


def encode_boxes(
    reference_boxes: Tensor, proposals: Tensor, weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0)
) -> Tensor:
    """Express boxes as offsets from proposals: the targets that a box regressor learns.

    Parameters
    ----------
    reference_boxes : Tensor (N, 4)
        Boxes x1, y1, x2, y2 to be expressed: float16, bfloat16, float32 or float64. Half types are computed in float32.
    proposals : Tensor (N, 4)
        Boxes that they are relative to, of the same dtype.
    weights : four floats
        Factors of the offsets in x, y, width and height.

    Returns
    -------
    Tensor (N, 4)
        Per row: weight times the distance of the centres over the proposal's size, in x and y; weight times the log of
        the ratio of sizes, in width and height. NaN or infinite where a box has no size.

    Raises
    ------
    ValueError
        For a tensor of another shape, or tensors on different devices.
    TypeError
        For an argument that is not a tensor, or of an unsupported or differing dtype.

    Notes
    -----
    Differentiable in both arguments, twice. Values are those of
    ``torchvision.models.detection._utils.BoxCoder(weights).encode_single``.

    References
    ----------
    Girshick, Donahue, Darrell, Malik: Rich feature hierarchies (R-CNN, 2014), appendix C.
    """
    deltas: Tensor = _encode_boxes(reference_boxes, proposals, *as_floats(weights, 4, "weights"))
    return deltas


def decode_boxes(
    deltas: Tensor,
    boxes: Tensor,
    weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0),
    clip: float = DEFAULT_CLIP,
) -> Tensor:
    """Apply predicted offsets to boxes: the inverse of :func:`encode_boxes`, for each of C classes.

    Parameters
    ----------
    deltas : Tensor (N, 4 C)
        Offsets: for each class x, y, width, height. float16, bfloat16, float32 or float64; half types are computed in
        float32.
    boxes : Tensor (N, 4)
        Boxes x1, y1, x2, y2 that the offsets refer to; of a floating dtype, converted to that of ``deltas``.
    weights : four floats
        Those that the offsets were encoded with.
    clip : float
        Greatest log of the ratio by which a side may grow; what exceeds it is cut and has no gradient.

    Returns
    -------
    Tensor (N, 4 C)
        Boxes x1, y1, x2, y2 per class, in the dtype of ``deltas``.

    Raises
    ------
    ValueError
        For a tensor of another shape, or tensors on different devices.
    TypeError
        For an argument that is not a tensor, or of an unsupported dtype.

    Notes
    -----
    Differentiable in both arguments, twice; deterministic. Values are those of
    ``torchvision.models.detection._utils.BoxCoder(weights, clip).decode_single``.

    References
    ----------
    Girshick, Donahue, Darrell, Malik: Rich feature hierarchies (R-CNN, 2014), appendix C.
    """
    check_tensor(deltas, "deltas")
    check_tensor(boxes, "boxes")
    if boxes.dtype is not deltas.dtype and boxes.is_floating_point():
        boxes = boxes.to(deltas.dtype)
    decoded: Tensor = _decode_boxes(deltas, boxes, *as_floats(weights, 4, "weights"), clip)
    return decoded

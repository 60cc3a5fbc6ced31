"""RoIPool: the largest features in the bins of each box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastcv.ops._arguments import as_pair, as_rois, new_dense
from fastcv.ops._define import Gradient, define
from fastcv.ops._layers import found_in_nn

__all__ = ["roi_pool"]


def _fake(input: Tensor, boxes: Tensor, pooled_height: int, pooled_width: int, *_: Any) -> tuple[Tensor, Tensor]:
    output = new_dense(input, boxes.shape[0], input.shape[1], pooled_height, pooled_width)
    return output, torch.empty_like(output, dtype=torch.int32)


def _fake_backward(
    grad_output: Tensor, boxes: Tensor, argmax: Tensor, batch: int, channels: int, height: int, width: int, *_: Any
) -> Tensor:
    return new_dense(grad_output, batch, channels, height, width)


def _gather(values: Tensor, boxes: Tensor, argmax: Tensor) -> Tensor:
    """Return what (N, C, H, W) holds at argmax (K, C, P, Q), 0 where that is -1: the transpose of the backward."""
    if values.numel() == 0 or argmax.numel() == 0:
        return values.sum() * 0 + values.new_zeros(argmax.shape)
    image = boxes[:, 0].nan_to_num(0, 0, 0).clamp(0, values.shape[0] - 1).long()[:, None, None]
    channel = torch.arange(values.shape[1], device=values.device)[:, None]
    where = argmax.flatten(2)
    found = values.flatten(2)[image, channel, where.clamp(min=0).long()]
    return (found * (where >= 0)).reshape(argmax.shape)


# Given argmax the op is linear: a gather, whose transpose is the backward.


def _save(arguments: tuple[Any, ...], outputs: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, ...], Any]:
    input, boxes, _, _, spatial_scale = arguments
    return (boxes, outputs[1]), (*input.shape, spatial_scale)


def _backward(tensors: Any, options: Any, needs: Any, grad_output: Tensor, _: Any) -> tuple[Tensor]:
    return (_roi_pool_backward(grad_output, *tensors, *options),)


def _jvp(tensors: Any, options: Any, tangent: Tensor) -> Any:
    return _gather(tangent, *tensors), None


def _adjoint_gradient(grad: Tensor, shape: Any, boxes: Tensor, argmax: Tensor, *_: Any) -> Tensor:
    return _gather(grad, boxes, argmax)


_roi_pool = define(
    "roi_pool(Tensor input, Tensor boxes, SymInt pooled_height, SymInt pooled_width, float spatial_scale) "
    "-> (Tensor, Tensor)",
    fake=_fake,
    gradient=Gradient(("input",), _save, _backward, _jvp),
    inference="roi_pool_values",
)

_roi_pool_backward = define(
    "roi_pool_backward(Tensor grad_output, Tensor boxes, Tensor argmax, SymInt batch, SymInt channels, SymInt height, "
    "SymInt width, float spatial_scale) -> Tensor",
    fake=_fake_backward,
    adjoint=_adjoint_gradient,
)


def roi_pool(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
) -> Tensor:
    """Take the largest value in each bin of each box (RoIPool).

    Parameters
    ----------
    input : Tensor (N, C, H, W)
        Feature map: float16, bfloat16, float32 or float64, of any strides.
    boxes : Tensor (K, 5) or list of N tensors (L, 4)
        Boxes in pixels of the image: rows of batch index, x1, y1, x2, y2; or one tensor of x1, y1, x2, y2 per image.
        Of a floating dtype; used in float32 (float64 when ``input`` is float64).
    output_size : int or (int, int)
        Bins per box, P and Q (height, width).
    spatial_scale : float
        Pixels of the feature map per pixel of the image, such as 1/16. Scaled coordinates are rounded, half away from
        zero; the pixels at both ends belong to the box.

    Returns
    -------
    Tensor (K, C, P, Q)
        In the dtype of ``input``, and channels_last when ``input`` is. An empty bin gives 0, and so does a box with a
        coordinate that is not finite. NaN is never the largest; a bin without a value above the lowest float32 gives
        that.

    Raises
    ------
    ValueError
        For a tensor of another shape, a size that is not positive, tensors on different devices, or a batch index
        outside [0, N). On CUDA, where looking at the indices would cost a synchronisation, such a box gives zeros.
    TypeError
        For an argument that is not a tensor or of an unsupported dtype.

    Notes
    -----
    Differentiable in ``input``, twice and in forward mode; the gradient goes to the first of equal values and is
    deterministic. ``boxes`` get no gradient. Values are those of ``torchvision.ops.roi_pool``.

    References
    ----------
    Girshick: Fast R-CNN (2015), section 2.1, "The RoI pooling layer".

    Examples
    --------
    >>> features = torch.randn(2, 256, 50, 84)
    >>> boxes = torch.tensor([[0.0, 10.0, 20.0, 300.0, 400.0], [1.0, 0.0, 0.0, 64.0, 64.0]])
    >>> roi_pool(features, boxes, output_size=7, spatial_scale=1 / 16).shape
    torch.Size([2, 256, 7, 7])
    """
    pooled_height, pooled_width = as_pair(output_size, "output_size")
    output: Tensor = _roi_pool(input, as_rois(boxes, input), pooled_height, pooled_width, spatial_scale)[0]
    return output


def __getattr__(name: str) -> Any:
    return found_in_nn(__name__, name, ("RoIPool",))  # the path of torchvision's layer

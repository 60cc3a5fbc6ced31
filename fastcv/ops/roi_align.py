"""RoIAlign: bilinear features of boxes, of one size whatever the size of the box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fastcv import _C
from fastcv.ops._arguments import as_dense, as_pair, as_rois, check_tensor, new_dense, new_pooled
from fastcv.ops._define import Operator

__all__ = ["roi_align"]


def _allocate(input: Tensor, boxes: Tensor, pooled_height: int, pooled_width: int, *_: Any) -> Tensor:
    return new_pooled(input, boxes, pooled_height, pooled_width)


def _forward(
    input: Tensor,
    boxes: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    return _C.roi_align_forward(input, boxes, pooled_height, pooled_width, spatial_scale, sampling_ratio, aligned)


def _allocate_gradient(
    grad_output: Tensor, boxes: Tensor, batch: int, channels: int, height: int, width: int, *_: Any
) -> Tensor:
    return new_dense(grad_output, batch, channels, height, width)


def _forward_gradient(
    grad_output: Tensor,
    boxes: Tensor,
    batch: int,
    channels: int,
    height: int,
    width: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    grad_input = _allocate_gradient(grad_output, boxes, batch, channels, height, width)
    _C.roi_align_backward(grad_input, as_dense(grad_output), boxes, spatial_scale, sampling_ratio, aligned)
    return grad_input


# The op is linear in its input, and each of the pair is the transpose of the other.


def _adjoint(
    grad_output: Tensor, shape: Any, boxes: Tensor, pooled_height: int, pooled_width: int, *sampling: Any
) -> Any:
    return _roi_align_backward(grad_output, boxes, *shape, *sampling)


def _adjoint_gradient(grad: Tensor, shape: Any, boxes: Tensor, *options: Any) -> Any:
    _, _, _, _, *sampling = options
    return _roi_align(grad, boxes, shape[2], shape[3], *sampling)


_roi_align = Operator(
    "roi_align(Tensor input, Tensor boxes, SymInt pooled_height, SymInt pooled_width, float spatial_scale, "
    "int sampling_ratio, bool aligned) -> Tensor",
    forward=_forward,
    fake=_allocate,
    adjoint=_adjoint,
)

_roi_align_backward = Operator(
    "roi_align_backward(Tensor grad_output, Tensor boxes, SymInt batch, SymInt channels, SymInt height, SymInt width, "
    "float spatial_scale, int sampling_ratio, bool aligned) -> Tensor",
    forward=_forward_gradient,
    fake=_allocate_gradient,
    adjoint=_adjoint_gradient,
)


def roi_align(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Average bilinear samples of a feature map over the bins of each box (RoIAlign).

    Parameters
    ----------
    input : Tensor (N, C, H, W)
        Feature map: float16, bfloat16, float32 or float64, of any strides. Sums are kept in float32, or in float64 for
        float64.
    boxes : Tensor (K, 5) or list of N tensors (L, 4)
        Boxes in pixels of the image: rows of batch index, x1, y1, x2, y2; or one tensor of x1, y1, x2, y2 per image.
        Of a floating dtype; used in float32 (float64 when ``input`` is float64).
    output_size : int or (int, int)
        Bins per box, P and Q (height, width).
    spatial_scale : float
        Pixels of the feature map per pixel of the image, such as 1/16.
    sampling_ratio : int
        Samples along each axis of a bin; if not positive, ``ceil(box side / bins)`` of them. At most 65536.
    aligned : bool
        Shift boxes by half a pixel so that they refer to pixel centres, and let them be smaller than a pixel.

    Returns
    -------
    Tensor (K, C, P, Q)
        In the dtype of ``input``, and channels_last when ``input`` is. A box with a coordinate that is not finite, or
        an inverted one where ``aligned``, gives zeros.

    Raises
    ------
    ValueError
        For a tensor of another shape, a size that is not positive, tensors on different devices, or a batch index
        outside [0, N). On CUDA, where looking at the indices would cost a synchronisation, such a box gives zeros.
    TypeError
        For an argument that is no tensor or of an unsupported dtype.

    Notes
    -----
    Differentiable in ``input``, twice and in forward mode; the gradient is deterministic. ``boxes`` get no gradient.
    Values are those of ``torchvision.ops.roi_align``.

    References
    ----------
    He, Gkioxari, Dollár, Girshick: Mask R-CNN (2017), section 3, "RoIAlign".

    Examples
    --------
    >>> features = torch.randn(2, 256, 50, 84)
    >>> boxes = torch.tensor([[0.0, 10.0, 20.0, 300.0, 400.0], [1.0, 0.0, 0.0, 64.0, 64.0]])
    >>> roi_align(features, boxes, output_size=7, spatial_scale=1 / 16, sampling_ratio=2).shape
    torch.Size([2, 256, 7, 7])
    """
    check_tensor(input, "input")
    pooled_height, pooled_width = as_pair(output_size, "output_size")
    rois = as_rois(boxes, input)
    output: Tensor = _roi_align.call(input, rois, pooled_height, pooled_width, spatial_scale, sampling_ratio, aligned)
    return output

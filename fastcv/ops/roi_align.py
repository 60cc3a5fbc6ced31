"""RoIAlign: bilinear features of boxes, of one size whatever the size of the box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fastcv.ops._arguments import as_pair, as_rois
from fastcv.ops._layers import found_in_nn
from fastcv.ops._pooling import define_linear_pooling

__all__ = ["roi_align"]

_roi_align = define_linear_pooling("roi_align", "float spatial_scale, int sampling_ratio, bool aligned")


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
        In the dtype of ``input``, and channels_last when ``input`` is. A box with a coordinate that is not finite gives
        zeros. Where ``aligned``, the result of an inverted box (x2 < x1 or y2 < y1) is mirrored, or zeros where
        ``sampling_ratio`` is not positive.

    Raises
    ------
    ValueError
        For a tensor of another shape, a size that is not positive, tensors on different devices, or a batch index
        outside [0, N). On CUDA, where looking at the indices would cost a synchronisation, such a box gives zeros.
    TypeError
        For an argument that is not a tensor or of an unsupported dtype.

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
    pooled_height, pooled_width = as_pair(output_size, "output_size")
    rois = as_rois(boxes, input)
    output: Tensor = _roi_align(input, rois, pooled_height, pooled_width, spatial_scale, sampling_ratio, aligned)
    return output


def __getattr__(name: str) -> Any:
    return found_in_nn(__name__, name, ("RoIAlign",))  # the path of torchvision's layer

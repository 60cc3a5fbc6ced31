"""Position-sensitive RoIAlign: bilinear features of boxes, every bin from channels of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fastcv.ops._arguments import as_pair, as_rois
from fastcv.ops._layers import found_in_nn
from fastcv.ops._pooling import define_linear_pooling

__all__ = ["ps_roi_align"]

_ps_roi_align = define_linear_pooling(
    "ps_roi_align", "float spatial_scale, int sampling_ratio", position_sensitive=True
)


def ps_roi_align(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
) -> Tensor:
    """Average bilinear samples over bins of boxes, every bin in channels of its own (position-sensitive RoIAlign).

    Channel c of the result at bin (p, q) reads channel (c * P + p) * Q + q of ``input``.

    Parameters
    ----------
    input : Tensor (N, C * P * Q, H, W)
        Score maps: float16, bfloat16, float32 or float64, of any strides. Sums are kept in float32, or in float64 for
        float64.
    boxes : Tensor (K, 5) or list of N tensors (L, 4)
        Boxes in pixels of the image: rows of batch index, x1, y1, x2, y2; or one tensor of x1, y1, x2, y2 per image.
        Of a floating dtype; used in float32 (float64 when ``input`` is float64). Scaled, they refer to pixel centres.
    output_size : int or (int, int)
        Bins per box, P and Q (height, width).
    spatial_scale : float
        Pixels of the score maps per pixel of the image, such as 1/16.
    sampling_ratio : int
        Samples along each axis of a bin; if not positive, ``ceil(box side / bins)`` of them. At most 65536.

    Returns
    -------
    Tensor (K, C, P, Q)
        In the dtype of ``input``, and channels_last when ``input`` is. The result of an inverted box (x2 < x1 or
        y2 < y1) is mirrored. Zeros for a box with a coordinate that is not finite, and for one that is inverted or
        without height or width where ``sampling_ratio`` is not positive.

    Raises
    ------
    ValueError
        For a tensor of another shape, channels that P * Q does not divide, a size that is not positive, tensors on
        different devices, or a batch index outside [0, N). On CUDA, where looking at the indices would cost a
        synchronisation, such a box gives zeros.
    TypeError
        For an argument that is not a tensor or of an unsupported dtype.

    Notes
    -----
    Differentiable in ``input``, twice and in forward mode; the gradient is deterministic. ``boxes`` get no gradient.
    Values are those of ``torchvision.ops.ps_roi_align``, which gives NaN for a box without samples.

    References
    ----------
    Dai, Li, He, Sun: R-FCN (2016), section 2. Li et al.: Light-Head R-CNN (2017).

    Examples
    --------
    >>> scores = torch.randn(2, 10 * 7 * 7, 50, 84)
    >>> boxes = torch.tensor([[0.0, 10.0, 20.0, 300.0, 400.0], [1.0, 0.0, 0.0, 64.0, 64.0]])
    >>> ps_roi_align(scores, boxes, output_size=7, spatial_scale=1 / 16, sampling_ratio=2).shape
    torch.Size([2, 10, 7, 7])
    """
    pooled_height, pooled_width = as_pair(output_size, "output_size")
    rois = as_rois(boxes, input)
    output: Tensor = _ps_roi_align(input, rois, pooled_height, pooled_width, spatial_scale, sampling_ratio)
    return output


def __getattr__(name: str) -> Any:
    return found_in_nn(__name__, name, ("PSRoIAlign",))  # the path of torchvision's layer

"""RoIAlign of rotated boxes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastcv.ops._arguments import as_pair, as_rois
from fastcv.ops._pooling import define_linear_pooling

__all__ = ["roi_align_rotated"]

_roi_align_rotated = define_linear_pooling("roi_align_rotated", "float spatial_scale, int sampling_ratio")


def roi_align_rotated(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
) -> Tensor:
    """Average bilinear samples of a feature map over the bins of each rotated box (RoIAlign).

    Parameters
    ----------
    input : Tensor (N, C, H, W)
        Feature map: float16, bfloat16, float32 or float64, of any strides. Sums are kept in float32, or in float64 for
        float64.
    boxes : Tensor (K, 6) or list of N tensors (L, 5)
        Rows of batch index, cx, cy, w, h, angle; or one tensor of cx, cy, w, h, angle per image. In pixels of the
        image, and in degrees, counter-clockwise as the image is seen (y down). Of a floating dtype; used in float32
        (float64 when ``input`` is float64).
    output_size : int or (int, int)
        Bins per box, P and Q: along h and along w.
    spatial_scale : float
        Pixels of the feature map per pixel of the image, such as 1/16.
    sampling_ratio : int
        Samples along each axis of a bin; if not positive, ``ceil(box side / bins)`` of them. At most 4096.

    Returns
    -------
    Tensor (K, C, P, Q)
        In the dtype of ``input``, and channels_last when ``input`` is. The boxes refer to pixel centres, as those of
        :func:`fastcv.ops.roi_align` with ``aligned=True``: at an angle of 0 the two are the same. A box with a number
        that is not finite, or with a negative side, gives zeros.

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
    Values are those of ``ROIAlignRotated`` of detectron2, which refuses negative sides. mmcv's ``roi_align_rotated``
    takes radians: its angle with ``clockwise=False`` and ``aligned=True`` is ``rad2deg(angle)`` here, with
    ``clockwise=True`` it is ``-rad2deg(angle)``. ``aligned=False`` (no shift by half a pixel) is a shift of the boxes'
    centres by ``0.5 / spatial_scale``, for sides of at least a pixel of the map.

    References
    ----------
    Ma et al.: Arbitrary-Oriented Scene Text Detection via Rotation Proposals (2018).

    Examples
    --------
    >>> features = torch.randn(2, 256, 50, 84)
    >>> boxes = torch.tensor([[0.0, 150.0, 200.0, 300.0, 80.0, 30.0], [1.0, 64.0, 64.0, 32.0, 64.0, -45.0]])
    >>> roi_align_rotated(features, boxes, output_size=7, spatial_scale=1 / 16, sampling_ratio=2).shape
    torch.Size([2, 256, 7, 7])
    """
    pooled_height, pooled_width = as_pair(output_size, "output_size")
    rois = as_rois(boxes, input, 5)
    output: Tensor = _roi_align_rotated(input, rois, pooled_height, pooled_width, spatial_scale, sampling_ratio)
    return output

"""RoIAlign from a feature pyramid: each box from the map that suits its size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fastcv.ops._arguments import as_float, as_floats, as_pair, as_rois, check_tensor, new_dense
from fastcv.ops._define import define

__all__ = ["multiscale_roi_align"]

MAX_LEVELS = 8


def _fake(features: list[Tensor], boxes: Tensor, pooled_height: int, pooled_width: int, *_: Any) -> Tensor:
    return new_dense(features[0], boxes.shape[0], features[0].shape[1], pooled_height, pooled_width)


def _fake_backward(
    grad_output: Tensor, boxes: Tensor, batch: int, channels: int, heights: list[int], widths: list[int], *_: Any
) -> list[Tensor]:
    return [new_dense(grad_output, batch, channels, h, w) for h, w in zip(heights, widths, strict=True)]


# As with roi_align, each of the pair is the transpose of the other.


def _adjoint(grad_output: Tensor, shapes: Any, boxes: Tensor, *options: Any) -> Any:
    _, _, *rest = options
    heights, widths = [shape[2] for shape in shapes], [shape[3] for shape in shapes]
    return _multiscale_roi_align_backward(grad_output, boxes, *shapes[0][:2], heights, widths, *rest)


def _adjoint_gradient(grads: list[Tensor], shape: Any, boxes: Tensor, *options: Any) -> Any:
    _, _, _, _, *rest = options
    return _multiscale_roi_align(grads, boxes, shape[2], shape[3], *rest)


_OPTIONS = (
    "float[] scales, int sampling_ratio, bool aligned, float canonical_scale, int canonical_level, int min_level, "
    "int max_level"
)

_multiscale_roi_align = define(
    f"multiscale_roi_align(Tensor[] features, Tensor boxes, SymInt pooled_height, SymInt pooled_width, {_OPTIONS}) "
    "-> Tensor",
    fake=_fake,
    adjoint=_adjoint,
)

_multiscale_roi_align_backward = define(
    "multiscale_roi_align_backward(Tensor grad_output, Tensor boxes, SymInt batch, SymInt channels, SymInt[] heights, "
    f"SymInt[] widths, {_OPTIONS}) -> Tensor[]",
    fake=_fake_backward,
    adjoint=_adjoint_gradient,
)


def _level_range(scales: tuple[float, ...]) -> tuple[int, int]:
    """Return the levels of the first and of the last map: 2 for a scale of 1/4."""
    for scale in scales:
        if not 0 < scale < math.inf:
            raise ValueError(f"scales must be positive and finite, got {scales}")
    # Rounded, so that a scale that is a power of two but for rounding errors counts as one.
    lowest, highest = (int(round(-math.log2(scale), 6)) for scale in (scales[0], scales[-1]))
    if lowest > highest:
        raise ValueError(f"scales must go from the finest map to the coarsest, got {scales}")
    return lowest, highest


def multiscale_roi_align(
    features: Sequence[Tensor],
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    scales: Sequence[float],
    sampling_ratio: int = -1,
    aligned: bool = False,
    canonical_scale: float = 224,
    canonical_level: int = 4,
) -> Tensor:
    """Average bilinear samples over the bins of each box, from the map of a pyramid that suits its size.

    Parameters
    ----------
    features : list of Tensor (N, C, H_l, W_l)
        One map per level, from the finest to the coarsest, at most 8: float16, bfloat16, float32 or float64, all of one
        dtype, of any strides.
    boxes : Tensor (K, 5) or list of N tensors (L, 4)
        Boxes in pixels of the image, as for :func:`roi_align`.
    output_size : int or (int, int)
        Bins per box, P and Q (height, width).
    scales : list of float
        Pixels of each map per pixel of the image, such as ``[1/4, 1/8, 1/16, 1/32]``: powers of two, in descending
        order.
    sampling_ratio : int
        Samples along each axis of a bin; if not positive, ``ceil(box side / bins)`` of them. At most 65536.
    aligned : bool
        Shift boxes by half a pixel so that they refer to pixel centres, and let them be smaller than a pixel.
    canonical_scale : float
        Side in pixels of the box that belongs to ``canonical_level``.
    canonical_level : int
        A map of scale ``2 ** -k`` is of level k. The level of a box is
        ``floor(canonical_level + log2(sqrt(area) / canonical_scale) + 1e-6)``, between the levels of the first and of
        the last map.

    Returns
    -------
    Tensor (K, C, P, Q)
        In the order of the boxes, in the dtype of the features, and channels_last when ``features[0]`` is. A box with a
        coordinate that is not finite gives zeros, and so does one that is inverted along one axis or belongs to a level
        without a map (as with scales ``[1/4, 1/16]``); a single map serves every box.

    Raises
    ------
    ValueError
        For a tensor of another shape, a size or scale that is not positive, scales that ascend, tensors on different
        devices, or a batch index outside [0, N). On CUDA, where looking at the indices would cost a synchronisation,
        such a box gives zeros.
    TypeError
        For an argument that is not a tensor or of an unsupported dtype.

    Notes
    -----
    One launch and no synchronisation on CUDA. Differentiable in ``features``, twice and in forward mode; the gradient
    is deterministic. ``boxes`` get no gradient. Values are those of ``torchvision.ops.MultiScaleRoIAlign``.

    References
    ----------
    Lin, Dollár, Girshick, He, Hariharan, Belongie: Feature Pyramid Networks for Object Detection (2017), section 4.2.

    Examples
    --------
    >>> features = [torch.randn(1, 256, 200 // 2**i, 336 // 2**i) for i in range(4)]
    >>> boxes = [torch.tensor([[10.0, 20.0, 300.0, 400.0], [0.0, 0.0, 64.0, 64.0]])]
    >>> multiscale_roi_align(features, boxes, 7, [1 / 4, 1 / 8, 1 / 16, 1 / 32], sampling_ratio=2).shape
    torch.Size([2, 256, 7, 7])
    """
    if not isinstance(features, list | tuple):
        raise TypeError(f"features must be a list of tensors, got {type(features).__name__}")
    features = list(features)
    for level, feature in enumerate(features):
        check_tensor(feature, f"features[{level}]")
    if not 1 <= len(features) <= MAX_LEVELS:
        raise ValueError(f"features must hold 1 to {MAX_LEVELS} tensors, got {len(features)}")
    scales = as_floats(scales, len(features), "scales")
    canonical_scale = as_float(canonical_scale, "canonical_scale")
    if not canonical_scale > 0:
        raise ValueError(f"canonical_scale must be positive, got {canonical_scale}")
    levels = _level_range(scales)
    pooled_height, pooled_width = as_pair(output_size, "output_size")
    rois = as_rois(boxes, features[0])
    mapping = (canonical_scale, canonical_level, *levels)
    output: Tensor = _multiscale_roi_align(
        features, rois, pooled_height, pooled_width, list(scales), sampling_ratio, aligned, *mapping
    )
    return output

"""Non-maximum suppression: the boxes that no better-scored box covers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcv.ops._define import define, size_from_data

__all__ = ["batched_nms", "batched_nms_padded", "batched_nms_rotated", "nms", "nms_rotated"]


def _fake(boxes: Tensor, *_: Any) -> Tensor:
    return boxes.new_empty((size_from_data(boxes),), dtype=torch.int64)


def _fake_padded(
    boxes: Tensor, scores: Tensor, idxs: Tensor | None, iou_threshold: float, max_output: int
) -> tuple[Tensor, Tensor]:
    images = boxes.shape[:-2]
    return boxes.new_empty((*images, max_output), dtype=torch.int64), boxes.new_empty(images, dtype=torch.int64)


_nms = define("nms(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor", fake=_fake)

_batched_nms = define(
    "batched_nms(Tensor boxes, Tensor scores, Tensor idxs, float iou_threshold) -> Tensor", fake=_fake
)

_nms_rotated = define("nms_rotated(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor", fake=_fake)

_batched_nms_rotated = define(
    "batched_nms_rotated(Tensor boxes, Tensor scores, Tensor idxs, float iou_threshold) -> Tensor", fake=_fake
)

_batched_nms_padded = define(
    "batched_nms_padded(Tensor boxes, Tensor scores, Tensor? idxs, float iou_threshold, SymInt max_output) "
    "-> (Tensor, Tensor)",
    fake=_fake_padded,
)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Keep the boxes that overlap no better-scored kept box by more than a threshold (greedy NMS).

    Parameters
    ----------
    boxes : Tensor (N, 4)
        Rows of x1, y1, x2, y2 in pixels: float16, bfloat16, float32 or float64, of any strides.
    scores : Tensor (N,)
        Of any floating dtype. NaN counts as less than any number.
    iou_threshold : float
        In [0, 1]. A box is dropped when its IoU with a kept one is greater.

    Returns
    -------
    Tensor (K,)
        int64: indices of the kept boxes by descending score, equal scores by ascending index.

    Raises
    ------
    ValueError
        For a tensor of another shape, a threshold outside [0, 1] or tensors on different devices.
    TypeError
        For an argument that is not a tensor or of an unsupported dtype.

    Notes
    -----
    Index for index the result of ``torchvision.ops.nms`` in float32 and float64, on every device and for every number
    of threads. float16 and bfloat16 boxes are compared in float32, where torchvision's CUDA kernel rounds areas and
    intersections to half precision: near the threshold it may decide otherwise. Boxes with NaN neither suppress nor are
    suppressed; torchvision sorts NaN scores first, here they come last.

    The extra memory is O(N). On CUDA the call waits for the device once, for the size of the result:
    :func:`batched_nms_padded` does not. Under ``torch.compile(fullgraph=True)`` the size needs
    ``torch._dynamo.config.capture_dynamic_output_shape_ops = True``.

    References
    ----------
    Felzenszwalb, Girshick, McAllester, Ramanan: Object Detection with Discriminatively Trained Part-Based Models
    (2010), section 7.2.

    Examples
    --------
    >>> boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]])
    >>> nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)
    tensor([0, 2])
    """
    kept: Tensor = _nms(boxes, scores, iou_threshold)
    return kept


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Non-maximum suppression in which boxes suppress only boxes of their own class.

    Parameters
    ----------
    boxes, scores, iou_threshold
        As in :func:`nms`.
    idxs : Tensor (N,)
        Class of each box: any numbers of a real dtype. int64 and int32 are read where they are.

    Returns
    -------
    Tensor (K,)
        int64: indices of the kept boxes of all classes by descending score, equal scores by ascending index.

    Raises
    ------
    ValueError, TypeError
        As :func:`nms` does.

    Notes
    -----
    Classes are compared as they are. ``torchvision.ops.batched_nms`` moves each class by an offset made of the largest
    coordinate instead, which loses digits and, where coordinates are negative, lets classes overlap; the result here is
    that of its loop over classes.

    Examples
    --------
    >>> boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [1, 0, 11, 10]])
    >>> batched_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([3, 5, 3]), 0.5)
    tensor([0, 1])
    """
    kept: Tensor = _batched_nms(boxes, scores, idxs, iou_threshold)
    return kept


def batched_nms_padded(
    boxes: Tensor, scores: Tensor, idxs: Tensor | None, iou_threshold: float, max_output: int
) -> tuple[Tensor, Tensor]:
    """:func:`batched_nms` with a result of fixed size: no synchronisation, and good for CUDA graphs.

    Parameters
    ----------
    boxes : Tensor (N, 4) or (B, N, 4)
        Boxes of one image or of B images, as in :func:`nms`.
    scores : Tensor (N,) or (B, N)
        As in :func:`nms`.
    idxs : Tensor (N,) or (B, N) or None
        Class of each box, as in :func:`batched_nms`; None when there is one class only.
    iou_threshold : float
        As in :func:`nms`.
    max_output : int
        M, the number of indices returned per image.

    Returns
    -------
    indices : Tensor (M,) or (B, M)
        int64: indices into N of the kept boxes by descending score, the best M where there are more, then -1.
    count : Tensor () or (B,)
        int64: how many of ``indices`` are not -1.

    Raises
    ------
    ValueError, TypeError
        As :func:`nms` does; ValueError for a negative ``max_output``.

    Examples
    --------
    >>> boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]])
    >>> batched_nms_padded(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 0]), 0.5, 4)
    (tensor([ 0,  2, -1, -1]), tensor(2))
    """
    indices, count = _batched_nms_padded(boxes, scores, idxs, iou_threshold, max_output)
    return indices, count


def nms_rotated(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """:func:`nms` of rotated boxes.

    Parameters
    ----------
    boxes : Tensor (N, 5)
        Rows of cx, cy, w, h, angle: centre and sides in pixels, the angle in degrees, counter-clockwise as an image is
        seen; as in :func:`box_iou_rotated`. float16, bfloat16, float32 or float64, of any strides.
    scores : Tensor (N,)
        Of any floating dtype. NaN counts as less than any number.
    iou_threshold : float
        In [0, 1]. A box is dropped when its IoU with a kept one is greater.

    Returns
    -------
    Tensor (K,)
        int64: indices of the kept boxes by descending score, equal scores by ascending index.

    Raises
    ------
    ValueError, TypeError
        As :func:`nms` does.

    Notes
    -----
    The meaning is that of detectron2's ``nms_rotated``. Boxes without area, or with a number that is not finite,
    neither suppress nor are suppressed. float64 boxes are decided in float64, others in float32, alike on all devices.
    The extra memory is O(N). On CUDA the call waits for the device once.

    Examples
    --------
    >>> boxes = torch.tensor([[5.0, 5, 10, 2, 0], [5, 5, 10, 2, 90], [5, 5, 10, 2, 175]])
    >>> nms_rotated(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)
    tensor([0, 1])
    """
    kept: Tensor = _nms_rotated(boxes, scores, iou_threshold)
    return kept


def batched_nms_rotated(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """:func:`nms_rotated` in which boxes suppress only boxes of their own class.

    Parameters
    ----------
    boxes, scores, iou_threshold
        As in :func:`nms_rotated`.
    idxs : Tensor (N,)
        Class of each box: of any real dtype. Classes are compared as they are; detectron2 moves each by an
        offset instead.

    Returns
    -------
    Tensor (K,)
        int64: indices of the kept boxes of all classes by descending score, equal scores by ascending index.

    Raises
    ------
    ValueError, TypeError
        As :func:`nms` does.

    Examples
    --------
    >>> boxes = torch.tensor([[5.0, 5, 10, 2, 0], [5, 5, 10, 2, 3], [5, 5, 10, 2, 175]])
    >>> batched_nms_rotated(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([3, 5, 3]), 0.5)
    tensor([0, 1])
    """
    kept: Tensor = _batched_nms_rotated(boxes, scores, idxs, iou_threshold)
    return kept

"""Non-maximum suppression: the boxes that no better-scored box covers."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcv import _C
from fastcv.ops._arguments import check_tensor, describe_shape
from fastcv.ops._define import Operator

__all__ = ["batched_nms", "batched_nms_padded", "nms"]

_FLOATING = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_INTEGER = frozenset({torch.int32, torch.int64})


def _check(boxes: Tensor, scores: Tensor, idxs: Tensor | None, iou_threshold: float, rank: int) -> None:
    """The checks of the bindings, for tensors without memory."""
    if boxes.dim() != rank or boxes.shape[-1] != 4:
        raise ValueError(f"boxes must have shape {'(N, 4)' if rank == 2 else '(B, N, 4)'}, got {describe_shape(boxes)}")
    if boxes.dtype not in _FLOATING:
        raise TypeError(f"boxes must be float16, bfloat16, float32 or float64, got {boxes.dtype}")
    if scores.dtype not in _FLOATING:
        raise TypeError(f"scores must be float16, bfloat16, float32 or float64, got {scores.dtype}")
    if idxs is not None and idxs.dtype not in _INTEGER:
        raise TypeError(f"idxs must be int64 or int32, got {idxs.dtype}")
    for name, tensor in (("scores", scores), ("idxs", idxs)):
        if tensor is None:
            continue
        if tensor.dim() != rank - 1:
            raise ValueError(f"{name} must have shape {tuple(boxes.shape[:-1])}, got {describe_shape(tensor)}")
        for size, expected in zip(tensor.shape, boxes.shape, strict=False):
            torch._check_value(size == expected, f"{name} must have one element per box".__str__)
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be in [0, 1], got {iou_threshold}")


def _fill(kept: Tensor, count: Tensor, boxes: Tensor, scores: Tensor, idxs: Tensor | None, threshold: float) -> None:
    """Write the padded result; on CUDA, sort first. No synchronisation."""
    if not boxes.is_cuda and _C.has_cpu_kernels:
        _C.nms_padded(kept, count, boxes, scores, idxs, threshold, None, None, None, None)
        return
    _check(boxes, scores, idxs, threshold, boxes.dim())
    # Ascending by the negative, NaN last. Sorts by bits know several NaN and two zeros: here is one of each.
    descending = (0 - scores.contiguous()).masked_fill(scores.isnan(), float("nan"))
    order = descending.sort(dim=-1, stable=True).indices
    classes = places = None
    if idxs is not None:
        classes, places = idxs.gather(-1, order).long().sort(dim=-1, stable=True)
    bytes_per_box = 48 if boxes.dtype is torch.float64 else 28  # nms_workspace_bytes
    workspace = boxes.new_empty((bytes_per_box * order.numel(),), dtype=torch.uint8)
    _C.nms_padded(kept, count, boxes, scores, idxs, threshold, order, places, classes, workspace)


def _forward(boxes: Tensor, scores: Tensor, idxs: Tensor | None, iou_threshold: float) -> Tensor:
    if boxes.is_cpu and _C.has_cpu_kernels:
        return _C.nms(boxes, scores, idxs, iou_threshold)
    _check(boxes, scores, idxs, iou_threshold, 2)
    kept = scores.new_empty((scores.numel(),), dtype=torch.int64)
    counts = boxes.new_empty((), dtype=torch.int64)
    _fill(kept, counts, boxes, scores, idxs, iou_threshold)
    return kept.narrow(0, 0, int(counts))  # the one synchronisation: the result's size depends on the data


def _fake(boxes: Tensor, scores: Tensor, idxs: Tensor | None, iou_threshold: float) -> Tensor:
    _check(boxes, scores, idxs, iou_threshold, 2)
    count = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty((count,), dtype=torch.int64)


def _allocate_padded(
    boxes: Tensor, scores: Tensor, idxs: Tensor | None, iou_threshold: float, max_output: int
) -> tuple[Tensor, Tensor]:
    if boxes.dim() not in (2, 3):
        raise ValueError(f"boxes must have shape (N, 4) or (B, N, 4), got {describe_shape(boxes)}")
    if max_output < 0:
        raise ValueError(f"max_output must not be negative, got {max_output}")
    _check(boxes, scores, idxs, iou_threshold, boxes.dim())
    images = boxes.shape[:-2]
    return boxes.new_empty((*images, max_output), dtype=torch.int64), boxes.new_empty(images, dtype=torch.int64)


def _forward_padded(
    boxes: Tensor, scores: Tensor, idxs: Tensor | None, iou_threshold: float, max_output: int
) -> tuple[Tensor, Tensor]:
    kept, count = _allocate_padded(boxes, scores, idxs, iou_threshold, max_output)
    _fill(kept, count, boxes, scores, idxs, iou_threshold)
    return kept, count


_nms = Operator(
    "nms(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor",
    forward=lambda boxes, scores, iou_threshold: _forward(boxes, scores, None, iou_threshold),
    fake=lambda boxes, scores, iou_threshold: _fake(boxes, scores, None, iou_threshold),
)

_batched_nms = Operator(
    "batched_nms(Tensor boxes, Tensor scores, Tensor idxs, float iou_threshold) -> Tensor",
    forward=_forward,
    fake=_fake,
)

_batched_nms_padded = Operator(
    "batched_nms_padded(Tensor boxes, Tensor scores, Tensor? idxs, float iou_threshold, SymInt max_output) "
    "-> (Tensor, Tensor)",
    forward=_forward_padded,
    fake=_allocate_padded,
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
        For an argument that is no tensor or of an unsupported dtype.

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
    check_tensor(boxes, "boxes")
    check_tensor(scores, "scores")
    kept: Tensor = _nms.call(boxes, scores, iou_threshold)
    return kept


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Non-maximum suppression in which boxes suppress only boxes of their own class.

    Parameters
    ----------
    boxes, scores, iou_threshold
        As in :func:`nms`.
    idxs : Tensor (N,)
        Class of each box: int64 or int32, any values.

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
    check_tensor(boxes, "boxes")
    check_tensor(scores, "scores")
    check_tensor(idxs, "idxs")
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
        Class of each box, int64 or int32; None when there is one class only.
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
    check_tensor(boxes, "boxes")
    check_tensor(scores, "scores")
    if idxs is not None:
        check_tensor(idxs, "idxs")
    indices, count = _batched_nms_padded(boxes, scores, idxs, iou_threshold, max_output)
    return indices, count

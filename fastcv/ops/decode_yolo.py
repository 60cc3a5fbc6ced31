"""The heads of YOLO, decoded into candidates for non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastcv.ops._arguments import as_floats, as_size
from fastcv.ops._define import define

__all__ = ["decode_yolo", "decode_yolo_v1"]

_MOST_ANCHORS = 32

Candidates = tuple[Tensor, Tensor, Tensor, Tensor]


def _fake(output: Tensor, capacity: int) -> Candidates:
    images = output.shape[0]
    dtype = torch.float64 if output.dtype is torch.float64 else torch.float32
    return (
        output.new_empty((images, capacity, 4), dtype=dtype),
        output.new_empty((images, capacity), dtype=dtype),
        output.new_empty((images, capacity), dtype=torch.int64),
        output.new_empty((images,), dtype=torch.int64),
    )


def _fake_anchors(
    output: Tensor, anchors: Any, image_size: Any, threshold: Any, max_output: int, *_: Any
) -> Candidates:
    return _fake(output, max_output)


def _fake_v1(
    output: Tensor, side: Any, boxes: Any, image_size: Any, threshold: Any, max_output: int, *_: Any
) -> Candidates:
    return _fake(output, max_output)


_RESULTS = "-> (Tensor, Tensor, Tensor, Tensor)"

_decode_yolo = define(
    "decode_yolo(Tensor output, float[] anchors, SymInt[] image_size, float score_threshold, SymInt max_output, "
    f"bool softmax, float scale_xy) {_RESULTS}",
    fake=_fake_anchors,
)

_decode_yolo_v1 = define(
    "decode_yolo_v1(Tensor output, SymInt side, SymInt boxes, SymInt[] image_size, float score_threshold, "
    f"SymInt max_output, bool softmax, bool square) {_RESULTS}",
    fake=_fake_v1,
)


def decode_yolo(
    output: Tensor,
    anchors: Sequence[Sequence[float]],
    image_size: Sequence[int],
    score_threshold: float,
    max_output: int,
    softmax: bool = False,
    scale_xy: float = 1.0,
) -> Candidates:
    """Decode a map of YOLO's versions 2 and 3 into the candidates whose score is high enough.

    The table of all scores, boxes × classes, is never made: nearly all boxes end at one look at their confidence.

    Parameters
    ----------
    output : Tensor (N, A (5 + K), H, W)
        Per anchor x, y, w, h, confidence and K classes, as the last convolution gives them. float16, bfloat16, float32
        or float64, of any strides, such as channels_last. Half types are computed in float32.
    anchors : sequence of (width, height)
        The A anchors of this map in pixels, 1 to 32.
    image_size : (height, width)
        Of the network's input in pixels.
    score_threshold : float
        Least score, at least 0.
    max_output : int
        M, the number of candidates returned per image.
    softmax : bool
        Whether the classes have a softmax (version 2); else each is logistic (version 3).
    scale_xy : float
        By how much the range of a centre goes beyond its cell, ``scale_x_y`` of Darknet; 1 for not at all.

    Returns
    -------
    boxes : Tensor (N, M, 4)
        x1, y1, x2, y2 in pixels of the network's input: float64 for float64, else float32. 0 behind the last.
    scores : Tensor (N, M)
        Confidence times class, in the dtype of ``boxes``. Minus infinity behind the last.
    labels : Tensor (N, M)
        int64, from 0. -1 behind the last.
    count : Tensor (N,)
        int64: how many candidates there are, at most M.

    Raises
    ------
    ValueError
        For a tensor of another shape, anchors or an ``image_size`` that do not fit, or a negative number.
    TypeError
        For an argument that is not a tensor or of an unsupported dtype.

    Notes
    -----
    A candidate is a box and a class, so a box can be several. They come in the order row, column, anchor, class; where
    there are more than M, the M best stay, of equal scores the first. A NaN is no candidate. Nothing waits for the
    device, so it is good for CUDA graphs; :func:`batched_nms_padded` takes the result as it is. Without gradient.

    References
    ----------
    Redmon, Farhadi: YOLO9000: Better, Faster, Stronger (2016), section 2; YOLOv3: An Incremental Improvement (2018),
    section 2.1.

    Examples
    --------
    >>> output = torch.tensor([0.0, 0.0, 0.0, 0.0, 9.0, -9.0, 9.0]).view(1, 7, 1, 1)
    >>> boxes, scores, labels, count = decode_yolo(output, [(10, 20)], (32, 32), 0.5, 2)
    >>> boxes[0]
    tensor([[11.,  6., 21., 26.],
            [ 0.,  0.,  0.,  0.]])
    >>> labels[0], count
    (tensor([ 1, -1]), tensor([1]))
    """
    if not isinstance(anchors, list | tuple):
        raise TypeError(f"anchors must be a sequence of pairs (width, height), got {type(anchors).__name__}")
    if len(anchors) > _MOST_ANCHORS:  # the compiled function takes no longer list of numbers
        raise ValueError(f"anchors must hold at most {_MOST_ANCHORS} pairs (width, height), got {len(anchors)}")
    numbers: list[float] = []
    for index, anchor in enumerate(anchors):
        numbers += as_floats(anchor, 2, f"anchors[{index}]", "(width, height)")
    size = list(as_size(image_size, "image_size"))
    boxes, scores, labels, count = _decode_yolo(output, numbers, size, score_threshold, max_output, softmax, scale_xy)
    return boxes, scores, labels, count


def decode_yolo_v1(
    output: Tensor,
    side: int,
    boxes: int,
    image_size: Sequence[int],
    score_threshold: float,
    max_output: int,
    softmax: bool = False,
    square: bool = True,
) -> Candidates:
    """Decode the numbers of YOLO's first version into the candidates whose score is high enough.

    Parameters
    ----------
    output : Tensor (N, S S (K + 5 B))
        As Darknet orders them: the K classes of all cells, the confidences of all boxes, their x, y, w, h. Dtypes and
        strides as in :func:`decode_yolo`.
    side : int
        S, the cells of a row.
    boxes : int
        B, the boxes of a cell, 1 to 32; they share its classes.
    image_size, score_threshold, max_output
        As in :func:`decode_yolo`.
    softmax : bool
        Whether the classes have a softmax; else they are probabilities already.
    square : bool
        Whether w and h are square roots of the parts of the image; else negative ones count as 0.

    Returns
    -------
    boxes, scores, labels, count
        As in :func:`decode_yolo`, in the order row, column, box, class.

    Raises
    ------
    ValueError, TypeError
        As :func:`decode_yolo` does.

    References
    ----------
    Redmon, Divvala, Girshick, Farhadi: You Only Look Once: Unified, Real-Time Object Detection (2016), section 2.
    """
    size = list(as_size(image_size, "image_size"))
    found, scores, labels, count = _decode_yolo_v1(
        output, side, boxes, size, score_threshold, max_output, softmax, square
    )
    return found, scores, labels, count

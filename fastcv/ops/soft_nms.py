"""Soft-NMS: overlapping boxes lose score instead of being dropped."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcv import _C
from fastcv.ops._arguments import check_tensor, describe_shape
from fastcv.ops._define import Operator

__all__ = ["soft_nms"]

_FLOATING = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_PADDING = 16  # kSoftNmsPadding


def _forward(
    boxes: Tensor, scores: Tensor, iou_threshold: float, sigma: float, min_score: float, gaussian: bool
) -> tuple[Tensor, Tensor]:
    count = scores.numel()
    wanted = torch.float64 if boxes.dtype is torch.float64 else torch.float32
    kept = scores.new_empty((count,), dtype=torch.int64)
    kept_scores = scores.new_empty((count,))
    taken = scores.new_empty((), dtype=torch.int64)
    workspace = boxes.new_empty((7, (count + _PADDING - 1) // _PADDING * _PADDING), dtype=wanted)
    _C.soft_nms(kept, kept_scores, taken, workspace, boxes, scores, iou_threshold, sigma, min_score, gaussian)
    size = int(taken)  # the one synchronisation: the result's size depends on the data
    return kept[:size], kept_scores[:size]


def _fake(
    boxes: Tensor, scores: Tensor, iou_threshold: float, sigma: float, min_score: float, gaussian: bool
) -> tuple[Tensor, Tensor]:
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must have shape (N, 4), got {describe_shape(boxes)}")
    if scores.dim() != 1:
        raise ValueError(f"scores must have shape (N,), got {describe_shape(scores)}")
    torch._check_value(scores.shape[0] == boxes.shape[0], "scores must have one element per box".__str__)
    if boxes.dtype not in _FLOATING:
        raise TypeError(f"boxes must be float16, bfloat16, float32 or float64, got {boxes.dtype}")
    if scores.dtype is not boxes.dtype:
        raise TypeError(f"scores must have the dtype of boxes ({boxes.dtype}), got {scores.dtype}")
    size = torch.library.get_ctx().new_dynamic_size()
    return scores.new_empty((size,), dtype=torch.int64), scores.new_empty((size,))


_soft_nms = Operator(
    "soft_nms(Tensor boxes, Tensor scores, float iou_threshold, float sigma, float min_score, bool gaussian) "
    "-> (Tensor, Tensor)",
    forward=_forward,
    fake=_fake,
)


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: str = "linear",
) -> tuple[Tensor, Tensor]:
    """Take boxes by descending score, lowering the scores of those that overlap a box taken before (Soft-NMS).

    Parameters
    ----------
    boxes : Tensor (N, 4)
        Rows of x1, y1, x2, y2 in pixels: float16, bfloat16, float32 or float64, of any strides.
    scores : Tensor (N,)
        In the dtype of ``boxes``.
    iou_threshold : float
        In [0, 1]; for ``"linear"``: only greater overlaps lower a score.
    sigma : float
        Positive; for ``"gaussian"``: the larger, the less is lost.
    min_score : float
        Not negative. Boxes whose score is, or becomes, less than this are dropped, and so are scores of NaN.
    method : str
        ``"linear"``: with overlap o, scores are multiplied by 1 - o. ``"gaussian"``: by exp(-o² / sigma).

    Returns
    -------
    kept : Tensor (K,)
        int64: indices of the boxes in the order in which they were taken; equal scores by ascending index.
    kept_scores : Tensor (K,)
        The scores with which they were taken, descending, in the dtype of ``scores``.

    Raises
    ------
    ValueError
        For a tensor of another shape, a parameter outside its range or another method, or tensors on different devices.
    TypeError
        For an argument that is no tensor or of an unsupported dtype.

    Notes
    -----
    float16 and bfloat16 are computed in float32. The result is the same, bit for bit, on every device. Time grows with
    N K. Not differentiable. Under ``torch.compile(fullgraph=True)`` the size of the result needs
    ``torch._dynamo.config.capture_dynamic_output_shape_ops = True``.

    References
    ----------
    Bodla, Singh, Chellappa, Davis: Soft-NMS -- Improving Object Detection With One Line of Code (2017), section 3.

    Examples
    --------
    >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [20, 20, 30, 30]])
    >>> soft_nms(boxes, torch.tensor([0.9, 0.8, 0.7]))
    (tensor([0, 2, 1]), tensor([0.9000, 0.7000, 0.4000]))
    """
    check_tensor(boxes, "boxes")
    check_tensor(scores, "scores")
    if method not in ("linear", "gaussian"):
        raise ValueError(f"method must be 'linear' or 'gaussian', got {method!r}")
    if boxes.dtype not in _FLOATING:
        raise TypeError(f"boxes must be float16, bfloat16, float32 or float64, got {boxes.dtype}")
    kept, kept_scores = _soft_nms(boxes, scores, iou_threshold, sigma, min_score, method == "gaussian")
    return kept, kept_scores

"""Soft-NMS: overlapping boxes lose score instead of being dropped."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcv.ops._define import define, size_from_data

__all__ = ["soft_nms"]


def _fake(boxes: Tensor, scores: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    size = size_from_data(boxes)
    return scores.new_empty((size,), dtype=torch.int64), scores.new_empty((size,))


_soft_nms = define(
    "soft_nms(Tensor boxes, Tensor scores, float iou_threshold, float sigma, float min_score, bool gaussian) "
    "-> (Tensor, Tensor)",
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
        For an argument that is not a tensor or of an unsupported dtype.

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
    if method not in ("linear", "gaussian"):
        raise ValueError(f"method must be 'linear' or 'gaussian', got {method!r}")
    kept, kept_scores = _soft_nms(boxes, scores, iou_threshold, sigma, min_score, method == "gaussian")
    return kept, kept_scores

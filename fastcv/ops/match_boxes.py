"""Assignment of ground truth to candidate boxes by overlap."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcv.ops._define import define

__all__ = ["match_boxes"]


def _fake(gt: Tensor, candidates: Tensor, *_: Any) -> Tensor:
    return candidates.new_empty((candidates.shape[0],), dtype=torch.int64)


_match_boxes = define(
    "match_boxes(Tensor gt, Tensor candidates, float high_threshold, float low_threshold, "
    "bool allow_low_quality_matches) -> Tensor",
    fake=_fake,
)


def match_boxes(
    gt: Tensor,
    candidates: Tensor,
    high_threshold: float,
    low_threshold: float,
    allow_low_quality_matches: bool = False,
) -> Tensor:
    """Assign to each candidate box the ground-truth box that overlaps it most, or tell that none does.

    Intersection over union and its maxima in one pass: the (N, M) matrix is never stored.

    Parameters
    ----------
    gt : Tensor (N, 4)
        Ground-truth boxes x1, y1, x2, y2: float16, bfloat16, float32 or float64. Half types are compared in float32.
    candidates : Tensor (M, 4)
        Anchors or proposals, of any of these dtypes. Different ones are compared in float32, or in float64 where one is
        float64.
    high_threshold : float
        Overlap from which on a candidate is matched.
    low_threshold : float
        Overlap below which it counts as background; not above ``high_threshold``.
    allow_low_quality_matches : bool
        Also match the candidates that overlap any ground-truth box as much as no other candidate does (ties
        included), each to the box that it overlaps most itself. As in torchvision, a box that nothing overlaps
        matches every candidate whose overlap with it is zero.

    Returns
    -------
    Tensor (M,), int64
        Index of the matched ground-truth box (the lowest of equals); -1 below ``low_threshold``, -2 between the
        thresholds.

    Raises
    ------
    ValueError
        For a tensor of another shape, thresholds in the wrong order, or tensors on different devices.
    TypeError
        For an argument that is not a tensor, or of an unsupported dtype.

    Notes
    -----
    The result is that of ``torchvision.models.detection._utils.Matcher(high_threshold, low_threshold,
    allow_low_quality_matches)(torchvision.ops.box_iou(gt, candidates))``, bit for bit and on every device, with two
    exceptions: empty input is valid (without ground truth every candidate gets -1), and where one dtype is float64 the
    areas of both are. An overlap that is NaN (from a NaN coordinate, or between two boxes without area) counts as
    greater than all numbers and reaches every threshold.

    References
    ----------
    Ren, He, Girshick, Sun: Faster R-CNN (2015), section 3.1.2.

    Examples
    --------
    >>> gt = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    >>> candidates = torch.tensor([[0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 10.0, 5.0], [20.0, 20.0, 30.0, 30.0]])
    >>> match_boxes(gt, candidates, 0.7, 0.3)
    tensor([ 0, -2, -1])
    """
    matches: Tensor = _match_boxes(gt, candidates, high_threshold, low_threshold, allow_low_quality_matches)
    return matches

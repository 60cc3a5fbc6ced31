"""Assignment of ground truth to candidate boxes by overlap."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcv import _C
from fastcv.ops._arguments import check_tensor, describe_shape, new_strided
from fastcv.ops._define import Operator

__all__ = ["match_boxes"]


def _allocate(gt: Tensor, candidates: Tensor, *_: Any) -> Tensor:
    if gt.dim() != 2 or gt.shape[1] != 4:
        raise ValueError(f"gt must have shape (N, 4), got {describe_shape(gt)}")
    if candidates.dim() != 2 or candidates.shape[1] != 4:
        raise ValueError(f"candidates must have shape (M, 4), got {describe_shape(candidates)}")
    return new_strided(candidates, (candidates.shape[0],), (1,), torch.int64)


def _forward(
    gt: Tensor, candidates: Tensor, high_threshold: float, low_threshold: float, allow_low_quality_matches: bool
) -> Tensor:
    matches = _allocate(gt, candidates)
    workspace = new_strided(matches, (gt.shape[0],), (1,), torch.int64) if allow_low_quality_matches else matches
    _C.match_boxes(
        matches,
        gt.contiguous(),
        candidates.contiguous(),
        workspace,
        high_threshold,
        low_threshold,
        allow_low_quality_matches,
    )
    return matches


_match_boxes = Operator(
    "match_boxes(Tensor gt, Tensor candidates, float high_threshold, float low_threshold, "
    "bool allow_low_quality_matches) -> Tensor",
    forward=_forward,
    fake=_allocate,
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
        Anchors or proposals, of the same dtype.
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
        For an argument that is no tensor, or of an unsupported dtype.

    Notes
    -----
    The result is that of ``torchvision.models.detection._utils.Matcher(high_threshold, low_threshold,
    allow_low_quality_matches)(torchvision.ops.box_iou(gt, candidates))``, bit for bit and on every device, except that
    empty input is valid: without ground truth every candidate gets -1. An overlap that is NaN (from a NaN coordinate,
    or between two boxes without area) counts as greater than all numbers and reaches every threshold.

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
    check_tensor(gt, "gt")
    check_tensor(candidates, "candidates")
    if not low_threshold <= high_threshold:
        raise ValueError(
            f"low_threshold must not be greater than high_threshold, got {low_threshold} and {high_threshold}"
        )
    matches: Tensor = _match_boxes.call(gt, candidates, high_threshold, low_threshold, allow_low_quality_matches)
    return matches

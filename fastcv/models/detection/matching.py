"""Matching of boxes to objects and coding of boxes, with the classes and methods that torchvision's detectors have."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastcv.ops.box_coding import decode_boxes, encode_boxes
from fastcv.ops.box_iou import box_iou
from fastcv.ops.match_boxes import match_boxes

__all__ = ["BoxCoder", "Matcher", "is_unchanged", "match"]


class BoxCoder:
    """Boxes as offsets from others and back. A drop-in for torchvision's.

    Parameters
    ----------
    weights, bbox_xform_clip
        As in :func:`fastcv.ops.decode_boxes`.
    """

    def __init__(self, weights: Sequence[float], bbox_xform_clip: float = math.log(1000.0 / 16)) -> None:
        self.weights = tuple(float(weight) for weight in weights)
        self.bbox_xform_clip = bbox_xform_clip

    def encode(self, reference_boxes: Sequence[Tensor], proposals: Sequence[Tensor]) -> list[Tensor]:
        """Return the offsets (N_i, 4) of boxes from proposals, both (N_i, 4), image by image."""
        offsets = self.encode_single(torch.cat(list(reference_boxes)), torch.cat(list(proposals)))
        return list(offsets.split([len(boxes) for boxes in reference_boxes]))

    def encode_single(self, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
        """Return the offsets (N, 4) of boxes from proposals, both (N, 4)."""
        return encode_boxes(reference_boxes.to(proposals.dtype), proposals, self.weights)

    def decode(self, rel_codes: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        """Return the boxes (K, C, 4) at offsets (K, 4 C) from the boxes of all images (K_i, 4)."""
        joined = torch.cat(list(boxes))
        decoded = self.decode_single(rel_codes.reshape(len(joined), -1) if len(joined) else rel_codes, joined)
        return decoded.reshape(len(joined), -1, 4) if len(joined) else decoded

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Return the boxes (K, 4 C) at offsets (K, 4 C) from boxes (K, 4)."""
        return decode_boxes(rel_codes, boxes, self.weights, self.bbox_xform_clip)


class Matcher:
    """The object that suits a box best, given how well each suits each. A drop-in for torchvision's.

    Parameters
    ----------
    high_threshold, low_threshold, allow_low_quality_matches
        As in :func:`fastcv.ops.match_boxes`.
    """

    BELOW_LOW_THRESHOLD = -1
    BETWEEN_THRESHOLDS = -2

    def __init__(self, high_threshold: float, low_threshold: float, allow_low_quality_matches: bool = False) -> None:
        if not low_threshold <= high_threshold:
            raise ValueError(f"low_threshold must be at most high_threshold {high_threshold}, got {low_threshold}")
        self.high_threshold = high_threshold
        self.low_threshold = low_threshold
        self.allow_low_quality_matches = allow_low_quality_matches

    def __call__(self, match_quality_matrix: Tensor) -> Tensor:
        """Return the object (N,) of each box, from a matrix (objects, N), or one of the two constants."""
        if not match_quality_matrix.numel():
            what = "ground-truth" if not match_quality_matrix.shape[0] else "proposal"
            raise ValueError(f"No {what} boxes available for one of the images during training")
        best, matches = match_quality_matrix.max(dim=0)
        result = torch.where(best < self.low_threshold, self.BELOW_LOW_THRESHOLD, matches)
        between = (best >= self.low_threshold) & (best < self.high_threshold)
        result = result.masked_fill(between, self.BETWEEN_THRESHOLDS)
        if self.allow_low_quality_matches:
            chosen = (match_quality_matrix == match_quality_matrix.amax(dim=1, keepdim=True)).any(0)
            result = torch.where(chosen, matches, result)
        return result


def match(gt: Tensor, boxes: Tensor, similarity: Callable[[Tensor, Tensor], Tensor], matcher: Any) -> Tensor:
    """Return the object (N,) of each box: in one pass where similarity and matcher are ours, by a matrix elsewhere."""
    if similarity is box_iou and type(matcher) is Matcher:
        return match_boxes(gt, boxes, matcher.high_threshold, matcher.low_threshold, matcher.allow_low_quality_matches)
    matches: Tensor = matcher(similarity(gt, boxes))
    return matches


def is_unchanged(part: Any, kind: type, methods: Sequence[str]) -> bool:
    """Whether a part of a detector still is what this package made: no method replaced, no hook, by a program."""
    own = type(part)
    if not isinstance(part, kind) or any(getattr(own, name) is not getattr(kind, name) for name in methods):
        return False
    hooked = isinstance(part, nn.Module) and (part._forward_hooks or part._forward_pre_hooks)
    return not hooked and not any(name in part.__dict__ for name in methods)

"""Make an existing torchvision detection model use fastcv's operators, without touching the model."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from torch import Tensor

from fastcv import nn, ops

__all__ = ["Acceleration", "accelerate_torchvision"]

# Functions of torchvision.ops whose place a function of fastcv.ops of the same name takes.
_FUNCTIONS = (
    ("boxes", "nms"),
    ("boxes", "batched_nms"),
    ("boxes", "box_iou"),
    ("boxes", "generalized_box_iou"),
    ("boxes", "distance_box_iou"),
    ("boxes", "complete_box_iou"),
    ("boxes", "masks_to_boxes"),
    ("giou_loss", "generalized_box_iou_loss"),
    ("diou_loss", "distance_box_iou_loss"),
    ("ciou_loss", "complete_box_iou_loss"),
    ("focal_loss", "sigmoid_focal_loss"),
    ("roi_align", "roi_align"),
    ("roi_pool", "roi_pool"),
    ("ps_roi_align", "ps_roi_align"),
    ("ps_roi_pool", "ps_roi_pool"),
)


@dataclass(frozen=True)
class _Overlap:
    """Two sets of boxes whose IoU matrix is asked for only to match them: never computed."""

    gt: Tensor
    candidates: Tensor


class Acceleration:
    """What :func:`accelerate_torchvision` returns: the patches in force, and the way back."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, Any]] = []

    def restore(self) -> None:
        """Put everything back. Calling it again does nothing."""
        while self._undo:
            owner, name, original = self._undo.pop()
            setattr(owner, name, original)

    def __enter__(self) -> Acceleration:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def _set(self, owner: Any, name: str, value: Any) -> None:
        self._undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def _replace_everywhere(self, original: Any, replacement: Any) -> None:
        """In every module of torchvision that has imported it, under whatever name."""
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] != "torchvision" or module is None:
                continue
            for attribute, value in list(vars(module).items()):
                if value is original:
                    self._set(module, attribute, replacement)


def accelerate_torchvision() -> Acceleration:
    """Make torchvision's detection models use fastcv's operators until restored.

    Works on models that already exist, for training and inference, and changes no result beyond rounding: nms and
    batched_nms, the IoU matrices and losses, the RoI operators and ``MultiScaleRoIAlign``, the matching of boxes to
    targets, and anchors. Affects the whole process.

    Returns
    -------
    Acceleration
        A context manager that restores torchvision when left; its ``restore()`` does the same.

    Raises
    ------
    ImportError
        If torchvision is not installed.
    RuntimeError
        If it is in force already.

    Examples
    --------
    >>> with fastcv.accelerate_torchvision():
    ...     detections = model(images)
    """
    import torchvision.models.detection as detection
    from torchvision.models.detection import _utils, anchor_utils, roi_heads, rpn
    from torchvision.ops import poolers

    if getattr(detection, "_fastcv_accelerated", False):
        raise RuntimeError("accelerate_torchvision() is in force already; restore() the first one before")
    acceleration = Acceleration()
    try:
        detection._fastcv_accelerated = False
        acceleration._set(detection, "_fastcv_accelerated", True)
        matching = threading.local()
        for module, name in _FUNCTIONS:
            original = getattr(sys.modules[f"torchvision.ops.{module}"], name)
            replacement = getattr(ops, name)
            if name == "box_iou":
                original_box_iou = original
                replacement = _box_iou_or_overlap(matching)
            acceleration._replace_everywhere(original, replacement)
        acceleration._set(_utils.Matcher, "__call__", _matcher(_utils.Matcher))
        for owner, name in (
            (rpn.RegionProposalNetwork, "assign_targets_to_anchors"),
            (roi_heads.RoIHeads, "assign_targets_to_proposals"),
        ):
            method = getattr(owner, name)
            acceleration._set(owner, name, _while_matching(method, matching, original_box_iou))
        acceleration._set(poolers.MultiScaleRoIAlign, "forward", nn.MultiScaleRoIAlign.forward)
        acceleration._set(anchor_utils.AnchorGenerator, "forward", nn.AnchorGenerator.forward)
    except BaseException:
        acceleration.restore()
        raise
    return acceleration


def _box_iou_or_overlap(matching: threading.local) -> Callable[..., Any]:
    """Return a ``box_iou`` that inside a matching method only notes what is to be matched."""

    def box_iou(boxes1: Tensor, boxes2: Tensor, *args: Any, **kwargs: Any) -> Any:
        if getattr(matching, "active", False) and not args and not kwargs:
            return _Overlap(boxes1, boxes2)
        return ops.box_iou(boxes1, boxes2, *args, **kwargs)

    return box_iou


def _while_matching(method: Callable[..., Any], matching: threading.local, original_box_iou: Any) -> Callable[..., Any]:
    """Return a method of a model during which box_iou and Matcher are one operation."""

    def matched(self: Any, *args: Any, **kwargs: Any) -> Any:
        similarity = self.box_similarity
        matching.active = True
        try:
            if similarity is original_box_iou:
                self.box_similarity = _Overlap
            return method(self, *args, **kwargs)
        finally:
            self.box_similarity = similarity
            matching.active = False

    return matched


def _matcher(matcher: Any) -> Callable[..., Tensor]:
    original = matcher.__call__

    def call(self: Any, quality: Any) -> Tensor:
        if not isinstance(quality, _Overlap):
            return original(self, quality)  # type: ignore[no-any-return]
        if type(self) is not matcher or not quality.gt.shape[0] or not quality.candidates.shape[0]:
            return original(self, ops.box_iou(quality.gt, quality.candidates))  # type: ignore[no-any-return]
        return ops.match_boxes(
            quality.gt, quality.candidates, self.high_threshold, self.low_threshold, self.allow_low_quality_matches
        )

    return call

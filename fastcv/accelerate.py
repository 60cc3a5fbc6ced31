"""Make existing torchvision detection models use fastcv's operators, without touching the models.

Only the *code* of torchvision's functions is replaced (``function.__code__``), by code that imports and calls fastcv's
function. The functions themselves stay the same objects. Therefore every existing reference to them is accelerated;
models hold no objects of fastcv, so they can be copied, pickled and saved at any time; and TorchScript, which reads the
source file that a code object names, still compiles torchvision's source.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import CodeType, FunctionType, TracebackType
from typing import Any

from torch import Tensor

from fastcv import nn, ops

__all__ = ["Acceleration", "accelerate_torchvision"]

# Functions of torchvision.ops that a function of fastcv.ops with the same name replaces.
_FUNCTIONS = (
    ("boxes", "nms"),
    ("boxes", "batched_nms"),
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

_lock = threading.Lock()  # held while the code of functions is replaced
_in_force: Acceleration | None = None
_torchvisions: dict[str, Callable[..., Any]] = {}  # copies of the functions, with torchvision's code
_thread = threading.local()  # .matching: whether this thread is inside a method that needs the IoU only for matching


class Acceleration:
    """The result of :func:`accelerate_torchvision`, which can restore torchvision."""

    def __init__(self) -> None:
        self._originals: list[tuple[FunctionType, CodeType]] = []

    def restore(self) -> None:
        """Restore torchvision. Calling it again has no effect."""
        global _in_force
        with _lock:
            while self._originals:
                function, code = self._originals.pop()
                function.__code__ = code
            if _in_force is self:
                _in_force = None

    def __enter__(self) -> Acceleration:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()


def accelerate_torchvision() -> Acceleration:
    """Make torchvision's detection models use fastcv's operators until restored.

    Works on models that already exist, for training and inference, and changes no result beyond rounding: nms and
    batched_nms, the IoU matrices and losses, the RoI operators and ``MultiScaleRoIAlign``, the matching of boxes to
    targets, and anchors. Affects the whole process, all threads included. While it is active, models can be copied,
    pickled and scripted; models that are made while it is active also work afterwards.

    Returns
    -------
    Acceleration
        A context manager that restores torchvision when left; its ``restore()`` does the same.

    Raises
    ------
    ImportError
        If torchvision is not installed.
    RuntimeError
        If it is active already, or if one of torchvision's functions has been replaced by something else.

    Examples
    --------
    >>> from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn
    >>> model = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None).eval()
    >>> with fastcv.accelerate_torchvision():
    ...     detections = model([torch.rand(3, 320, 480)])
    """
    global _in_force
    replaced = _replaced_functions()
    with _lock:
        if _in_force is not None:
            raise RuntimeError("accelerate_torchvision() is in force already; call restore() on the first one before")
        codes = [(function, _call_of(function, *target)) for function, target in replaced]
        acceleration = Acceleration()
        for function, code in codes:
            _torchvisions[function.__qualname__] = _copy(function)
            acceleration._originals.append((function, function.__code__))
            function.__code__ = code
        _in_force = acceleration
    return acceleration


def _replaced_functions() -> list[tuple[FunctionType, tuple[str, str]]]:
    """Return the functions of torchvision to replace, each with the module and name of its replacement."""
    from torchvision.models.detection import _utils, anchor_utils, roi_heads, rpn
    from torchvision.ops import boxes, poolers

    # Names as Python finds them in torchvision's own modules; `torchvision.ops.roi_align` is a function and a module.
    found = [
        (getattr(import_module(f"torchvision.ops.{module}"), name), ("fastcv.ops", name)) for module, name in _FUNCTIONS
    ]
    found += [
        (boxes.box_iou, (__name__, "_box_iou")),
        (_utils.Matcher.__call__, (__name__, "_match")),
        (rpn.RegionProposalNetwork.assign_targets_to_anchors, (__name__, "_assign_targets_to_anchors")),
        (roi_heads.RoIHeads.assign_targets_to_proposals, (__name__, "_assign_targets_to_proposals")),
        (poolers.MultiScaleRoIAlign.forward, (__name__, "_pool_levels")),
        (anchor_utils.AnchorGenerator.forward, (__name__, "_make_anchors")),
    ]
    for function, (_, name) in found:
        if not isinstance(function, FunctionType) or function.__closure__ or function.__kwdefaults__:
            raise RuntimeError(f"accelerate_torchvision() cannot replace {name}: {function!r} is not torchvision's own")
    return found


def _call_of(function: FunctionType, module: str, name: str) -> CodeType:
    """Return code that takes the arguments of ``function`` and passes them to ``module.name``.

    It names the file and line of ``function``, where TorchScript and ``inspect`` then find its source.
    """
    code = function.__code__
    arguments = ", ".join(code.co_varnames[: code.co_argcount])
    scope: dict[str, Any] = {}
    exec(f"def call({arguments}): from {module} import {name} as target; return target({arguments})", scope)
    made: CodeType = scope["call"].__code__
    return made.replace(co_name=code.co_name, co_filename=code.co_filename, co_firstlineno=code.co_firstlineno)


def _copy(function: FunctionType) -> FunctionType:
    return FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)


# Replacements that are not functions of fastcv.ops --------------------------------------------------------------------


@dataclass(frozen=True)
class _Overlap:
    """Two sets of boxes in place of their IoU matrix, which is not needed to match them."""

    gt: Tensor
    candidates: Tensor


def _box_iou(boxes1: Tensor, boxes2: Tensor, fmt: str = "xyxy") -> Any:
    if fmt != "xyxy":
        return _torchvisions["box_iou"](boxes1, boxes2, fmt)
    if getattr(_thread, "matching", False):
        return _Overlap(boxes1, boxes2)
    return ops.box_iou(boxes1, boxes2)


def _match(self: Any, quality: Any) -> Tensor:
    if not isinstance(quality, _Overlap):
        return _torchvisions["Matcher.__call__"](self, quality)  # type: ignore[no-any-return]
    gt, candidates = quality.gt, quality.candidates
    if not gt.shape[0] or not candidates.shape[0]:  # torchvision's error
        return _torchvisions["Matcher.__call__"](self, ops.box_iou(gt, candidates))  # type: ignore[no-any-return]
    return ops.match_boxes(gt, candidates, self.high_threshold, self.low_threshold, self.allow_low_quality_matches)


def _assign_targets_to_anchors(self: Any, *arguments: Any) -> Any:
    from torchvision.ops.boxes import box_iou

    assign = _torchvisions["RegionProposalNetwork.assign_targets_to_anchors"]
    return _matching(assign, self, self.box_similarity is box_iou, *arguments)


def _assign_targets_to_proposals(self: Any, *arguments: Any) -> Any:
    return _matching(_torchvisions["RoIHeads.assign_targets_to_proposals"], self, True, *arguments)


def _matching(assign: Callable[..., Any], model: Any, by_iou: bool, *arguments: Any) -> Any:
    """Call torchvision's method with box_iou and Matcher fused, unless the model has a custom one of either."""
    from torchvision.models.detection._utils import Matcher

    before = getattr(_thread, "matching", False)
    _thread.matching = by_iou and type(model.proposal_matcher) is Matcher
    try:
        return assign(model, *arguments)
    finally:
        _thread.matching = before


def _pool_levels(self: Any, *arguments: Any) -> Tensor:
    return nn.MultiScaleRoIAlign.forward(self, *arguments)


def _make_anchors(self: Any, *arguments: Any) -> list[Tensor]:
    from torchvision.models.detection.anchor_utils import AnchorGenerator as Theirs

    from fastcv.models.detection.anchor_generator import AnchorGenerator

    if type(self).grid_anchors is not Theirs.grid_anchors or "grid_anchors" in vars(self):  # a program's own
        return _torchvisions["AnchorGenerator.forward"](self, *arguments)  # type: ignore[no-any-return]
    return AnchorGenerator.forward(self, *arguments)

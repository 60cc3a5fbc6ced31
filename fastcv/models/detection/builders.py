"""Detectors by name: which model, on which backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from fastcv.models.detection.backbone import make_backbone
from fastcv.models.detection.faster_rcnn import FasterRCNN
from fastcv.models.detection.keypoint_rcnn import KeypointRCNN
from fastcv.models.detection.mask_rcnn import MaskRCNN
from fastcv.models.detection.weights import lacks_eps, load_state, read_state
from fastcv.nn.box_head import FastRCNNPredictor, TwoMLPHead
from fastcv.nn.keypoint_head import KeypointRCNNHeads, KeypointRCNNPredictor
from fastcv.nn.mask_head import MaskRCNNHeads, MaskRCNNPredictor

__all__ = ["MODELS", "create"]

Model = TypeVar("Model", bound=FasterRCNN)

_KINDS: dict[str, type[FasterRCNN]] = {
    "fasterrcnn": FasterRCNN,
    "maskrcnn": MaskRCNN,
    "keypointrcnn": KeypointRCNN,
}
_BACKBONES = ("tiny", "resnet18", "resnet34", "resnet50", "resnet101")

MODELS = tuple(f"{kind}_{backbone}_fpn" for kind in _KINDS for backbone in _BACKBONES)
"""The names that :func:`create` knows."""


def create(name: str, **kwargs: Any) -> FasterRCNN:
    """Make a detector by name.

    Parameters
    ----------
    name : str
        One of :data:`MODELS`, such as "maskrcnn_resnet18_fpn"; "tiny" as the backbone makes a model of less than a
        million parameters.
    **kwargs
        As in :func:`fasterrcnn_resnet50_fpn`.
    """
    if name not in MODELS:
        raise ValueError(f"name must be one of {', '.join(MODELS)}, got {name!r}")
    kind, backbone, _ = name.split("_")
    return build(_KINDS[kind], backbone, **{"weights": None, **kwargs})


def build(
    kind: type[Model],
    backbone: str,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    weights_backbone: str | Path | None = None,
    trainable_backbone_layers: int | None = None,
    norm_eps: float | None = None,
    progress: bool = True,
    **kwargs: Any,
) -> Model:
    """Make a detector, and load its weights; see :func:`fasterrcnn_resnet50_fpn`."""
    state = None if weights is None else read_state(weights)
    if num_classes is None:
        person_only = issubclass(kind, KeypointRCNN)
        num_classes = _rows(state, "roi_heads.box_predictor.cls_score.bias") or (2 if person_only else 91)
    if issubclass(kind, KeypointRCNN) and kwargs.get("num_keypoints") is None:
        bias = "roi_heads.keypoint_predictor.kps_score_lowres.bias"
        kwargs["num_keypoints"] = _rows(state, bias) or 17
    if norm_eps is None:
        norm_eps = 0.0 if weights is not None and lacks_eps(weights) else 1e-5
    small = backbone == "tiny"
    body = make_backbone(backbone, weights, weights_backbone, trainable_backbone_layers, norm_eps, 32 if small else 256)
    if small:
        kwargs = _small_heads(kind, num_classes, kwargs)
    model = kind(body, None if small else num_classes, **kwargs)
    if state is not None:
        load_state(model, state, str(weights))
    return model


def _rows(state: dict[str, Tensor] | None, key: str) -> int | None:
    return len(state[key]) if state is not None and key in state else None


def _small_heads(kind: type[FasterRCNN], num_classes: int, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return keywords with heads of 32 channels, where there are none."""
    heads: dict[str, Any] = {"box_head": TwoMLPHead(32 * 49, 128), "box_predictor": FastRCNNPredictor(128, num_classes)}
    if issubclass(kind, MaskRCNN):
        heads |= {
            "mask_head": MaskRCNNHeads(32, (32, 32)),
            "mask_predictor": MaskRCNNPredictor(32, 32, num_classes),
        }
    if issubclass(kind, KeypointRCNN):
        points = kwargs.pop("num_keypoints")
        heads |= {
            "keypoint_head": KeypointRCNNHeads(32, (32, 32)),
            "keypoint_predictor": KeypointRCNNPredictor(32, points),
        }
    return {**heads, **kwargs}

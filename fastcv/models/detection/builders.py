"""Functions that make detectors: by name, and torchvision's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from fastcv.models.detection.anchor_generator import AnchorGenerator
from fastcv.models.detection.backbone import make_backbone
from fastcv.models.detection.box_head import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from fastcv.models.detection.checkpoints import Weights, as_source, legacy_weights
from fastcv.models.detection.faster_rcnn import FasterRCNN
from fastcv.models.detection.keypoint_head import KeypointRCNNHeads, KeypointRCNNPredictor
from fastcv.models.detection.keypoint_rcnn import KeypointRCNN
from fastcv.models.detection.mask_head import MaskRCNNHeads, MaskRCNNPredictor
from fastcv.models.detection.mask_rcnn import MaskRCNN
from fastcv.models.detection.region_proposal import RPNHead
from fastcv.models.detection.weights import lacks_eps, load_state, read_state

__all__ = [
    "MODELS",
    "create",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "keypointrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
]

Model = TypeVar("Model", bound=FasterRCNN)

_KINDS: dict[str, type[FasterRCNN]] = {
    "fasterrcnn": FasterRCNN,
    "maskrcnn": MaskRCNN,
    "keypointrcnn": KeypointRCNN,
}
_BACKBONES = ("tiny", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
_MOBILE = "fasterrcnn_mobilenet_v3_large"

MODELS = (
    *(f"{kind}_{backbone}_fpn" for kind in _KINDS for backbone in _BACKBONES),
    "fasterrcnn_resnet50_fpn_v2",
    "maskrcnn_resnet50_fpn_v2",
    f"{_MOBILE}_fpn",
    f"{_MOBILE}_320_fpn",
)
"""The names that :func:`create` accepts."""


def create(name: str, **kwargs: Any) -> FasterRCNN:
    """Make a detector by name.

    Parameters
    ----------
    name : str
        One of :data:`MODELS`, such as "maskrcnn_resnet18_fpn". Models with the backbone "tiny" have less than a million
        parameters.
    **kwargs
        As in :func:`fasterrcnn_resnet50_fpn`.
    """
    if name not in MODELS:
        raise ValueError(f"name must be one of {', '.join(MODELS)}, got {name!r}")
    return build(_KINDS[name.split("_")[0]], name, **kwargs)


def build(
    kind: type[Model],
    name: str,
    weights: Weights = None,
    num_classes: int | None = None,
    weights_backbone: Weights = None,
    trainable_backbone_layers: int | None = None,
    norm_eps: float | None = None,
    progress: bool = True,
    **kwargs: Any,
) -> Model:
    """Make a detector and load its weights; see :func:`fasterrcnn_resnet50_fpn`."""
    backbone, is_mobile, is_second = name.split("_")[1], name.startswith(_MOBILE), name.endswith("_v2")
    backbone = "mobilenet_v3_large" if is_mobile else backbone
    weights = as_source(legacy_weights(weights, kwargs, "pretrained", others=True), "weights", name)
    weights_backbone = legacy_weights(weights_backbone, kwargs, "pretrained_backbone", others=True)
    if weights is None:
        weights_backbone = as_source(weights_backbone, "weights_backbone", backbone)
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
    layers = trainable_backbone_layers
    body = make_backbone(backbone, weights, weights_backbone, layers, norm_eps, 32 if small else 256, is_second)
    if small:
        kwargs = _small_heads(kind, num_classes, kwargs)
    elif is_second:
        kwargs = _normalized_heads(kind, kwargs)
    elif is_mobile:
        anchors = AnchorGenerator(((32, 64, 128, 256, 512),) * 3, ((0.5, 1.0, 2.0),) * 3)
        kwargs = {
            "rpn_anchor_generator": anchors,
            "rpn_score_thresh": 0.05,
            **(_LOW if "320" in name else {}),
            **kwargs,
        }
    model = kind(body, None if small else num_classes, **kwargs)
    if state is not None:
        load_state(model, state, "the state_dict" if isinstance(weights, Mapping) else str(weights))
    return model


_LOW = {"min_size": 320, "max_size": 640, "rpn_pre_nms_top_n_test": 150, "rpn_post_nms_top_n_test": 150}


def _rows(state: dict[str, Tensor] | None, key: str) -> int | None:
    """Return the length of a vector in a checkpoint, or None if the checkpoint has no vector of that name."""
    return len(state[key]) if state is not None and key in state and state[key].dim() == 1 else None


def _small_heads(kind: type[FasterRCNN], num_classes: int, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords with heads of 32 channels for those that are not given."""
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


def _normalized_heads(kind: type[FasterRCNN], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords with the heads of torchvision's v2 models for those that are not given."""
    anchors = kwargs.get("rpn_anchor_generator")
    count = 3 if anchors is None else anchors.num_anchors_per_location()[0]
    heads: dict[str, Any] = {
        "rpn_head": RPNHead(256, count, conv_depth=2),
        "box_head": FastRCNNConvFCHead((256, 7, 7), (256,) * 4, (1024,), norm_layer=nn.BatchNorm2d),
    }
    if issubclass(kind, MaskRCNN):
        heads["mask_head"] = MaskRCNNHeads(256, (256,) * 4, norm_layer=nn.BatchNorm2d)
    return {**heads, **kwargs}


def fasterrcnn_resnet50_fpn(
    weights: Weights = None,
    progress: bool = True,
    num_classes: int | None = None,
    weights_backbone: Weights = None,
    trainable_backbone_layers: int | None = None,
    **kwargs: Any,
) -> FasterRCNN:
    """Faster R-CNN on ResNet-50 with a feature pyramid.

    Parameters
    ----------
    weights : path or state_dict, optional
        A checkpoint of the whole model, torchvision's or your own; see :func:`load_weights`. Nothing is downloaded:
        "DEFAULT", or a member of an enumeration, is the file that torchvision has downloaded before. Where there is
        none, the error says how to get it.
    progress
        Ignored; accepted because torchvision has it.
    num_classes : int, optional
        Classes, background included. Default: those of the checkpoint, or 91.
    weights_backbone : path or state_dict, optional
        A checkpoint of torchvision's ``resnet50``.
    trainable_backbone_layers : int, optional
        Stages of the backbone to train, 0 to 5, counted from the last. Default: 3 with weights, all without.
    **kwargs
        Keywords of :class:`FasterRCNN`, and ``norm_eps``, the eps of frozen batch normalisation. Default: 0 for
        torchvision's own COCO checkpoints, which were trained with it, and 1e-5 for others.

    Examples
    --------
    >>> weights = "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"
    >>> model = fasterrcnn_resnet50_fpn(weights=weights).eval().optimize()  # doctest: +SKIP
    >>> with torch.inference_mode():  # doctest: +SKIP
    ...     detections = model([image])
    """
    return build(
        FasterRCNN,
        "fasterrcnn_resnet50_fpn",
        weights,
        num_classes,
        weights_backbone,
        trainable_backbone_layers,
        **kwargs,
    )


def maskrcnn_resnet50_fpn(
    weights: Weights = None,
    progress: bool = True,
    num_classes: int | None = None,
    weights_backbone: Weights = None,
    trainable_backbone_layers: int | None = None,
    **kwargs: Any,
) -> MaskRCNN:
    """Mask R-CNN on ResNet-50 with a feature pyramid.

    Parameters
    ----------
    weights, progress, num_classes, weights_backbone, trainable_backbone_layers
        As in :func:`fasterrcnn_resnet50_fpn`.
    **kwargs
        Keywords of :class:`MaskRCNN`, and ``norm_eps``.
    """
    return build(
        MaskRCNN, "maskrcnn_resnet50_fpn", weights, num_classes, weights_backbone, trainable_backbone_layers, **kwargs
    )


def keypointrcnn_resnet50_fpn(
    weights: Weights = None,
    progress: bool = True,
    num_classes: int | None = None,
    num_keypoints: int | None = None,
    weights_backbone: Weights = None,
    trainable_backbone_layers: int | None = None,
    **kwargs: Any,
) -> KeypointRCNN:
    """Keypoint R-CNN on ResNet-50 with a feature pyramid.

    Parameters
    ----------
    weights, progress, num_classes, weights_backbone, trainable_backbone_layers
        As in :func:`fasterrcnn_resnet50_fpn`. Default of num_classes: those of the checkpoint, or 2.
    num_keypoints : int, optional
        Keypoints per object. Default: those of the checkpoint, or 17.
    **kwargs
        Keywords of :class:`KeypointRCNN`, and ``norm_eps``.
    """
    kwargs["num_keypoints"] = num_keypoints
    return build(
        KeypointRCNN,
        "keypointrcnn_resnet50_fpn",
        weights,
        num_classes,
        weights_backbone,
        trainable_backbone_layers,
        **kwargs,
    )


def fasterrcnn_resnet50_fpn_v2(
    weights: Weights = None,
    progress: bool = True,
    num_classes: int | None = None,
    weights_backbone: Weights = None,
    trainable_backbone_layers: int | None = None,
    **kwargs: Any,
) -> FasterRCNN:
    """Faster R-CNN on ResNet-50 with batch normalisation in pyramid and heads, and heads of more layers.

    Parameters
    ----------
    weights, progress, num_classes, weights_backbone, trainable_backbone_layers
        As in :func:`fasterrcnn_resnet50_fpn`.
    **kwargs
        Keywords of :class:`FasterRCNN`.
    """
    return build(
        FasterRCNN,
        "fasterrcnn_resnet50_fpn_v2",
        weights,
        num_classes,
        weights_backbone,
        trainable_backbone_layers,
        **kwargs,
    )


def maskrcnn_resnet50_fpn_v2(
    weights: Weights = None,
    progress: bool = True,
    num_classes: int | None = None,
    weights_backbone: Weights = None,
    trainable_backbone_layers: int | None = None,
    **kwargs: Any,
) -> MaskRCNN:
    """Mask R-CNN on ResNet-50 with batch normalisation in pyramid and heads, and heads of more layers.

    Parameters
    ----------
    weights, progress, num_classes, weights_backbone, trainable_backbone_layers
        As in :func:`fasterrcnn_resnet50_fpn`.
    **kwargs
        Keywords of :class:`MaskRCNN`.
    """
    return build(
        MaskRCNN,
        "maskrcnn_resnet50_fpn_v2",
        weights,
        num_classes,
        weights_backbone,
        trainable_backbone_layers,
        **kwargs,
    )


def fasterrcnn_mobilenet_v3_large_fpn(
    weights: Weights = None,
    progress: bool = True,
    num_classes: int | None = None,
    weights_backbone: Weights = None,
    trainable_backbone_layers: int | None = None,
    **kwargs: Any,
) -> FasterRCNN:
    """Faster R-CNN on MobileNetV3-Large with a feature pyramid of three maps.

    Parameters
    ----------
    weights, progress, num_classes, weights_backbone, trainable_backbone_layers
        As in :func:`fasterrcnn_resnet50_fpn`.
    **kwargs
        Keywords of :class:`FasterRCNN`, and ``norm_eps``.
    """
    return build(
        FasterRCNN,
        "fasterrcnn_mobilenet_v3_large_fpn",
        weights,
        num_classes,
        weights_backbone,
        trainable_backbone_layers,
        **kwargs,
    )


def fasterrcnn_mobilenet_v3_large_320_fpn(
    weights: Weights = None,
    progress: bool = True,
    num_classes: int | None = None,
    weights_backbone: Weights = None,
    trainable_backbone_layers: int | None = None,
    **kwargs: Any,
) -> FasterRCNN:
    """Faster R-CNN on MobileNetV3-Large for small images: their shorter side becomes 320 pixels.

    Parameters
    ----------
    weights, progress, num_classes, weights_backbone, trainable_backbone_layers
        As in :func:`fasterrcnn_resnet50_fpn`.
    **kwargs
        Keywords of :class:`FasterRCNN`, and ``norm_eps``.
    """
    return build(
        FasterRCNN,
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        weights,
        num_classes,
        weights_backbone,
        trainable_backbone_layers,
        **kwargs,
    )

"""Builders of YOLO's networks, written from the papers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastcv.models.yolo.config import make_config
from fastcv.models.yolo.detector import YOLO
from fastcv.models.yolo.network import DarknetNetwork
from fastcv.models.yolo.weights import DarknetWeights

__all__ = ["yolo_v1", "yolov2_tiny", "yolov3_tiny"]

Sections = list[tuple[str, dict[str, Any]]]
Source = str | Path | DarknetWeights | None

_TINY_WIDTHS = (16, 32, 64, 128, 256, 512)
_V3_ANCHORS = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"  # clusters of COCO's boxes, in pixels
_V2_ANCHORS = "1.08,1.19, 3.42,4.41, 6.63,11.38, 9.42,5.11, 16.62,10.52"  # of VOC's, in cells


def yolov3_tiny(weights: Source = None, classes: int = 80, **kwargs: Any) -> YOLO:
    """Make YOLOv3-tiny: 416 × 416 pixels, boxes on maps of 13 × 13 and 26 × 26 cells, three anchors each.

    Parameters
    ----------
    weights : path or DarknetWeights, optional
        A ``.weights`` file, such as the published yolov3-tiny.weights. Default: random numbers.
    classes : int
        Classes; there is no background.
    **kwargs
        Of :class:`YOLO`.

    References
    ----------
    Redmon, Farhadi: YOLOv3: An Incremental Improvement (2018).
    """
    _check_classes(classes)
    head: dict[str, Any] = {"anchors": _V3_ANCHORS, "classes": classes, "num": 6}
    outputs = 3 * (5 + classes)
    sections: Sections = [
        *_net(416),
        *_tiny_trunk(),
        _conv(1024, 3, 1),
        _conv(256, 1, 1),
        _conv(512, 3, 1),
        _conv(outputs, 1, normalised=False, activation="linear"),
        ("yolo", {"mask": "3,4,5", **head}),
        ("route", {"layers": -4}),
        _conv(128, 1, 1),
        ("upsample", {"stride": 2}),
        ("route", {"layers": "-1,8"}),
        _conv(256, 3, 1),
        _conv(outputs, 1, normalised=False, activation="linear"),
        ("yolo", {"mask": "0,1,2", **head}),
    ]
    return _make(sections, weights, kwargs)


def yolov2_tiny(weights: Source = None, classes: int = 20, **kwargs: Any) -> YOLO:
    """Make tiny YOLOv2: 416 × 416 pixels to 13 × 13 cells of five anchors, 845 boxes; 125 channels for 20 classes.

    3×3 convolutions of 16, 32, 64, 128, 256 and 512 channels, each before a 2×2 max pooling of stride 2, the last of
    stride 1; two of 1024 channels, and one of 1×1. The least score is 0.3.

    Parameters
    ----------
    weights, classes, **kwargs
        As in :func:`yolov3_tiny`; the file published for VOC is yolov2-tiny-voc.weights.

    References
    ----------
    Redmon, Farhadi: YOLO9000: Better, Faster, Stronger (2016).
    """
    _check_classes(classes)
    sections: Sections = [
        *_net(416),
        *_tiny_trunk(),
        _conv(1024, 3, 1),
        _conv(1024, 3, 1),
        _conv(5 * (5 + classes), 1, normalised=False, activation="linear"),
        ("region", {"anchors": _V2_ANCHORS, "classes": classes, "coords": 4, "num": 5, "softmax": 1}),
    ]
    return _make(sections, weights, {"score_thresh": 0.3, **kwargs})


def yolo_v1(weights: Source = None, classes: int = 20, **kwargs: Any) -> YOLO:
    """Make the first YOLO: 448 × 448 pixels to 7 × 7 cells of two boxes; 7 × 7 × 30 numbers for 20 classes.

    24 convolutions and two linear layers, without batch normalisation. Images are stretched to the network's size, as
    in the paper; the least score is 0.2.

    Parameters
    ----------
    weights, classes, **kwargs
        As in :func:`yolov3_tiny`.

    References
    ----------
    Redmon, Divvala, Girshick, Farhadi: You Only Look Once: Unified, Real-Time Object Detection (2016), figure 3.
    """
    _check_classes(classes)
    pool = ("maxpool", {"size": 2, "stride": 2})
    convolutions: list[tuple[int, int, int] | None] = [  # channels, size, stride; None is a pooling
        (64, 7, 2), None, (192, 3, 1), None,
        (128, 1, 1), (256, 3, 1), (256, 1, 1), (512, 3, 1), None,
        *[(256, 1, 1), (512, 3, 1)] * 4, (512, 1, 1), (1024, 3, 1), None,
        *[(512, 1, 1), (1024, 3, 1)] * 2, (1024, 3, 1), (1024, 3, 2), (1024, 3, 1), (1024, 3, 1),
    ]  # fmt: skip
    sections: Sections = [
        *_net(448),
        *(pool if row is None else _conv(*row, False) for row in convolutions),
        ("connected", {"output": 4096, "activation": "leaky"}),
        ("dropout", {"probability": 0.5}),
        ("connected", {"output": 7 * 7 * (classes + 2 * 5), "activation": "linear"}),
        ("detection", {"classes": classes, "coords": 4, "side": 7, "num": 2, "softmax": 0, "sqrt": 1}),
    ]
    return _make(sections, weights, {"score_thresh": 0.2, "resize": "stretch", **kwargs})


def _make(sections: Iterable[tuple[str, dict[str, Any]]], weights: Source, kwargs: dict[str, Any]) -> YOLO:
    model = YOLO(DarknetNetwork(make_config(sections)), **kwargs)
    return model if weights is None else model.load_weights(weights)


def _net(size: int) -> Sections:
    return [("net", {"width": size, "height": size, "channels": 3})]


def _tiny_trunk() -> Sections:
    """Return what the tiny networks start with: six convolutions, each before a pooling."""
    sections: Sections = []
    for width in _TINY_WIDTHS:
        sections += [_conv(width, 3), ("maxpool", {"size": 2, "stride": 1 if width == 512 else 2})]
    return sections


def _conv(
    filters: int, size: int, stride: int = 1, normalised: bool = True, activation: str = "leaky"
) -> tuple[str, dict[str, Any]]:
    options: dict[str, Any] = {"batch_normalize": 1} if normalised else {}
    options |= {"filters": filters, "size": size, "stride": stride, "pad": 1, "activation": activation}
    return "convolutional", options


def _check_classes(classes: int) -> None:
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
        raise ValueError(f"classes must be an integer of at least 1, got {classes!r}")

"""Builders of YOLO's networks, written from the papers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastcv.models.yolo.config import make_config
from fastcv.models.yolo.detector import YOLO
from fastcv.models.yolo.heads import RegionHead, YOLOHead
from fastcv.models.yolo.network import DarknetNetwork
from fastcv.models.yolo.weights import DarknetWeights

__all__ = ["yolo_v1", "yolov2_tiny", "yolov3_tiny"]

Sections = list[tuple[str, dict[str, Any]]]
Source = str | Path | DarknetWeights | None

_TINY_WIDTHS = (16, 32, 64, 128, 256, 512)
_V3_ANCHORS = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"  # clusters of COCO's boxes, in pixels
_V2_ANCHORS = "1.08,1.19, 3.42,4.41, 6.63,11.38, 9.42,5.11, 16.62,10.52"  # of VOC's, in cells
_V2_CELL = 32  # pixels
_CHANNELS = 8  # a reduced number of channels is a multiple of this
_PRIOR = 0.01  # what an untrained network believes of each box, that there is an object

Anchors = Sequence[Sequence[float]] | None


def yolov3_tiny(
    weights: Source = None,
    classes: int = 80,
    width: float = 1.0,
    size: int = 416,
    anchors: Anchors = None,
    **kwargs: Any,
) -> YOLO:
    """Make YOLOv3-tiny: 416 × 416 pixels, boxes on maps of 13 × 13 and 26 × 26 cells, three anchors each.

    Parameters
    ----------
    weights : path or DarknetWeights, optional
        A ``.weights`` file, such as the published yolov3-tiny.weights. Default: random numbers.
    classes : int
        Classes; there is no background.
    width : float
        By how much the channels of all layers but the last are multiplied, as 0.5 for a small network.
    size : int
        Height and width of the network's input in pixels, a multiple of 32.
    anchors : sequence of (width, height), optional
        In pixels, by ascending area, such as :func:`fit_anchors` gives: an even number, of which the upper half goes to
        the coarse map. Default: those of COCO.
    **kwargs
        Of :class:`YOLO`.

    References
    ----------
    Redmon, Farhadi: YOLOv3: An Incremental Improvement (2018).
    """
    _check_classes(classes)
    pairs = _pairs(anchors)
    number = len(pairs) or 6
    if number % 2:
        raise ValueError(f"anchors must be an even number of pairs, half of them for each map, got {number}")
    head: dict[str, Any] = {"anchors": _joined(pairs) or _V3_ANCHORS, "classes": classes, "num": number}
    head |= {"ignore_thresh": 0.7}
    outputs = number // 2 * (5 + classes)
    fine, coarse = (",".join(map(str, range(*half))) for half in ((number // 2,), (number // 2, number)))
    sections: Sections = [
        *_net(size, 32),
        *_tiny_trunk(),
        _conv(1024, 3, 1),
        _conv(256, 1, 1),
        _conv(512, 3, 1),
        _conv(outputs, 1, normalised=False, activation="linear"),
        ("yolo", {"mask": coarse, **head}),
        ("route", {"layers": -4}),
        _conv(128, 1, 1),
        ("upsample", {"stride": 2}),
        ("route", {"layers": "-1,8"}),
        _conv(256, 3, 1),
        _conv(outputs, 1, normalised=False, activation="linear"),
        ("yolo", {"mask": fine, **head}),
    ]
    return _make(sections, weights, width, kwargs)


def yolov2_tiny(
    weights: Source = None,
    classes: int = 20,
    width: float = 1.0,
    size: int = 416,
    anchors: Anchors = None,
    **kwargs: Any,
) -> YOLO:
    """Make tiny YOLOv2: 416 × 416 pixels to 13 × 13 cells of five anchors, 845 boxes; 125 channels for 20 classes.

    3×3 convolutions of 16, 32, 64, 128, 256 and 512 channels, each before a 2×2 max pooling of stride 2, the last of
    stride 1; two of 1024 channels, and one of 1×1. The least score is 0.3.

    Parameters
    ----------
    weights, classes, width, size, **kwargs
        As in :func:`yolov3_tiny`; the file published for VOC is yolov2-tiny-voc.weights.
    anchors : sequence of (width, height), optional
        In pixels, such as :func:`fit_anchors` gives, any number. Default: five of VOC.

    References
    ----------
    Redmon, Farhadi: YOLO9000: Better, Faster, Stronger (2016).
    """
    _check_classes(classes)
    pairs = [(w / _V2_CELL, h / _V2_CELL) for w, h in _pairs(anchors)]
    number = len(pairs) or 5
    head: dict[str, Any] = {"anchors": _joined(pairs) or _V2_ANCHORS, "classes": classes, "coords": 4, "num": number}
    head |= {"softmax": 1, "rescore": 1, "thresh": 0.6, "object_scale": 5, "noobject_scale": 1}
    sections: Sections = [
        *_net(size, 32),
        *_tiny_trunk(),
        _conv(1024, 3, 1),
        _conv(1024, 3, 1),
        _conv(number * (5 + classes), 1, normalised=False, activation="linear"),
        ("region", head),
    ]
    return _make(sections, weights, width, {"score_thresh": 0.3, **kwargs})


def yolo_v1(weights: Source = None, classes: int = 20, width: float = 1.0, size: int = 448, **kwargs: Any) -> YOLO:
    """Make the first YOLO: 448 × 448 pixels to 7 × 7 cells of two boxes; 7 × 7 × 30 numbers for 20 classes.

    24 convolutions and two linear layers, without batch normalisation. Images are stretched to the network's size, as
    in the paper; the least score is 0.2.

    Parameters
    ----------
    weights, classes, width, **kwargs
        As in :func:`yolov3_tiny`.
    size : int
        Height and width of the network's input in pixels, a multiple of 64: there are ``size // 64`` cells in a row.

    References
    ----------
    Redmon, Divvala, Girshick, Farhadi: You Only Look Once: Unified, Real-Time Object Detection (2016), figure 3.
    """
    _check_classes(classes)
    pool, side = ("maxpool", {"size": 2, "stride": 2}), size // 64
    head: dict[str, Any] = {"classes": classes, "coords": 4, "side": side, "num": 2, "softmax": 0, "sqrt": 1}
    head |= {"rescore": 1, "coord_scale": 5, "noobject_scale": 0.5}  # the paper's
    convolutions: list[tuple[int, int, int] | None] = [  # channels, size, stride; None is a pooling
        (64, 7, 2), None, (192, 3, 1), None,
        (128, 1, 1), (256, 3, 1), (256, 1, 1), (512, 3, 1), None,
        *[(256, 1, 1), (512, 3, 1)] * 4, (512, 1, 1), (1024, 3, 1), None,
        *[(512, 1, 1), (1024, 3, 1)] * 2, (1024, 3, 1), (1024, 3, 2), (1024, 3, 1), (1024, 3, 1),
    ]  # fmt: skip
    sections: Sections = [
        *_net(size, 64),
        *(pool if row is None else _conv(*row, False) for row in convolutions),
        ("connected", {"output": 4096, "activation": "leaky"}),
        ("dropout", {"probability": 0.5}),
        ("connected", {"output": side * side * (classes + 2 * 5), "activation": "linear"}),
        ("detection", head),
    ]
    return _make(sections, weights, width, {"score_thresh": 0.2, "resize": "stretch", **kwargs})


def _make(
    sections: Iterable[tuple[str, dict[str, Any]]], weights: Source, width: float, kwargs: dict[str, Any]
) -> YOLO:
    if not 0 < width <= 64:
        raise ValueError(f"width must be above 0 and at most 64, got {width}")
    model = YOLO(DarknetNetwork(make_config([_scaled(*section, width) for section in sections])), **kwargs)
    if weights is not None:
        return model.load_weights(weights)
    expect_nothing(model.network)
    return model


def expect_nothing(network: DarknetNetwork) -> None:
    """Let an untrained network of version 2 or 3 believe that boxes are empty, as nearly all of them are.

    Otherwise the loss of thousands of empty boxes is all that the first steps of training see (Lin et al. 2017, Focal
    Loss for Dense Object Detection, section 3.3).
    """
    for before, layer in pairwise(network.layers):
        head = getattr(layer, "head", None)
        bias = getattr(getattr(before, "conv", None), "bias", None)
        if isinstance(head, YOLOHead | RegionHead) and isinstance(bias, Tensor):
            nn.init.zeros_(bias)
            with torch.no_grad():
                bias.unflatten(0, (len(head.anchors), -1))[:, 4] = math.log(_PRIOR / (1 - _PRIOR))


def _scaled(name: str, options: dict[str, Any], width: float) -> tuple[str, dict[str, Any]]:
    """Return a section with its channels multiplied; those that heads read stay."""
    if width == 1 or options.get("activation") == "linear":
        return name, options
    scaled = dict(options)
    for option in ("filters", "output"):
        if option in options:
            scaled[option] = max(1, round(options[option] * width / _CHANNELS)) * _CHANNELS
    return name, scaled


def _pairs(anchors: Anchors) -> list[tuple[float, float]]:
    """Return anchors as pairs of positive floats, checked; none for None."""
    if anchors is None:
        return []
    try:
        pairs = [(float(w), float(h)) for w, h in anchors]
    except (TypeError, ValueError):
        raise TypeError(f"anchors must be pairs (width, height) in pixels, got {str(anchors)[:60]}") from None
    if not pairs or not all(0 < side < math.inf for pair in pairs for side in pair):
        raise ValueError(f"anchors must be positive pairs (width, height) in pixels, got {str(anchors)[:60]}")
    return pairs


def _joined(pairs: Iterable[tuple[float, float]]) -> str:
    return ", ".join(f"{width:.9g},{height:.9g}" for width, height in pairs)


def _net(size: int, step: int) -> Sections:
    if isinstance(size, bool) or not isinstance(size, int) or size < step or size % step:
        raise ValueError(f"size must be a multiple of {step} pixels, got {size!r}")
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

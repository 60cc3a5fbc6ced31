"""What ``weights`` may be, and how to get a file: nothing is downloaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastcv.models.detection.preset import ObjectDetection, meta_of

__all__ = [
    "FasterRCNN_MobileNet_V3_Large_320_FPN_Weights",
    "FasterRCNN_MobileNet_V3_Large_FPN_Weights",
    "FasterRCNN_ResNet50_FPN_V2_Weights",
    "FasterRCNN_ResNet50_FPN_Weights",
    "KeypointRCNN_ResNet50_FPN_Weights",
    "MaskRCNN_ResNet50_FPN_V2_Weights",
    "MaskRCNN_ResNet50_FPN_Weights",
    "Weights",
    "as_source",
    "legacy_weights",
]

Weights = str | Path | Mapping[str, Tensor] | None

_SITE = "https://download.pytorch.org/models/"

# torchvision's published checkpoints by the name of the model: what its DEFAULT is.
_PUBLISHED = {
    "fasterrcnn_resnet50_fpn": "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth",
    "fasterrcnn_resnet50_fpn_v2": "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth",
    "fasterrcnn_mobilenet_v3_large_fpn": "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth",
    "fasterrcnn_mobilenet_v3_large_320_fpn": "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth",
    "maskrcnn_resnet50_fpn": "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
    "maskrcnn_resnet50_fpn_v2": "maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth",
    "keypointrcnn_resnet50_fpn": "keypointrcnn_resnet50_fpn_coco-fc266e95.pth",
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-11ad3fa6.pth",
    "resnet101": "resnet101-cd907fc2.pth",
    "resnet152": "resnet152-f82ba261.pth",
    "mobilenet_v3_large": "mobilenet_v3_large-5c1a4163.pth",
}


class _Published(Enum):
    """Base of enumerations like torchvision's, so that programs which name one can be imported."""

    @property
    def url(self) -> str:
        """Where the checkpoint is."""
        return _SITE + str(self.value)

    @property
    def meta(self) -> dict[str, Any]:
        """The names of the classes by label, under ``"categories"``, and of keypoints, under ``"keypoint_names"``."""
        return meta_of(type(self).__name__.lower())

    @property
    def transforms(self) -> type[ObjectDetection]:
        """What makes an image ready for the detector: ``transforms()`` returns the function."""
        return ObjectDetection


def _enumeration(name: str, **more: str) -> Any:
    file = _PUBLISHED[name.removesuffix("_Weights").lower()]
    make: Any = _Published  # the functional form of Enum
    return make(name, {**more, "COCO_V1": file, "DEFAULT": file}, module=__name__)


FasterRCNN_ResNet50_FPN_Weights = _enumeration("FasterRCNN_ResNet50_FPN_Weights")
FasterRCNN_ResNet50_FPN_V2_Weights = _enumeration("FasterRCNN_ResNet50_FPN_V2_Weights")
FasterRCNN_MobileNet_V3_Large_FPN_Weights = _enumeration("FasterRCNN_MobileNet_V3_Large_FPN_Weights")
FasterRCNN_MobileNet_V3_Large_320_FPN_Weights = _enumeration("FasterRCNN_MobileNet_V3_Large_320_FPN_Weights")
MaskRCNN_ResNet50_FPN_Weights = _enumeration("MaskRCNN_ResNet50_FPN_Weights")
MaskRCNN_ResNet50_FPN_V2_Weights = _enumeration("MaskRCNN_ResNet50_FPN_V2_Weights")
KeypointRCNN_ResNet50_FPN_Weights = _enumeration(
    "KeypointRCNN_ResNet50_FPN_Weights", COCO_LEGACY="keypointrcnn_resnet50_fpn_coco-9f466800.pth"
)

# What people write that is no path: names of members of torchvision's enumerations.
_NAMES = ("DEFAULT", "COCO_V1", "COCO_LEGACY", "IMAGENET1K_V1", "IMAGENET1K_V2")


def legacy_weights(weights: Any, legacy: dict[str, Any], old: str, others: bool = False) -> Any:
    """Return the weights that are asked for by either name, torchvision's of today or its former one, a bool.

    Raises TypeError for other keywords, unless there may be ``others``.
    """
    asked = legacy.pop(old, None)
    if legacy and not others:
        raise TypeError(f"there is no argument {next(iter(legacy))!r}")
    return weights if weights is not None else asked


def as_source(weights: Any, argument: str, model: str) -> Weights:
    """Return a path, a state_dict or None, which False is too.

    What stands for a download is the path where torchvision keeps that file, if it is there.

    Parameters
    ----------
    weights
        What the user gave.
    argument
        Its name, for errors.
    model
        Whose weights they are.

    Raises
    ------
    FileNotFoundError
        For a path where there is no file. The message says how to get it.
    ValueError
        For what stands for a download, a member of torchvision's enumerations, its name, or True, where torchvision
        has not kept the file. Likewise.
    TypeError
        For anything else.
    """
    if weights is None or weights is False:
        return None
    if isinstance(weights, Mapping):
        return weights
    url = getattr(weights, "url", None)  # a member of torchvision's enumerations
    if url is None and weights is True:
        url = _url(model)
    if isinstance(weights, str) and (weights in _NAMES or weights.split(".")[0].endswith("_Weights")):
        url = _url(model)
    kept = None if url is None else Path(torch.hub.get_dir(), "checkpoints", str(url).rsplit("/", 1)[-1])
    if kept is not None and kept.is_file():
        return kept
    if url is not None or weights is True or (isinstance(weights, str) and weights in _NAMES):
        raise ValueError(
            f"{argument} must be the path of a checkpoint or a state_dict, got {weights!s}: nothing is downloaded. "
            + (_how_to_get(str(url), argument) if url else f"There is no published checkpoint of {model}.")
        )
    if not isinstance(weights, str | os.PathLike):
        raise TypeError(
            f"{argument} must be the path of a checkpoint, a state_dict or None, got {type(weights).__name__}"
        )
    path = Path(weights)
    if not path.is_file():
        name = path.name
        known = name if name in _PUBLISHED.values() else _PUBLISHED.get(model)
        hint = f" Nothing is downloaded. {_how_to_get(_SITE + known, argument)}" if known else ""
        raise FileNotFoundError(f"there is no checkpoint {path}.{hint}")
    return path


def _url(model: str) -> str | None:
    return _SITE + _PUBLISHED[model] if model in _PUBLISHED else None


def _how_to_get(url: str, argument: str) -> str:
    file = url.rsplit("/", 1)[-1]
    return (
        f"Get torchvision's with: curl -LO {url} and pass {argument}={file!r}, or pass the state_dict() of a model of "
        "torchvision."
    )

"""Keypoint R-CNN: boxes, classes and keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from fastcv.models.detection._paths import found_in_package
from fastcv.models.detection.faster_rcnn import FasterRCNN, check_type, out_channels
from fastcv.models.detection.keypoint_head import KeypointRCNNHeads, KeypointRCNNPredictor
from fastcv.nn.multiscale_roi_align import MultiScaleRoIAlign

__all__ = ["KeypointRCNN", "KeypointRCNNHeads", "KeypointRCNNPredictor"]


class KeypointRCNN(FasterRCNN):
    """Keypoint R-CNN on any backbone. Keywords and parameters' names are torchvision's.

    Parameters
    ----------
    backbone, num_classes
        As in :class:`FasterRCNN`.
    min_size
        As in :class:`DetectionTransform`. Default: 640, 672 ... 800.
    keypoint_roi_pool, keypoint_head, keypoint_predictor
        Default: 14x14 bins, eight convolutions of 512 channels, and heat maps of 56x56.
    num_keypoints : int, optional
        Keypoints per object. Default: 17. Must be None if ``keypoint_predictor`` is given.
    **kwargs
        Keywords of :class:`FasterRCNN`.

    References
    ----------
    He, Gkioxari, Dollar, Girshick: Mask R-CNN (2017), section 5.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int | None = None,
        min_size: int | Sequence[int] | None = None,
        *,
        keypoint_roi_pool: MultiScaleRoIAlign | None = None,
        keypoint_head: nn.Module | None = None,
        keypoint_predictor: nn.Module | None = None,
        num_keypoints: int | None = None,
        **kwargs: Any,
    ) -> None:
        check_type(keypoint_roi_pool, MultiScaleRoIAlign, "keypoint_roi_pool")
        if num_keypoints is not None and keypoint_predictor is not None:
            raise ValueError("num_keypoints must be None when keypoint_predictor is given")
        super().__init__(backbone, num_classes, min_size or (640, 672, 704, 736, 768, 800), **kwargs)
        channels = out_channels(backbone)
        heads = self.roi_heads
        heads.keypoint_roi_pool = keypoint_roi_pool or MultiScaleRoIAlign(["0", "1", "2", "3"], 14, sampling_ratio=2)
        heads.keypoint_head = keypoint_head or KeypointRCNNHeads(channels, (512,) * 8)
        heads.keypoint_predictor = keypoint_predictor or KeypointRCNNPredictor(512, num_keypoints or 17)


def __getattr__(name: str) -> Any:
    return found_in_package(__name__, name, "keypointrcnn")

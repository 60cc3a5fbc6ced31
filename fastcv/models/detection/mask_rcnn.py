"""Mask R-CNN: boxes, classes and masks."""

from __future__ import annotations

from typing import Any

from torch import nn

from fastcv.models.detection._paths import found_in_package
from fastcv.models.detection.faster_rcnn import FasterRCNN, check_type, out_channels
from fastcv.models.detection.mask_head import MaskRCNNHeads, MaskRCNNPredictor
from fastcv.nn.multiscale_roi_align import MultiScaleRoIAlign

__all__ = ["MaskRCNN", "MaskRCNNHeads", "MaskRCNNPredictor"]


class MaskRCNN(FasterRCNN):
    """Mask R-CNN on any backbone. Keywords and parameters' names are torchvision's.

    Parameters
    ----------
    backbone, num_classes
        As in :class:`FasterRCNN`.
    mask_roi_pool, mask_head, mask_predictor
        Default: 14x14 bins, four convolutions of 256 channels, and masks of 28x28.
    **kwargs
        Keywords of :class:`FasterRCNN`.

    References
    ----------
    He, Gkioxari, Dollar, Girshick: Mask R-CNN (2017).
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int | None = None,
        *,
        mask_roi_pool: MultiScaleRoIAlign | None = None,
        mask_head: nn.Module | None = None,
        mask_predictor: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        check_type(mask_roi_pool, MultiScaleRoIAlign, "mask_roi_pool")
        if (num_classes is None) == (mask_predictor is None):
            raise ValueError("exactly one of num_classes and mask_predictor must be given")
        super().__init__(backbone, num_classes, **kwargs)
        channels = out_channels(backbone)
        heads = self.roi_heads
        heads.mask_roi_pool = mask_roi_pool or MultiScaleRoIAlign(["0", "1", "2", "3"], 14, sampling_ratio=2)
        heads.mask_head = mask_head or MaskRCNNHeads(channels, (256, 256, 256, 256))
        heads.mask_predictor = mask_predictor or MaskRCNNPredictor(256, 256, num_classes or 0)


def __getattr__(name: str) -> Any:
    return found_in_package(__name__, name, "maskrcnn")

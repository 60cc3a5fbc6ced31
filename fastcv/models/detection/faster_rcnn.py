"""Faster R-CNN: boxes and classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from fastcv.models.detection._paths import found_in_package
from fastcv.models.detection.anchor_generator import AnchorGenerator
from fastcv.models.detection.box_head import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from fastcv.models.detection.generalized_rcnn import GeneralizedRCNN
from fastcv.models.detection.region_proposal import RegionProposalNetwork, RPNHead
from fastcv.models.detection.roi_heads import RoIHeads
from fastcv.models.detection.transform import MEAN, STD, DetectionTransform
from fastcv.nn.multiscale_roi_align import MultiScaleRoIAlign

__all__ = ["FastRCNNConvFCHead", "FastRCNNPredictor", "FasterRCNN", "TwoMLPHead"]


class FasterRCNN(GeneralizedRCNN):
    """Faster R-CNN on any backbone. Keywords and parameters' names are torchvision's.

    Parameters
    ----------
    backbone : nn.Module
        From images to a dictionary of feature maps, with an attribute ``out_channels``.
    num_classes : int
        Classes, background included; None if ``box_predictor`` is given.
    min_size, max_size, image_mean, image_std
        As in :class:`DetectionTransform`. Keywords that are not listed here are passed to it.
    rpn_anchor_generator, rpn_head
        Default: five anchor sizes × three aspect ratios, and a head with one convolution.
    rpn_...
        As in :class:`RegionProposalNetwork`; ``_train`` in training, ``_test`` in evaluation.
    box_roi_pool, box_head, box_predictor
        Default: 7x7 bins, two linear layers of 1024 features, and one layer each for classes and boxes.
    box_..., bbox_reg_weights
        As in :class:`RoIHeads`.

    References
    ----------
    Ren, He, Girshick, Sun: Faster R-CNN (2015).
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int | None = None,
        min_size: int | Sequence[int] = 800,
        max_size: int = 1333,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        rpn_anchor_generator: AnchorGenerator | None = None,
        rpn_head: nn.Module | None = None,
        rpn_pre_nms_top_n_train: int = 2000,
        rpn_pre_nms_top_n_test: int = 1000,
        rpn_post_nms_top_n_train: int = 2000,
        rpn_post_nms_top_n_test: int = 1000,
        rpn_nms_thresh: float = 0.7,
        rpn_fg_iou_thresh: float = 0.7,
        rpn_bg_iou_thresh: float = 0.3,
        rpn_batch_size_per_image: int = 256,
        rpn_positive_fraction: float = 0.5,
        rpn_score_thresh: float = 0.0,
        box_roi_pool: MultiScaleRoIAlign | None = None,
        box_head: nn.Module | None = None,
        box_predictor: nn.Module | None = None,
        box_score_thresh: float = 0.05,
        box_nms_thresh: float = 0.5,
        box_detections_per_img: int = 100,
        box_fg_iou_thresh: float = 0.5,
        box_bg_iou_thresh: float = 0.5,
        box_batch_size_per_image: int = 512,
        box_positive_fraction: float = 0.25,
        bbox_reg_weights: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        channels: int = out_channels(backbone)
        check_type(rpn_anchor_generator, AnchorGenerator, "rpn_anchor_generator")
        check_type(box_roi_pool, MultiScaleRoIAlign, "box_roi_pool")
        if (num_classes is None) == (box_predictor is None):
            raise ValueError("exactly one of num_classes and box_predictor must be given")
        anchors = rpn_anchor_generator or AnchorGenerator(
            ((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5
        )
        rpn = RegionProposalNetwork(
            anchors,
            rpn_head or RPNHead(channels, anchors.num_anchors_per_location()[0]),
            rpn_fg_iou_thresh,
            rpn_bg_iou_thresh,
            rpn_batch_size_per_image,
            rpn_positive_fraction,
            {"training": rpn_pre_nms_top_n_train, "testing": rpn_pre_nms_top_n_test},
            {"training": rpn_post_nms_top_n_train, "testing": rpn_post_nms_top_n_test},
            rpn_nms_thresh,
            rpn_score_thresh,
        )
        pool = box_roi_pool or MultiScaleRoIAlign(["0", "1", "2", "3"], output_size=7, sampling_ratio=2)
        bins = math.prod(pool.output_size)
        roi_heads = RoIHeads(
            pool,
            box_head or TwoMLPHead(channels * bins, 1024),
            box_predictor or FastRCNNPredictor(1024, num_classes or 0),
            box_fg_iou_thresh,
            box_bg_iou_thresh,
            box_batch_size_per_image,
            box_positive_fraction,
            bbox_reg_weights,
            box_score_thresh,
            box_nms_thresh,
            box_detections_per_img,
        )
        mean, std = MEAN if image_mean is None else image_mean, STD if image_std is None else image_std
        transform = DetectionTransform(min_size, max_size, mean, std, **kwargs)
        super().__init__(backbone, rpn, roi_heads, transform)


def out_channels(backbone: nn.Module) -> int:
    """Return the number of channels of a backbone's feature maps."""
    channels = getattr(backbone, "out_channels", None)
    if not isinstance(channels, int):
        raise ValueError("backbone must have an attribute out_channels: the number of channels of its maps")
    return channels


def check_type(value: Any, kind: type, name: str) -> None:
    """Raise TypeError unless ``value`` is None or of that kind."""
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__} or None, got {type(value).__name__}")


def __getattr__(name: str) -> Any:
    return found_in_package(__name__, name, "fasterrcnn")

"""The R-CNN family, with torchvision's names, keywords and checkpoints."""

from fastcv.models.detection.backbone import BackboneWithFPN, resnet_fpn_backbone
from fastcv.models.detection.builders import MODELS, create
from fastcv.models.detection.faster_rcnn import FasterRCNN, fasterrcnn_resnet50_fpn
from fastcv.models.detection.generalized_rcnn import GeneralizedRCNN
from fastcv.models.detection.keypoint_rcnn import KeypointRCNN, keypointrcnn_resnet50_fpn
from fastcv.models.detection.mask_rcnn import MaskRCNN, maskrcnn_resnet50_fpn
from fastcv.models.detection.weights import load_weights

__all__ = [
    "MODELS",
    "BackboneWithFPN",
    "FasterRCNN",
    "GeneralizedRCNN",
    "KeypointRCNN",
    "MaskRCNN",
    "create",
    "fasterrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "load_weights",
    "maskrcnn_resnet50_fpn",
    "resnet_fpn_backbone",
]

"""The R-CNN family, with torchvision's names, keywords and checkpoints."""

from fastcv.models.detection.anchor_generator import AnchorGenerator
from fastcv.models.detection.backbone import BackboneWithFPN, mobilenet_backbone, resnet_fpn_backbone
from fastcv.models.detection.box_head import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from fastcv.models.detection.builders import (
    MODELS,
    create,
    fasterrcnn_mobilenet_v3_large_320_fpn,
    fasterrcnn_mobilenet_v3_large_fpn,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
    keypointrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
)
from fastcv.models.detection.checkpoints import (
    FasterRCNN_MobileNet_V3_Large_320_FPN_Weights,
    FasterRCNN_MobileNet_V3_Large_FPN_Weights,
    FasterRCNN_ResNet50_FPN_V2_Weights,
    FasterRCNN_ResNet50_FPN_Weights,
    KeypointRCNN_ResNet50_FPN_Weights,
    MaskRCNN_ResNet50_FPN_V2_Weights,
    MaskRCNN_ResNet50_FPN_Weights,
)
from fastcv.models.detection.faster_rcnn import FasterRCNN
from fastcv.models.detection.generalized_rcnn import GeneralizedRCNN
from fastcv.models.detection.keypoint_head import KeypointRCNNHeads, KeypointRCNNPredictor, heatmaps_to_keypoints
from fastcv.models.detection.keypoint_rcnn import KeypointRCNN
from fastcv.models.detection.mask_head import MaskRCNNHeads, MaskRCNNPredictor
from fastcv.models.detection.mask_rcnn import MaskRCNN
from fastcv.models.detection.region_proposal import RegionProposalNetwork, RPNHead
from fastcv.models.detection.resnet import ResNet, resnet
from fastcv.models.detection.roi_heads import RoIHeads
from fastcv.models.detection.sampler import BalancedSampler
from fastcv.models.detection.transform import DetectionTransform, GeneralizedRCNNTransform, ImageList
from fastcv.models.detection.weights import load_weights

__all__ = [
    "MODELS",
    "AnchorGenerator",
    "BackboneWithFPN",
    "BalancedSampler",
    "DetectionTransform",
    "FastRCNNConvFCHead",
    "FastRCNNPredictor",
    "FasterRCNN",
    "FasterRCNN_MobileNet_V3_Large_320_FPN_Weights",
    "FasterRCNN_MobileNet_V3_Large_FPN_Weights",
    "FasterRCNN_ResNet50_FPN_V2_Weights",
    "FasterRCNN_ResNet50_FPN_Weights",
    "GeneralizedRCNN",
    "GeneralizedRCNNTransform",
    "ImageList",
    "KeypointRCNN",
    "KeypointRCNNHeads",
    "KeypointRCNNPredictor",
    "KeypointRCNN_ResNet50_FPN_Weights",
    "MaskRCNN",
    "MaskRCNNHeads",
    "MaskRCNNPredictor",
    "MaskRCNN_ResNet50_FPN_V2_Weights",
    "MaskRCNN_ResNet50_FPN_Weights",
    "RPNHead",
    "RegionProposalNetwork",
    "ResNet",
    "RoIHeads",
    "TwoMLPHead",
    "create",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "heatmaps_to_keypoints",
    "keypointrcnn_resnet50_fpn",
    "load_weights",
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
    "mobilenet_backbone",
    "resnet",
    "resnet_fpn_backbone",
]

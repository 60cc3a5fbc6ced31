"""The path of ``torchvision.models.detection.backbone_utils``."""

from fastcv.models.detection.backbone import BackboneWithFPN, mobilenet_backbone, resnet_fpn_backbone
from fastcv.nn.feature_pyramid import ExtraFPNBlock, FeaturePyramidNetwork, LastLevelMaxPool

__all__ = [
    "BackboneWithFPN",
    "ExtraFPNBlock",
    "FeaturePyramidNetwork",
    "LastLevelMaxPool",
    "mobilenet_backbone",
    "resnet_fpn_backbone",
]

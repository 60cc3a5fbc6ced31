"""Layers made of the operators. Where torchvision has the layer, name and arguments are its own."""

from fastcv.nn.anchor_generator import AnchorGenerator
from fastcv.nn.batch_norm import FrozenBatchNorm2d
from fastcv.nn.box_head import FastRCNNPredictor, TwoMLPHead
from fastcv.nn.conv_transpose import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from fastcv.nn.detection_transform import DetectionTransform, ImageList
from fastcv.nn.feature_pyramid import FeaturePyramidNetwork
from fastcv.nn.keypoint_head import KeypointRCNNHeads, KeypointRCNNPredictor, heatmaps_to_keypoints
from fastcv.nn.mask_head import MaskRCNNHeads, MaskRCNNPredictor
from fastcv.nn.max_pool2d import MaxPool2d, MaxUnpool2d
from fastcv.nn.multiscale_roi_align import MultiScaleRoIAlign
from fastcv.nn.ps_roi_align import PSRoIAlign
from fastcv.nn.ps_roi_pool import PSRoIPool
from fastcv.nn.region_proposal import RegionProposalNetwork, RPNHead
from fastcv.nn.resnet import ResNet, resnet
from fastcv.nn.roi_align import RoIAlign
from fastcv.nn.roi_heads import RoIHeads
from fastcv.nn.roi_pool import RoIPool
from fastcv.nn.sampler import BalancedSampler
from fastcv.nn.unpool import UnpoolBedOfNails, UnpoolNearest
from fastcv.nn.upsample_bilinear2d import UpsampleBilinear2d

__all__ = [
    "AnchorGenerator",
    "BalancedSampler",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "DetectionTransform",
    "FastRCNNPredictor",
    "FeaturePyramidNetwork",
    "FrozenBatchNorm2d",
    "ImageList",
    "KeypointRCNNHeads",
    "KeypointRCNNPredictor",
    "MaskRCNNHeads",
    "MaskRCNNPredictor",
    "MaxPool2d",
    "MaxUnpool2d",
    "MultiScaleRoIAlign",
    "PSRoIAlign",
    "PSRoIPool",
    "RPNHead",
    "RegionProposalNetwork",
    "ResNet",
    "RoIAlign",
    "RoIHeads",
    "RoIPool",
    "TwoMLPHead",
    "UnpoolBedOfNails",
    "UnpoolNearest",
    "UpsampleBilinear2d",
    "heatmaps_to_keypoints",
    "resnet",
]

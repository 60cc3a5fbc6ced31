"""Layers made of the operators. Where torchvision or torch.nn has the layer, name and arguments are its own."""

from typing import Any

from fastcv.nn.batch_norm import FrozenBatchNorm2d
from fastcv.nn.blocks import (
    MLP,
    Conv2dNormActivation,
    Conv3dNormActivation,
    ConvNormActivation,
    Permute,
    SqueezeExcitation,
)
from fastcv.nn.conv2d import Conv2d
from fastcv.nn.conv_transpose import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from fastcv.nn.deform_conv2d import DeformConv2d
from fastcv.nn.drop_block import DropBlock2d, DropBlock3d
from fastcv.nn.feature_pyramid import ExtraFPNBlock, FeaturePyramidNetwork, LastLevelMaxPool, LastLevelP6P7
from fastcv.nn.max_pool2d import MaxPool2d, MaxUnpool2d
from fastcv.nn.multiscale_roi_align import LevelMapper, MultiScaleRoIAlign
from fastcv.nn.ps_roi_align import PSRoIAlign
from fastcv.nn.ps_roi_pool import PSRoIPool
from fastcv.nn.roi_align import RoIAlign
from fastcv.nn.roi_align_rotated import RoIAlignRotated
from fastcv.nn.roi_pool import RoIPool
from fastcv.nn.stochastic_depth import StochasticDepth
from fastcv.nn.unpool import UnpoolBedOfNails, UnpoolNearest
from fastcv.nn.upsample_bilinear2d import UpsampleBilinear2d
from fastcv.ops._scripting import refuse_to_script

__all__ = [
    "MLP",
    "Conv2d",
    "Conv2dNormActivation",
    "Conv3dNormActivation",
    "ConvNormActivation",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "DeformConv2d",
    "DropBlock2d",
    "DropBlock3d",
    "ExtraFPNBlock",
    "FeaturePyramidNetwork",
    "FrozenBatchNorm2d",
    "LastLevelMaxPool",
    "LastLevelP6P7",
    "LevelMapper",
    "MaxPool2d",
    "MaxUnpool2d",
    "MultiScaleRoIAlign",
    "PSRoIAlign",
    "PSRoIPool",
    "Permute",
    "RoIAlign",
    "RoIAlignRotated",
    "RoIPool",
    "SqueezeExcitation",
    "StochasticDepth",
    "UnpoolBedOfNails",
    "UnpoolNearest",
    "UpsampleBilinear2d",
]

refuse_to_script(
    (
        Conv2d,
        ConvTranspose1d,
        ConvTranspose2d,
        ConvTranspose3d,
        DeformConv2d,
        FeaturePyramidNetwork,
        FrozenBatchNorm2d,
        MaxPool2d,
        MaxUnpool2d,
        MultiScaleRoIAlign,
        PSRoIAlign,
        PSRoIPool,
        RoIAlign,
        RoIAlignRotated,
        RoIPool,
        UnpoolBedOfNails,
        UnpoolNearest,
        UpsampleBilinear2d,
    )
)

# Parts of detectors that used to be here. They are found on demand: importing this package loads no model.
_MOVED_TO_DETECTION = frozenset({
    "AnchorGenerator", "BalancedSampler", "DetectionTransform", "FastRCNNPredictor", "ImageList", "KeypointRCNNHeads",
    "KeypointRCNNPredictor", "MaskRCNNHeads", "MaskRCNNPredictor", "RPNHead", "RegionProposalNetwork", "ResNet",
    "RoIHeads", "TwoMLPHead", "heatmaps_to_keypoints", "resnet",
})  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MOVED_TO_DETECTION:
        from importlib import import_module

        return getattr(import_module("fastcv.models.detection"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

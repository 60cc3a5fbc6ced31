"""Layers made of the operators. Where torchvision has the layer, name and arguments are its own."""

from fastcv.nn.anchor_generator import AnchorGenerator
from fastcv.nn.conv_transpose import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from fastcv.nn.max_pool2d import MaxPool2d, MaxUnpool2d
from fastcv.nn.multiscale_roi_align import MultiScaleRoIAlign
from fastcv.nn.ps_roi_align import PSRoIAlign
from fastcv.nn.ps_roi_pool import PSRoIPool
from fastcv.nn.roi_align import RoIAlign
from fastcv.nn.roi_pool import RoIPool
from fastcv.nn.unpool import UnpoolBedOfNails, UnpoolNearest
from fastcv.nn.upsample_bilinear2d import UpsampleBilinear2d

__all__ = [
    "AnchorGenerator",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "MaxPool2d",
    "MaxUnpool2d",
    "MultiScaleRoIAlign",
    "PSRoIAlign",
    "PSRoIPool",
    "RoIAlign",
    "RoIPool",
    "UnpoolBedOfNails",
    "UnpoolNearest",
    "UpsampleBilinear2d",
]

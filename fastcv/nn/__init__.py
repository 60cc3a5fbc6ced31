"""Layers made of the operators. Where torchvision has the layer, name and arguments are its own."""

from fastcv.nn.anchor_generator import AnchorGenerator
from fastcv.nn.roi_align import RoIAlign

__all__ = ["AnchorGenerator", "RoIAlign"]

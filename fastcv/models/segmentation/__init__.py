"""Models that give each pixel a class."""

from fastcv.models.segmentation.unet import UNet

__all__ = ["UNet"]

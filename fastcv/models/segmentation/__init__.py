"""Models for semantic segmentation."""

from fastcv.models.segmentation.unet import UNet

__all__ = ["UNet"]

"""The path of ``torchvision.models.detection.anchor_utils``."""

from fastcv.models.detection.anchor_generator import AnchorGenerator
from fastcv.models.detection.transform import ImageList

__all__ = ["AnchorGenerator", "ImageList"]

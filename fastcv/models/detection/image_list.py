"""The path of ``torchvision.models.detection.image_list``."""

from fastcv.models.detection.transform import ImageList

__all__ = ["ImageList"]

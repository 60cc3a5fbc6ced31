"""The path of ``torchvision.ops.focal_loss``."""

from fastcv.ops.sigmoid_focal_loss import sigmoid_focal_loss

__all__ = ["sigmoid_focal_loss"]

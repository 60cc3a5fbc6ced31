"""The path of ``torchvision.ops.diou_loss``."""

from fastcv.ops.box_iou_loss import distance_box_iou_loss

__all__ = ["distance_box_iou_loss"]

"""The path of ``torchvision.ops.giou_loss``."""

from fastcv.ops.box_iou_loss import generalized_box_iou_loss

__all__ = ["generalized_box_iou_loss"]

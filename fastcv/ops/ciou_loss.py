"""The path of ``torchvision.ops.ciou_loss``."""

from fastcv.ops.box_iou_loss import complete_box_iou_loss

__all__ = ["complete_box_iou_loss"]

"""The operators in plain torch: slow and obvious. What they say is right; the kernels are tested against them."""

from fastcv.reference.box_iou import box_iou, complete_box_iou, distance_box_iou, generalized_box_iou
from fastcv.reference.box_iou_loss import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss
from fastcv.reference.boxes import masks_to_boxes
from fastcv.reference.roi_align import roi_align
from fastcv.reference.sigmoid_focal_loss import sigmoid_focal_loss

__all__ = [
    "box_iou",
    "complete_box_iou",
    "complete_box_iou_loss",
    "distance_box_iou",
    "distance_box_iou_loss",
    "generalized_box_iou",
    "generalized_box_iou_loss",
    "masks_to_boxes",
    "roi_align",
    "sigmoid_focal_loss",
]

"""The operators, as functions. Where torchvision has the operator, name, arguments and meaning are its own."""

from fastcv.ops._build import build_info
from fastcv.ops.box_iou import box_iou, complete_box_iou, distance_box_iou, generalized_box_iou
from fastcv.ops.box_iou_loss import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss
from fastcv.ops.boxes import box_area, box_convert, clip_boxes_to_image, masks_to_boxes, remove_small_boxes
from fastcv.ops.roi_align import roi_align
from fastcv.ops.sigmoid_focal_loss import sigmoid_focal_loss

__all__ = [
    "box_area",
    "box_convert",
    "box_iou",
    "build_info",
    "clip_boxes_to_image",
    "complete_box_iou",
    "complete_box_iou_loss",
    "distance_box_iou",
    "distance_box_iou_loss",
    "generalized_box_iou",
    "generalized_box_iou_loss",
    "masks_to_boxes",
    "remove_small_boxes",
    "roi_align",
    "sigmoid_focal_loss",
]

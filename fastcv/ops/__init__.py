"""The operators, as functions. Where torchvision has the operator, name, arguments and meaning are its own."""

from fastcv.ops._build import build_info
from fastcv.ops.anchors import anchor_grid, decode_anchors
from fastcv.ops.box_coding import decode_boxes, encode_boxes
from fastcv.ops.box_iou import box_iou, complete_box_iou, distance_box_iou, generalized_box_iou
from fastcv.ops.box_iou_loss import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss
from fastcv.ops.boxes import box_area, box_convert, clip_boxes_to_image, masks_to_boxes, remove_small_boxes
from fastcv.ops.conv_transpose import conv_transpose1d, conv_transpose2d, conv_transpose3d
from fastcv.ops.conv_transpose_matrix import conv_transpose_matrix
from fastcv.ops.match_boxes import match_boxes
from fastcv.ops.multiscale_roi_align import multiscale_roi_align
from fastcv.ops.nms import batched_nms, batched_nms_padded, nms
from fastcv.ops.ps_roi_align import ps_roi_align
from fastcv.ops.ps_roi_pool import ps_roi_pool
from fastcv.ops.roi_align import roi_align
from fastcv.ops.roi_pool import roi_pool
from fastcv.ops.sigmoid_focal_loss import sigmoid_focal_loss
from fastcv.ops.soft_nms import soft_nms

__all__ = [
    "anchor_grid",
    "batched_nms",
    "batched_nms_padded",
    "box_area",
    "box_convert",
    "box_iou",
    "build_info",
    "clip_boxes_to_image",
    "complete_box_iou",
    "complete_box_iou_loss",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "conv_transpose_matrix",
    "decode_anchors",
    "decode_boxes",
    "distance_box_iou",
    "distance_box_iou_loss",
    "encode_boxes",
    "generalized_box_iou",
    "generalized_box_iou_loss",
    "masks_to_boxes",
    "match_boxes",
    "multiscale_roi_align",
    "nms",
    "ps_roi_align",
    "ps_roi_pool",
    "remove_small_boxes",
    "roi_align",
    "roi_pool",
    "sigmoid_focal_loss",
    "soft_nms",
]

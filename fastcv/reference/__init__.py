"""The operators in plain torch: slow and obvious. What they say is right; the kernels are tested against them."""

from fastcv.reference.anchors import anchor_grid, decode_anchors
from fastcv.reference.box_coding import decode_boxes, encode_boxes
from fastcv.reference.box_iou import box_iou, complete_box_iou, distance_box_iou, generalized_box_iou
from fastcv.reference.box_iou_loss import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss
from fastcv.reference.box_iou_rotated import box_iou_rotated
from fastcv.reference.boxes import masks_to_boxes
from fastcv.reference.conv2d import conv2d
from fastcv.reference.conv_transpose import conv_transpose
from fastcv.reference.decode_yolo import decode_yolo, decode_yolo_v1
from fastcv.reference.deform_conv2d import deform_conv2d
from fastcv.reference.devoxelize import devoxelize
from fastcv.reference.match_boxes import match_boxes
from fastcv.reference.max_pool2d import max_pool2d_with_indices, max_unpool2d
from fastcv.reference.multiscale_roi_align import multiscale_roi_align
from fastcv.reference.nms import batched_nms, batched_nms_rotated, nms, nms_rotated
from fastcv.reference.paste_masks import paste_masks
from fastcv.reference.point_sets import (
    ball_query,
    farthest_point_sample,
    gather_points,
    group_points,
    knn,
    three_interpolate,
    three_nn,
)
from fastcv.reference.ps_roi_align import ps_roi_align
from fastcv.reference.ps_roi_pool import ps_roi_pool
from fastcv.reference.roi_align import roi_align
from fastcv.reference.roi_align_rotated import roi_align_rotated
from fastcv.reference.roi_pool import roi_pool
from fastcv.reference.sigmoid_focal_loss import sigmoid_focal_loss
from fastcv.reference.soft_nms import soft_nms
from fastcv.reference.sparse_conv import sparse_conv
from fastcv.reference.sparse_kernel_map import sparse_kernel_map
from fastcv.reference.sparse_pool import sparse_avg_pool, sparse_max_pool
from fastcv.reference.unpool import unpool_bed_of_nails, unpool_nearest
from fastcv.reference.upsample_bilinear2d import upsample_bilinear2d
from fastcv.reference.voxel_scatter import voxel_scatter
from fastcv.reference.voxelize import voxel_ids, voxel_occupancy, voxelize

__all__ = [
    "anchor_grid",
    "ball_query",
    "batched_nms",
    "batched_nms_rotated",
    "box_iou",
    "box_iou_rotated",
    "complete_box_iou",
    "complete_box_iou_loss",
    "conv2d",
    "conv_transpose",
    "decode_anchors",
    "decode_boxes",
    "decode_yolo",
    "decode_yolo_v1",
    "deform_conv2d",
    "devoxelize",
    "distance_box_iou",
    "distance_box_iou_loss",
    "encode_boxes",
    "farthest_point_sample",
    "gather_points",
    "generalized_box_iou",
    "generalized_box_iou_loss",
    "group_points",
    "knn",
    "masks_to_boxes",
    "match_boxes",
    "max_pool2d_with_indices",
    "max_unpool2d",
    "multiscale_roi_align",
    "nms",
    "nms_rotated",
    "paste_masks",
    "ps_roi_align",
    "ps_roi_pool",
    "roi_align",
    "roi_align_rotated",
    "roi_pool",
    "sigmoid_focal_loss",
    "soft_nms",
    "sparse_avg_pool",
    "sparse_conv",
    "sparse_kernel_map",
    "sparse_max_pool",
    "three_interpolate",
    "three_nn",
    "unpool_bed_of_nails",
    "unpool_nearest",
    "upsample_bilinear2d",
    "voxel_ids",
    "voxel_occupancy",
    "voxel_scatter",
    "voxelize",
]

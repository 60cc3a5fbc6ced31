"""The operators, as functions. Where torchvision has the operator, name, arguments and meaning are its own.

The layers of ``torchvision.ops`` are found here too; they live in :mod:`fastcv.nn`.
"""

from importlib import import_module
from typing import Any

# torch comes before the compiled module: it brings the OpenMP runtime that both share.
import torch

if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
    raise ImportError(
        f"fastcv needs torch >= 2.10, whose tensors offer the DLPack exchange API; found torch {torch.__version__}. "
        "Upgrade with: pip install 'torch>=2.10'"
    )

from fastcv.ops._build import build_info
from fastcv.ops._layers import LAYERS, found_in_nn
from fastcv.ops._scripting import refuse_to_script
from fastcv.ops.anchors import anchor_grid, decode_anchors
from fastcv.ops.ball_query import ball_query
from fastcv.ops.box_coding import decode_boxes, encode_boxes
from fastcv.ops.box_iou import box_iou, complete_box_iou, distance_box_iou, generalized_box_iou
from fastcv.ops.box_iou_loss import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss
from fastcv.ops.box_iou_rotated import box_iou_rotated
from fastcv.ops.boxes import box_area, box_convert, clip_boxes_to_image, masks_to_boxes, remove_small_boxes
from fastcv.ops.conv2d import conv2d
from fastcv.ops.conv_transpose import conv_transpose1d, conv_transpose2d, conv_transpose3d
from fastcv.ops.conv_transpose_matrix import conv_transpose_matrix
from fastcv.ops.decode_yolo import decode_yolo, decode_yolo_v1
from fastcv.ops.deform_conv2d import deform_conv2d
from fastcv.ops.devoxelize import devoxelize
from fastcv.ops.drop_block import drop_block2d, drop_block3d
from fastcv.ops.farthest_point_sample import farthest_point_sample
from fastcv.ops.group_points import gather_points, group_points, three_interpolate
from fastcv.ops.knn import knn, three_nn
from fastcv.ops.match_boxes import match_boxes
from fastcv.ops.max_pool2d import max_pool2d_with_indices, max_unpool2d
from fastcv.ops.multiscale_roi_align import multiscale_roi_align
from fastcv.ops.nms import batched_nms, batched_nms_padded, batched_nms_rotated, nms, nms_rotated
from fastcv.ops.paste_masks import paste_masks
from fastcv.ops.ps_roi_align import ps_roi_align
from fastcv.ops.ps_roi_pool import ps_roi_pool
from fastcv.ops.roi_align import roi_align
from fastcv.ops.roi_align_rotated import roi_align_rotated
from fastcv.ops.roi_pool import roi_pool
from fastcv.ops.sigmoid_focal_loss import sigmoid_focal_loss
from fastcv.ops.soft_nms import soft_nms
from fastcv.ops.sparse_conv import sparse_conv
from fastcv.ops.sparse_kernel_map import sparse_kernel_map, sparse_reverse_map, sparse_row_order
from fastcv.ops.sparse_pool import sparse_avg_pool, sparse_max_pool
from fastcv.ops.stochastic_depth import stochastic_depth
from fastcv.ops.unpool import unpool_bed_of_nails, unpool_nearest
from fastcv.ops.upsample_bilinear2d import upsample_bilinear2d
from fastcv.ops.voxel_ids import voxel_grid_size, voxel_ids, voxel_occupancy
from fastcv.ops.voxel_scatter import voxel_scatter
from fastcv.ops.voxelize import voxelize, voxelize_padded

__all__ = [
    "anchor_grid",
    "ball_query",
    "batched_nms",
    "batched_nms_padded",
    "batched_nms_rotated",
    "box_area",
    "box_convert",
    "box_iou",
    "box_iou_rotated",
    "build_info",
    "clip_boxes_to_image",
    "complete_box_iou",
    "complete_box_iou_loss",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "conv_transpose_matrix",
    "decode_anchors",
    "decode_boxes",
    "decode_yolo",
    "decode_yolo_v1",
    "deform_conv2d",
    "devoxelize",
    "distance_box_iou",
    "distance_box_iou_loss",
    "drop_block2d",
    "drop_block3d",
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
    "remove_small_boxes",
    "roi_align",
    "roi_align_rotated",
    "roi_pool",
    "sigmoid_focal_loss",
    "soft_nms",
    "sparse_avg_pool",
    "sparse_conv",
    "sparse_kernel_map",
    "sparse_max_pool",
    "sparse_reverse_map",
    "sparse_row_order",
    "stochastic_depth",
    "three_interpolate",
    "three_nn",
    "unpool_bed_of_nails",
    "unpool_nearest",
    "upsample_bilinear2d",
    "voxel_grid_size",
    "voxel_ids",
    "voxel_occupancy",
    "voxel_scatter",
    "voxelize",
    "voxelize_padded",
]

for _path in (
    "boxes",
    "ciou_loss",
    "deform_conv",
    "diou_loss",
    "feature_pyramid_network",
    "focal_loss",
    "giou_loss",
    "misc",
    "poolers",
):
    import_module(f"{__name__}.{_path}")

refuse_to_script(globals()[_name] for _name in __all__)


def __getattr__(name: str) -> Any:
    return found_in_nn(__name__, name, LAYERS)


def __dir__() -> list[str]:
    return sorted({*globals(), *LAYERS})

"""The operators, as functions. Where torchvision has the operator, name, arguments and meaning are its own."""

from fastcv.ops._build import build_info
from fastcv.ops.anchors import anchor_grid, decode_anchors
from fastcv.ops.box_coding import decode_boxes, encode_boxes
from fastcv.ops.match_boxes import match_boxes
from fastcv.ops.roi_align import roi_align

__all__ = ["anchor_grid", "build_info", "decode_anchors", "decode_boxes", "encode_boxes", "match_boxes", "roi_align"]

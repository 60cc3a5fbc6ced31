"""The operators in plain torch: slow and obvious. What they say is right; the kernels are tested against them."""

from fastcv.reference.anchors import anchor_grid, decode_anchors
from fastcv.reference.box_coding import decode_boxes, encode_boxes
from fastcv.reference.match_boxes import match_boxes
from fastcv.reference.roi_align import roi_align

__all__ = ["anchor_grid", "decode_anchors", "decode_boxes", "encode_boxes", "match_boxes", "roi_align"]

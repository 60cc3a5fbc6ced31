"""The operators, as functions. Where torchvision has the operator, name, arguments and meaning are its own."""

from fastcv.ops._build import build_info
from fastcv.ops.match_boxes import match_boxes
from fastcv.ops.roi_align import roi_align

__all__ = ["build_info", "match_boxes", "roi_align"]

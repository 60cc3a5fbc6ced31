"""The operators, as functions. Where torchvision has the operator, name, arguments and meaning are its own."""

from fastcv.ops._build import build_info
from fastcv.ops.multiscale_roi_align import multiscale_roi_align
from fastcv.ops.nms import batched_nms, batched_nms_padded, nms
from fastcv.ops.match_boxes import match_boxes
from fastcv.ops.roi_align import roi_align
from fastcv.ops.roi_pool import roi_pool

__all__ = ["build_info", "multiscale_roi_align", "roi_align", "roi_pool"]
__all__ = ["batched_nms", "batched_nms_padded", "build_info", "nms", "roi_align"]
__all__ = ["build_info", "match_boxes", "roi_align"]

"""The operators in plain torch: slow and obvious. What they say is right; the kernels are tested against them."""

from fastcv.reference.multiscale_roi_align import multiscale_roi_align
from fastcv.reference.nms import batched_nms, nms
from fastcv.reference.match_boxes import match_boxes
from fastcv.reference.roi_align import roi_align
from fastcv.reference.roi_pool import roi_pool

__all__ = ["multiscale_roi_align", "roi_align", "roi_pool"]
__all__ = ["batched_nms", "nms", "roi_align"]
__all__ = ["match_boxes", "roi_align"]

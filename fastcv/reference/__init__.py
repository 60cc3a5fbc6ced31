"""The operators in plain torch: slow and obvious. What they say is right; the kernels are tested against them."""

from fastcv.reference.match_boxes import match_boxes
from fastcv.reference.roi_align import roi_align

__all__ = ["match_boxes", "roi_align"]

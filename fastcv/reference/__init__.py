"""The operators in plain torch: slow and obvious. What they say is right; the kernels are tested against them."""

from fastcv.reference.nms import batched_nms, nms
from fastcv.reference.roi_align import roi_align
from fastcv.reference.soft_nms import soft_nms

__all__ = ["batched_nms", "nms", "roi_align", "soft_nms"]

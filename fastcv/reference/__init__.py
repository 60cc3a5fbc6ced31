"""The operators in plain torch: slow and obvious. What they say is right; the kernels are tested against them."""

from fastcv.reference.roi_align import roi_align

__all__ = ["roi_align"]

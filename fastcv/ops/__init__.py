"""The operators, as functions. Where torchvision has the operator, name, arguments and meaning are its own."""

from fastcv.ops._build import build_info
from fastcv.ops.nms import batched_nms, batched_nms_padded, nms
from fastcv.ops.roi_align import roi_align
from fastcv.ops.soft_nms import soft_nms

__all__ = ["batched_nms", "batched_nms_padded", "build_info", "nms", "roi_align", "soft_nms"]

"""Which precision torch allows for convolutions of float32 on CUDA."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcv import _C


def may_use_tf32(tensor: Tensor) -> bool:
    """Whether CUDA kernels may round float32 to tf32, as ``torch.backends.cudnn`` allows it for convolutions.

    Read where an operator runs, not where it is traced: a compiled model follows the setting of each call, as torch's
    own convolutions do.
    """
    if tensor.dtype is not torch.float32 or not (tensor.is_cuda or _C.emulates_cuda):
        return False
    precision: str = torch.backends.cudnn.conv.fp32_precision
    return precision == "tf32"

"""Which precision torch allows for convolutions of float32 on CUDA."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcv import _C


def may_use_tf32(tensor: Tensor) -> bool:
    """Whether CUDA kernels may round float32 to tf32, as ``torch.backends.cudnn`` allows it for convolutions.

    Read where an operator runs, not where it is traced: a compiled model follows the setting of each call, as torch's
    own convolutions do.
    """
    if tensor.dtype is not torch.float32 or (tensor.is_cpu and _C.has_cpu_kernels):
        return False
    cudnn: Any = torch.backends.cudnn
    return bool(cudnn.conv.fp32_precision == "tf32")

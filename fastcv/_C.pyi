"""The compiled module: kernels that fill tensors which the caller has allocated."""

from typing import Any

from torch import Tensor

def build_info() -> dict[str, Any]: ...
def set_cpu_variant(variant: str) -> None: ...
def match_boxes(
    matches: Tensor,
    gt: Tensor,
    candidates: Tensor,
    workspace: Tensor,
    high_threshold: float,
    low_threshold: float,
    allow_low_quality: bool,
    /,
) -> None: ...
def roi_align_forward(
    output: Tensor, input: Tensor, boxes: Tensor, spatial_scale: float, sampling_ratio: int, aligned: bool, /
) -> None: ...
def roi_align_backward(
    grad_input: Tensor, grad_output: Tensor, boxes: Tensor, spatial_scale: float, sampling_ratio: int, aligned: bool, /
) -> None: ...

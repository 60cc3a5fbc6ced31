"""The compiled module: kernels that fill tensors which the caller has allocated."""

from typing import Any

from torch import Tensor

def build_info() -> dict[str, Any]: ...
def set_cpu_variant(variant: str) -> None: ...

nms_cpu_sorts: bool

def nms(kept: Tensor, boxes: Tensor, scores: Tensor, classes: Tensor | None, iou_threshold: float, /) -> int: ...
def nms_padded(
    kept: Tensor,
    count: Tensor,
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor | None,
    iou_threshold: float,
    order: Tensor | None,
    places: Tensor | None,
    sorted_classes: Tensor | None,
    workspace: Tensor | None,
    /,
) -> None: ...
def roi_align_forward(
    output: Tensor, input: Tensor, boxes: Tensor, spatial_scale: float, sampling_ratio: int, aligned: bool, /
) -> None: ...
def roi_align_backward(
    grad_input: Tensor, grad_output: Tensor, boxes: Tensor, spatial_scale: float, sampling_ratio: int, aligned: bool, /
) -> None: ...
def soft_nms(
    kept: Tensor,
    kept_scores: Tensor,
    count: Tensor,
    workspace: Tensor,
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    gaussian: bool,
    /,
) -> None: ...

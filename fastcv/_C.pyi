"""The compiled module: kernels that fill tensors which the caller has allocated."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

def build_info() -> dict[str, Any]: ...
def set_cpu_variant(variant: str) -> None: ...
def anchor_grid(anchors: Tensor, cell_anchors: Tensor, levels: Sequence[int], /) -> None: ...
def decode_anchors(
    decoded: Tensor,
    deltas: Tensor,
    indices: Tensor,
    cell_anchors: Tensor,
    levels: Sequence[int],
    wx: float,
    wy: float,
    ww: float,
    wh: float,
    clip: float,
    clips_to_image: bool,
    image_height: float,
    image_width: float,
    /,
) -> None: ...
def encode_boxes_forward(
    deltas: Tensor, reference_boxes: Tensor, proposals: Tensor, wx: float, wy: float, ww: float, wh: float, /
) -> None: ...
def encode_boxes_backward(
    grad_reference_boxes: Tensor,
    grad_proposals: Tensor,
    grad: Tensor,
    reference_boxes: Tensor,
    proposals: Tensor,
    wx: float,
    wy: float,
    ww: float,
    wh: float,
    /,
) -> None: ...
def decode_boxes_forward(
    decoded: Tensor, deltas: Tensor, boxes: Tensor, wx: float, wy: float, ww: float, wh: float, clip: float, /
) -> None: ...
def decode_boxes_backward(
    grad_deltas: Tensor,
    grad_boxes: Tensor,
    grad: Tensor,
    deltas: Tensor,
    boxes: Tensor,
    wx: float,
    wy: float,
    ww: float,
    wh: float,
    clip: float,
    /,
) -> None: ...
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

"""The compiled module: kernels that fill tensors which the caller has allocated."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

group_points_cpu_bins: bool
nms_cpu_sorts: bool

def build_info() -> dict[str, Any]: ...
def set_cpu_variant(variant: str) -> None: ...
def anchor_grid(anchors: Tensor, cell_anchors: Tensor, levels: Sequence[int], /) -> None: ...
def ball_query(
    indices: Tensor,
    query: Tensor,
    points: Tensor,
    query_lengths: Tensor | None,
    lengths: Tensor | None,
    radius: float,
    repeat_first: bool,
    /,
) -> None: ...
def box_iou_backward(
    grad_boxes1: Tensor,
    grad_boxes2: Tensor,
    grad: Tensor,
    boxes1: Tensor,
    boxes2: Tensor,
    workspace: Tensor,
    kind: int,
    epsilon: float,
    needs1: bool,
    needs2: bool,
    /,
) -> None: ...
def box_iou_forward(output: Tensor, boxes1: Tensor, boxes2: Tensor, kind: int, epsilon: float, /) -> None: ...
def box_iou_loss_backward(
    grad_boxes1: Tensor,
    grad_boxes2: Tensor,
    grad: Tensor,
    boxes1: Tensor,
    boxes2: Tensor,
    kind: int,
    epsilon: float,
    needs1: bool,
    needs2: bool,
    /,
) -> None: ...
def box_iou_loss_forward(output: Tensor, boxes1: Tensor, boxes2: Tensor, kind: int, epsilon: float, /) -> None: ...
def box_iou_workspace(batch: int, rows: int, columns: int, /) -> int: ...
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
def decode_boxes_forward(
    decoded: Tensor, deltas: Tensor, boxes: Tensor, wx: float, wy: float, ww: float, wh: float, clip: float, /
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
def encode_boxes_forward(
    deltas: Tensor, reference_boxes: Tensor, proposals: Tensor, wx: float, wy: float, ww: float, wh: float, /
) -> None: ...
def farthest_point_sample(
    indices: Tensor, points: Tensor, lengths: Tensor | None, workspace: Tensor, start: int, /
) -> None: ...
def group_points_backward(
    grad_features: Tensor,
    grad_output: Tensor,
    indices: Tensor,
    weights: Tensor | None,
    sorted_rows: Tensor | None,
    order: Tensor | None,
    /,
) -> None: ...
def group_points_forward(output: Tensor, features: Tensor, indices: Tensor, weights: Tensor | None, /) -> None: ...
def knn(
    distances: Tensor,
    indices: Tensor,
    query: Tensor,
    points: Tensor,
    query_lengths: Tensor | None,
    lengths: Tensor | None,
    /,
) -> None: ...
def masks_to_boxes(output: Tensor, masks: Tensor, /) -> None: ...
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
def multiscale_roi_align_backward(
    grad_features: list[Tensor],
    grad_output: Tensor,
    boxes: Tensor,
    scales: list[float],
    sampling_ratio: int,
    aligned: bool,
    canonical_scale: float,
    canonical_level: int,
    min_level: int,
    max_level: int,
    /,
) -> None: ...
def multiscale_roi_align_forward(
    output: Tensor,
    features: list[Tensor],
    boxes: Tensor,
    scales: list[float],
    sampling_ratio: int,
    aligned: bool,
    canonical_scale: float,
    canonical_level: int,
    min_level: int,
    max_level: int,
    /,
) -> None: ...
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
def paste_masks(
    output: Tensor, masks: Tensor, boxes: Tensor, padding: int, decides: bool, threshold: float, /
) -> None: ...
def ps_roi_align_backward(
    grad_input: Tensor, grad_output: Tensor, boxes: Tensor, spatial_scale: float, sampling_ratio: int, /
) -> None: ...
def ps_roi_align_forward(
    output: Tensor, input: Tensor, boxes: Tensor, spatial_scale: float, sampling_ratio: int, /
) -> None: ...
def ps_roi_pool_backward(grad_input: Tensor, grad_output: Tensor, boxes: Tensor, spatial_scale: float, /) -> None: ...
def ps_roi_pool_forward(output: Tensor, input: Tensor, boxes: Tensor, spatial_scale: float, /) -> None: ...
def roi_align_backward(
    grad_input: Tensor, grad_output: Tensor, boxes: Tensor, spatial_scale: float, sampling_ratio: int, aligned: bool, /
) -> None: ...
def roi_align_forward(
    output: Tensor, input: Tensor, boxes: Tensor, spatial_scale: float, sampling_ratio: int, aligned: bool, /
) -> None: ...
def roi_pool_backward(
    grad_input: Tensor, grad_output: Tensor, argmax: Tensor, boxes: Tensor, spatial_scale: float, /
) -> None: ...
def roi_pool_forward(output: Tensor, argmax: Tensor, input: Tensor, boxes: Tensor, spatial_scale: float, /) -> None: ...
def roi_pool_values(output: Tensor, input: Tensor, boxes: Tensor, spatial_scale: float, /) -> None: ...
def sigmoid_focal_loss_backward(
    grad_inputs: Tensor,
    grad_targets: Tensor,
    grad: Tensor,
    inputs: Tensor,
    targets: Tensor,
    alpha: float,
    gamma: float,
    needs_inputs: bool,
    needs_targets: bool,
    /,
) -> None: ...
def sigmoid_focal_loss_forward(
    output: Tensor, inputs: Tensor, targets: Tensor, alpha: float, gamma: float, /
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

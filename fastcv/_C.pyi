"""The compiled module: kernels that fill tensors which the caller has allocated, or that they return."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

has_cpu_kernels: bool  # False in the test build of the CUDA kernels

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
def box_iou_forward(boxes1: Tensor, boxes2: Tensor, kind: int, epsilon: float, narrow: bool, /) -> Tensor: ...
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
def conv_transpose_backward_input(
    grad_input: Tensor,
    grad_output: Tensor,
    weight: Tensor,
    packed: Tensor | None,
    geometry: tuple[int, ...],
    groups: int,
    tf32: bool,
    /,
) -> None: ...
def conv_transpose_backward_weight(
    grad_weight: Tensor,
    input: Tensor,
    grad_output: Tensor,
    geometry: tuple[int, ...],
    groups: int,
    workspace: Tensor | None,
    tf32: bool,
    /,
) -> None: ...
def conv_transpose_forward(
    output: Tensor,
    input: Tensor,
    weight: Tensor,
    packed: Tensor | None,
    bias: Tensor | None,
    geometry: tuple[int, ...],
    groups: int,
    relu: bool,
    tf32: bool,
    /,
) -> None: ...
def conv_transpose_pack(packed: Tensor, weight: Tensor, groups: int, forward: bool, /) -> None: ...
def conv_transpose_packed_bytes(weight: Tensor, groups: int, forward: bool, /) -> int: ...
def conv_transpose_workspace(
    grad_weight: Tensor, input: Tensor, grad_output: Tensor, geometry: tuple[int, ...], groups: int, /
) -> int: ...
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
def devoxelize(output: Tensor, features: Tensor, indices: Tensor, weights: Tensor, /) -> None: ...
def devoxelize_transposed(
    output: Tensor,
    grad: Tensor,
    indices: Tensor,
    weights: Tensor,
    order: Tensor | None,
    starts: Tensor | None,
    /,
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
def max_pool2d_backward(
    grad_input: Tensor,
    grad_output: Tensor,
    indices: Tensor,
    kernel_height: int,
    kernel_width: int,
    stride_height: int,
    stride_width: int,
    padding_height: int,
    padding_width: int,
    dilation_height: int,
    dilation_width: int,
    /,
) -> None: ...
def max_pool2d_forward(
    output: Tensor,
    indices: Tensor | None,
    input: Tensor,
    kernel_height: int,
    kernel_width: int,
    stride_height: int,
    stride_width: int,
    padding_height: int,
    padding_width: int,
    dilation_height: int,
    dilation_width: int,
    /,
) -> None: ...
def max_pool2d_gather(output: Tensor, input: Tensor, indices: Tensor, /) -> None: ...
def max_unpool2d(output: Tensor, values: Tensor, indices: Tensor, workspace: Tensor, /) -> None: ...
def max_unpool2d_workspace(elements: int, on_cuda: bool, /) -> int: ...
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
def nms(boxes: Tensor, scores: Tensor, classes: Tensor | None, iou_threshold: float, /) -> Tensor: ...
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
    input: Tensor,
    boxes: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    /,
) -> Tensor: ...
def ps_roi_pool_backward(grad_input: Tensor, grad_output: Tensor, boxes: Tensor, spatial_scale: float, /) -> None: ...
def ps_roi_pool_forward(
    input: Tensor, boxes: Tensor, pooled_height: int, pooled_width: int, spatial_scale: float, /
) -> Tensor: ...
def roi_align_backward(
    grad_input: Tensor, grad_output: Tensor, boxes: Tensor, spatial_scale: float, sampling_ratio: int, aligned: bool, /
) -> None: ...
def roi_align_forward(
    input: Tensor,
    boxes: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    /,
) -> Tensor: ...
def roi_pool_backward(
    grad_input: Tensor, grad_output: Tensor, argmax: Tensor, boxes: Tensor, spatial_scale: float, /
) -> None: ...
def roi_pool_forward(
    input: Tensor,
    boxes: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    with_argmax: bool,
    /,
) -> tuple[Tensor, ...]: ...
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
def sparse_avg_pool_backward(
    grad_features: Tensor,
    grad_output: Tensor,
    counts: Tensor,
    neighbours: Tensor,
    reverse: Tensor,
    count_missing: bool,
    /,
) -> None: ...
def sparse_avg_pool_forward(output: Tensor, features: Tensor, neighbours: Tensor, count_missing: bool, /) -> None: ...
def sparse_conv_forward(
    output: Tensor,
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    neighbours: Tensor,
    groups: int,
    order: Tensor | None,
    tf32: bool,
    /,
) -> None: ...
def sparse_conv_weight(
    grad_weight: Tensor,
    features: Tensor,
    grad_output: Tensor,
    neighbours: Tensor,
    groups: int,
    workspace: Tensor | None,
    tf32: bool,
    /,
) -> None: ...
def sparse_conv_weight_pieces(outputs: int, /) -> int: ...
def sparse_kernel_map(
    indices: Tensor,
    geometry: Sequence[int],
    batch_size: int,
    submanifold: bool,
    transposed: bool,
    allocate: Callable[[int], tuple[Tensor | None, Tensor, Tensor]],
    /,
) -> None: ...
def sparse_kernel_map_step(
    step: int,
    indices: Tensor,
    geometry: Sequence[int],
    batch_size: int,
    submanifold: bool,
    transposed: bool,
    outputs: int,
    out_indices: Tensor | None,
    neighbours: Tensor | None,
    reverse: Tensor | None,
    table_keys: Tensor,
    table_values: Tensor | None,
    status: Tensor | None,
    out_keys: Tensor | None,
    places: Tensor | None,
    /,
) -> None: ...
def sparse_max_pool_backward(
    grad_features: Tensor, grad_output: Tensor, argmax: Tensor, reverse: Tensor, /
) -> None: ...
def sparse_max_pool_forward(output: Tensor, argmax: Tensor, features: Tensor, neighbours: Tensor, /) -> None: ...
def sparse_max_pool_values(output: Tensor, features: Tensor, neighbours: Tensor, /) -> None: ...
def unpool_backward(
    grad_input: Tensor, grad_output: Tensor, scale_height: int, scale_width: int, nails: bool, /
) -> None: ...
def unpool_forward(output: Tensor, input: Tensor, scale_height: int, scale_width: int, nails: bool, /) -> None: ...
def upsample_bilinear2d_backward(
    grad_input: Tensor, grad_output: Tensor, align_corners: bool, step_height: float, step_width: float, /
) -> None: ...
def upsample_bilinear2d_forward(
    output: Tensor, input: Tensor, align_corners: bool, step_height: float, step_width: float, /
) -> None: ...
def voxel_ids(
    ids: Tensor, points: Tensor, grid: Sequence[float], offsets: Tensor | None, batch: Tensor | None, /
) -> None: ...
def voxel_neighbors(
    indices: Tensor,
    weights: Tensor,
    coords: Tensor,
    points: Tensor,
    grid: Sequence[float],
    offsets: Tensor | None,
    table: Tensor,
    /,
) -> None: ...
def voxel_occupancy(
    occupancy: Tensor, inside: Tensor, points: Tensor, grid: Sequence[float], offsets: Tensor | None, mode: int, /
) -> None: ...
def voxel_reduce(
    reduced: Tensor, argument: Tensor | None, features: Tensor, order: Tensor, starts: Tensor, reduction: int, /
) -> None: ...
def voxel_segments(
    order: Tensor,
    starts: Tensor,
    voxels: Tensor,
    voxel_of: Tensor,
    count: Tensor,
    coords: Tensor,
    sorted: Tensor | None,
    block_sums: Tensor | None,
    /,
) -> None: ...
def voxel_spread(
    grad_features: Tensor,
    grad: Tensor,
    voxel_of: Tensor,
    starts: Tensor,
    argument: Tensor | None,
    reduction: int,
    /,
) -> None: ...
def voxelize(
    voxels: Tensor,
    coords: Tensor,
    num_points: Tensor,
    counts: Tensor,
    points: Tensor,
    grid: Sequence[float],
    offsets: Tensor | None,
    max_points: int,
    max_voxels: int,
    padded: bool,
    /,
) -> int: ...
def voxelize_fill(
    voxels: Tensor,
    coords: Tensor,
    num_points: Tensor,
    counts: Tensor,
    points: Tensor,
    grid: Sequence[float],
    offsets: Tensor | None,
    max_points: int,
    max_voxels: int,
    padded: bool,
    workspace: Tensor,
    members: Tensor,
    /,
) -> None: ...
def voxelize_find(
    counts: Tensor,
    points: Tensor,
    grid: Sequence[float],
    offsets: Tensor | None,
    max_points: int,
    max_voxels: int,
    padded: bool,
    workspace: Tensor,
    /,
) -> None: ...
def voxelize_workspace(points: int, clouds: int, /) -> int: ...

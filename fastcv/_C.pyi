"""The compiled module: kernels that fill tensors which the caller has allocated."""

from typing import Any

from torch import Tensor

def build_info() -> dict[str, Any]: ...
def set_cpu_variant(variant: str) -> None: ...
def box_iou_forward(output: Tensor, boxes1: Tensor, boxes2: Tensor, kind: int, epsilon: float, /) -> None: ...
def box_iou_workspace(batch: int, rows: int, columns: int, /) -> int: ...
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
def box_iou_loss_forward(output: Tensor, boxes1: Tensor, boxes2: Tensor, kind: int, epsilon: float, /) -> None: ...
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
def masks_to_boxes(output: Tensor, masks: Tensor, /) -> None: ...
def roi_align_forward(
    output: Tensor, input: Tensor, boxes: Tensor, spatial_scale: float, sampling_ratio: int, aligned: bool, /
) -> None: ...
def roi_align_backward(
    grad_input: Tensor, grad_output: Tensor, boxes: Tensor, spatial_scale: float, sampling_ratio: int, aligned: bool, /
) -> None: ...
def sigmoid_focal_loss_forward(
    output: Tensor, inputs: Tensor, targets: Tensor, alpha: float, gamma: float, /
) -> None: ...
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

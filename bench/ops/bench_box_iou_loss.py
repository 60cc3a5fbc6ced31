"""Overlap losses of a million boxes and their partners."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bench.harness import run_case
from bench.ops.bench_box_iou import contenders, random_boxes
from bench.workloads import Problem, Variant, Workload

Op = Callable[..., torch.Tensor]

PAIRS = 1_000_000


def problem(variant: Variant) -> Problem:
    """Two sets of boxes with gradients; 36 bytes a pair move forward and 68 backward in float32."""
    boxes = [random_boxes(PAIRS * variant.scale, variant, seed).requires_grad_() for seed in (0, 1)]
    return Problem(tuple(boxes), bytes=sum(b.nbytes for b in boxes) * 26 // 8)


def forward_backward(op: Op, boxes1: torch.Tensor, boxes2: torch.Tensor) -> Any:
    return torch.autograd.grad(op(boxes1, boxes2, reduction="sum"), (boxes1, boxes2))


WORKLOADS = [
    Workload(
        id=f"C4-{name.partition('_')[0]}",
        title=f"{name} of 1 000 000 pairs, forward + backward to both",
        problem=problem,
        call=forward_backward,
        contenders=contenders(name),
    )
    for name in ("generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss")
]

test_box_iou_loss = run_case

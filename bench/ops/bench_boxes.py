"""Boxes of instance masks."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bench.harness import run_case
from bench.ops.bench_box_iou import contenders
from bench.workloads import Problem, Variant, Workload

Op = Callable[..., torch.Tensor]


def problem(variant: Variant) -> Problem:
    """100 masks of 480×640, each with one rectangle set; each byte must be read once."""
    masks = torch.zeros(100 * variant.scale, 480, 640, dtype=torch.bool, device=variant.device)
    for index, mask in enumerate(masks):
        mask[index % 400 : index % 400 + 60, index % 500 : index % 500 + 120] = True
    return Problem((masks,), bytes=masks.nbytes)


def forward(op: Op, masks: torch.Tensor) -> torch.Tensor:
    return op(masks)


WORKLOADS = [
    Workload(
        id="C6",
        title="masks_to_boxes, 100×480×640 bool",
        problem=problem,
        call=forward,
        contenders=contenders("masks_to_boxes"),
    )
]

test_boxes = run_case

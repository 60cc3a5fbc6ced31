"""Focal loss of the logits of a dense detector."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from bench.harness import run_case
from bench.ops.bench_box_iou import contenders
from bench.workloads import Problem, Variant, Workload

Op = Callable[..., torch.Tensor]


def problem(variant: Variant, backward: bool = False) -> Problem:
    """20 000 anchors × 80 classes, one label in a hundred set."""
    generator = torch.Generator().manual_seed(0)
    logits = variant.place(torch.randn(20_000 * variant.scale, 80, generator=generator) * 3)
    labels = variant.place((torch.rand(logits.shape, generator=generator) < 0.01).float())
    moved = 3 * logits.nbytes
    if backward:
        return Problem((logits.requires_grad_(), labels), bytes=2 * moved)
    return Problem((logits, labels), bytes=moved)


def forward(op: Op, logits: torch.Tensor, labels: torch.Tensor, gamma: float = 2.0) -> torch.Tensor:
    return op(logits, labels, gamma=gamma)


def forward_backward(op: Op, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(op(logits, labels, reduction="sum"), logits)[0]


CONTENDERS = contenders("sigmoid_focal_loss")
VARIANTS = (("float32", "contiguous"), ("bfloat16", "contiguous"), ("float16", "contiguous"))

WORKLOADS = [
    Workload(
        id="C5",
        title="sigmoid_focal_loss forward, 20 000×80 logits",
        problem=problem,
        call=forward,
        contenders=CONTENDERS,
        variants=VARIANTS,
    ),
    Workload(
        id="C5-power",
        title="sigmoid_focal_loss forward, 20 000×80 logits, gamma 1.5",
        problem=problem,
        call=partial(forward, gamma=1.5),
        contenders=CONTENDERS,
    ),
    Workload(
        id="C5-backward",
        title="sigmoid_focal_loss forward + backward of the sum, 20 000×80 logits",
        problem=partial(problem, backward=True),
        call=forward_backward,
        contenders=CONTENDERS,
        variants=VARIANTS,
    ),
]

test_sigmoid_focal_loss = run_case

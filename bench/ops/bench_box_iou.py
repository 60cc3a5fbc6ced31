"""Overlap matrices of boxes (workloads C1, C2) and the cost of a call (H1)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from bench.harness import run_case
from bench.workloads import Problem, Target, Variant, Workload

Op = Callable[..., torch.Tensor]


def random_boxes(count: int, variant: Variant, seed: int) -> torch.Tensor:
    """(count, 4): boxes with sides of 4 to 204 pixels, anywhere in an image of 800 × 1333."""
    generator = torch.Generator().manual_seed(seed)
    sides = 4 + 200 * torch.rand(count, 2, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * (torch.tensor([1333, 800]) - sides)
    return variant.place(torch.cat([corner, corner + sides], dim=1))


def problem(variant: Variant, rows: int, columns: int, backward: bool = False) -> Problem:
    """Two sets of boxes; the result is what must be written, and its gradient what the backward must read."""
    boxes1, boxes2 = random_boxes(rows, variant, 0), random_boxes(columns * variant.scale, variant, 1)
    result = len(boxes1) * len(boxes2) * max(boxes1.element_size(), 4)
    if backward:
        grad = torch.randn(len(boxes1), len(boxes2), generator=torch.Generator().manual_seed(2))
        grad = grad.to(boxes1.device, boxes1.dtype if variant.dtype == "float64" else torch.float32)
        args = (boxes1.requires_grad_(), boxes2.requires_grad_(), grad)
        return Problem(args, bytes=2 * result)
    return Problem((boxes1, boxes2), bytes=result + boxes1.nbytes + boxes2.nbytes)


def forward(op: Op, boxes1: torch.Tensor, boxes2: torch.Tensor) -> torch.Tensor:
    return op(boxes1, boxes2)


def forward_backward(op: Op, boxes1: torch.Tensor, boxes2: torch.Tensor, grad: torch.Tensor) -> Any:
    return torch.autograd.grad(op(boxes1, boxes2), (boxes1, boxes2), grad)


def contenders(name: str) -> dict[str, Any]:
    return {kind: f"{kind}.ops:{name}" for kind in ("fastcv", "torchvision")}


CUDA = Target(ratio=10, share=0.8)
VARIANTS = (("float32", "contiguous"), ("float64", "contiguous"))

WORKLOADS = [
    Workload(
        id="C1",
        title="box_iou 1000×1000",
        problem=partial(problem, rows=1000, columns=1000),
        call=forward,
        contenders={**contenders("box_iou"), "reference": "fastcv.reference:box_iou"},
        targets={"one thread": Target(ratio=15), "all threads": Target(ratio=15), "cuda": CUDA},
        variants=VARIANTS,
    ),
    Workload(
        id="C1-wide",
        title="box_iou 50×200 000",
        problem=partial(problem, rows=50, columns=200_000),
        call=forward,
        contenders=contenders("box_iou"),
        targets={"one thread": Target(ratio=10), "all threads": Target(ratio=10), "cuda": CUDA},
        variants=VARIANTS,
    ),
    Workload(
        id="C1-10k",
        title="box_iou 10 000×10 000",
        problem=partial(problem, rows=10_000, columns=2500),
        call=forward,
        contenders=contenders("box_iou"),
        targets={"cuda": CUDA},
        devices=("cuda",),
    ),
    Workload(
        id="C2",
        title="generalized_box_iou 1000×1000",
        problem=partial(problem, rows=1000, columns=1000),
        call=forward,
        contenders=contenders("generalized_box_iou"),
        targets={"one thread": Target(ratio=15), "all threads": Target(ratio=15), "cuda": CUDA},
        variants=VARIANTS,
    ),
    *(
        Workload(
            id=f"C2-{name.partition('_')[0]}",
            title=f"{name} 1000×1000",
            problem=partial(problem, rows=1000, columns=1000),
            call=forward,
            contenders=contenders(name),
        )
        for name in ("distance_box_iou", "complete_box_iou")
    ),
    Workload(
        id="C2-backward",
        title="generalized_box_iou 1000×1000, forward + backward to both sets",
        problem=partial(problem, rows=1000, columns=1000, backward=True),
        call=forward_backward,
        contenders=contenders("generalized_box_iou"),
    ),
    Workload(
        id="H1-box_iou",
        title="cost of a box_iou call, 1×1",
        problem=partial(problem, rows=1, columns=1),
        call=forward,
        contenders=contenders("box_iou"),
        targets={name: Target(seconds=4e-6) for name in ("one thread", "all threads", "cuda")},
        iterations=1000,
        tolerance=None,
    ),
]

test_box_iou = run_case

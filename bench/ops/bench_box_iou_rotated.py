"""Overlap matrices of rotated boxes (workload K2)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from bench.harness import run_case
from bench.workloads import Problem, Target, Variant, Workload


def random_boxes(count: int, variant: Variant, seed: int, width: int, height: int) -> torch.Tensor:
    """(count, 5): boxes with sides of 4 to 104 pixels, turned anyhow, anywhere in an image."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=generator) * torch.tensor([width, height])
    sides = 4 + 100 * torch.rand(count, 2, generator=generator)
    return variant.place(torch.cat([centre, sides, 360 * torch.rand(count, 1, generator=generator)], dim=1))


def problem(variant: Variant, width: int, height: int) -> Problem:
    boxes1 = random_boxes(1000, variant, 0, width, height)
    boxes2 = random_boxes(1000 * variant.scale, variant, 1, width, height)
    return Problem((boxes1, boxes2), bytes=4 * len(boxes1) * len(boxes2) + boxes1.nbytes + boxes2.nbytes)


def call(op: Any, boxes1: torch.Tensor, boxes2: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = op(boxes1, boxes2, fmt="cxcywhr")
    return result


WORKLOADS = [
    Workload(
        id=id,
        title=title,
        problem=partial(problem, width=width, height=height),
        call=call,
        contenders={kind: f"{kind}.ops:box_iou" for kind in ("fastcv", "torchvision")},
        targets={name: Target(ratio=10) for name in ("one thread", "all threads", "cuda")},
        variants=(("float32", "contiguous"), ("float64", "contiguous")),
        tolerance=2e-4,
    )
    for id, title, width, height in (
        ("K2", "box_iou of rotated boxes 1000×1000", 1333, 800),
        ("K2-crowded", "box_iou of rotated boxes 1000×1000, most of them overlapping", 100, 100),
    )
]

test_box_iou_rotated = run_case

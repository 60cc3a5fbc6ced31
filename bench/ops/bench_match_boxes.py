"""match_boxes on the anchors of a detector (workload C3) and the cost of a call (H1)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch

from bench.harness import run_case
from bench.workloads import Problem, Target, Variant, Workload

IMAGE_HEIGHT, IMAGE_WIDTH = 800, 1344
STRIDES = (4, 8, 16, 32, 64)

Matcher = Callable[[torch.Tensor, torch.Tensor, float, float, bool], torch.Tensor]


def random_boxes(count: int, generator: torch.Generator) -> torch.Tensor:
    """(count, 4): boxes with sides of 16 to 416 pixels, anywhere inside the image."""
    sides = 16 + 400 * torch.rand(count, 2, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * (torch.tensor([IMAGE_WIDTH, IMAGE_HEIGHT]) - sides)
    return torch.cat([corner, corner + sides], dim=1)


def anchors() -> torch.Tensor:
    """(268569, 4): those of a feature pyramid, three shapes per place, sides of 8 strides."""
    levels = []
    for stride in STRIDES:
        ratios = torch.tensor([0.5, 1.0, 2.0]).sqrt()
        half = torch.stack([4 * stride / ratios, 4 * stride * ratios], dim=1).round()
        y, x = torch.meshgrid(
            torch.arange(-(-IMAGE_HEIGHT // stride)), torch.arange(-(-IMAGE_WIDTH // stride)), indexing="ij"
        )
        centre = torch.stack([x, y], dim=-1).reshape(-1, 1, 2) * float(stride)
        levels.append(torch.cat([centre - half, centre + half], dim=-1).reshape(-1, 4))
    return torch.cat(levels)


def problem(variant: Variant, gts: int, scattered: bool = False) -> Problem:
    generator = torch.Generator().manual_seed(0)
    gt = random_boxes(gts, generator).to(variant.device, variant.torch_dtype)
    candidates = random_boxes(268_000, generator) if scattered else anchors()
    candidates = candidates.to(variant.device, variant.torch_dtype)
    moved = gt.nbytes + candidates.nbytes + 8 * len(candidates)
    return Problem((gt, candidates), bytes=moved, flops=0)


def overhead(variant: Variant) -> Problem:
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]], device=variant.device)
    return Problem((box, box))


def match(op: Matcher, gt: torch.Tensor, candidates: torch.Tensor, low_quality: bool) -> torch.Tensor:
    return op(gt, candidates, 0.7, 0.3, low_quality)


def torchvision_matcher() -> Matcher:
    matcher = import_module("torchvision.models.detection._utils").Matcher
    box_iou = import_module("torchvision.ops").box_iou
    return lambda gt, candidates, high, low, allow: matcher(high, low, allow)(box_iou(gt, candidates))


CONTENDERS: dict[str, Any] = {"fastcv": "fastcv.ops:match_boxes", "torchvision": torchvision_matcher}
TARGETS = {name: Target(ratio=20) for name in ("one thread", "all threads")}
VARIANTS = tuple((dtype, "contiguous") for dtype in ("float32", "float64"))

WORKLOADS = [
    Workload(
        id="C3",
        title="match_boxes, 50 gt × 268 569 anchors, thresholds 0.7 and 0.3, low quality allowed",
        problem=partial(problem, gts=50),
        call=partial(match, low_quality=True),
        contenders=CONTENDERS,
        targets=TARGETS,
        variants=VARIANTS,
        tolerance=0,
    ),
    Workload(
        id="C3-plain",
        title="the same without low quality",
        problem=partial(problem, gts=50),
        call=partial(match, low_quality=False),
        contenders=CONTENDERS,
        targets=TARGETS,
        variants=VARIANTS,
        tolerance=0,
    ),
    Workload(
        id="C3-scattered",
        title="C3 with 268 000 boxes in random order, where none can be skipped",
        problem=partial(problem, gts=50, scattered=True),
        call=partial(match, low_quality=True),
        contenders=CONTENDERS,
        targets=TARGETS,
        variants=VARIANTS,
        tolerance=0,
    ),
    Workload(
        id="H1-match_boxes",
        title="cost of a match_boxes call, 1 gt, 1 candidate",
        problem=overhead,
        call=partial(match, low_quality=False),
        contenders=CONTENDERS,
        targets={name: Target(seconds=4e-6) for name in ("one thread", "all threads", "cuda")},
        iterations=1000,
    ),
]

test_match_boxes = run_case

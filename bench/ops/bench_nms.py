"""nms (B1), batched_nms (B2) and the cost of a call (H1)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from bench.harness import run_case
from bench.workloads import Problem, Target, Variant, Workload

IMAGE = torch.tensor([1333.0, 800.0])
THRESHOLD = 0.5


def random_boxes(count: int, generator: torch.Generator) -> torch.Tensor:
    """(count, 4): boxes with sides of 4 to 204 pixels, anywhere inside an image of 800×1333."""
    sides = 4 + 200 * torch.rand(count, 2, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * (IMAGE - sides)
    return torch.cat([corner, corner + sides], dim=1)


def problem(variant: Variant, count: int, classes: int = 0, spread: bool = False) -> Problem:
    """Boxes, scores and, for the batched form, classes; spread out, 1000 boxes share an area of 800×1333."""
    generator = torch.Generator().manual_seed(0)
    count *= variant.scale
    boxes = random_boxes(count, generator)
    if spread:
        corner = torch.rand(count, 2, generator=generator) * IMAGE * (count / 1000) ** 0.5
        boxes += (corner - boxes[:, :2]).repeat(1, 2)
    boxes = variant.place(boxes)
    # No two scores alike: torchvision leaves the order of ties between classes open.
    scores = variant.place(torch.randperm(count, generator=generator) / count)
    if not classes:
        return Problem((boxes, scores))
    return Problem((boxes, scores, torch.randint(classes, (count,), generator=generator).to(variant.device)))


def call(op: Any, *tensors: torch.Tensor) -> torch.Tensor:
    kept = op(*tensors, THRESHOLD)
    assert isinstance(kept, torch.Tensor)
    return kept


CONTENDERS: dict[str, Any] = {"fastcv": "fastcv.ops:nms", "torchvision": "torchvision.ops:nms"}
BATCHED: dict[str, Any] = {"fastcv": "fastcv.ops:batched_nms", "torchvision": "torchvision.ops:batched_nms"}
EVERYWHERE = ("one thread", "all threads")

WORKLOADS = [
    Workload(
        id=f"B1-{title}",
        title=f"nms, {title} boxes in 800×1333, IoU 0.5",
        problem=partial(problem, count=count),
        call=call,
        contenders=CONTENDERS,
        targets={**dict.fromkeys(EVERYWHERE, Target(ratio=ratio)), "cuda": Target(ratio=5)},
        variants=(("float32", "contiguous"), ("float64", "contiguous")),
    )
    for title, count, ratio in (("1k", 1000, 10), ("5k", 5000, 30), ("20k", 20_000, 60))
]
WORKLOADS += [
    Workload(
        id="B2",
        title="batched_nms, 20 000 boxes, 80 classes, IoU 0.5",
        problem=partial(problem, count=20_000, classes=80),
        call=call,
        contenders=BATCHED,
        targets={**dict.fromkeys(EVERYWHERE, Target(ratio=10)), "cuda": Target(ratio=5)},
    ),
    Workload(
        id="B1-200k",
        title="nms, 200 000 boxes in 800×1333, IoU 0.5",
        problem=partial(problem, count=50_000),
        call=call,
        contenders=CONTENDERS,
        targets={"cuda": Target(ratio=5)},
        devices=("cuda",),
    ),
    *(
        Workload(
            id=f"B1-spread-{title}",
            title=f"nms, {title} boxes, 1000 of them per 800×1333, IoU 0.5",
            problem=partial(problem, count=count, spread=True),
            call=call,
            contenders={"fastcv": "fastcv.ops:nms"},
            devices=("cuda",),
        )
        for title, count in (("100k", 25_000), ("1M", 250_000))
    ),
    Workload(
        id="B2-200k",
        title="batched_nms, 200 000 boxes, 80 classes, IoU 0.5",
        problem=partial(problem, count=50_000, classes=80),
        call=call,
        contenders=BATCHED,
        targets={"cuda": Target(ratio=5)},
        devices=("cuda",),
    ),
    Workload(
        id="H1-nms",
        title="cost of an nms call, 1 box",
        problem=partial(problem, count=1),
        call=call,
        contenders=CONTENDERS,
        targets=dict.fromkeys((*EVERYWHERE, "cuda"), Target(seconds=4e-6)),
        iterations=1000,
    ),
]

test_nms = run_case

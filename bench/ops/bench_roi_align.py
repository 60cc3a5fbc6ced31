"""roi_align on detector-sized feature maps (workloads A0-A3) and the cost of a call (H1)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from bench.harness import run_case
from bench.workloads import Problem, Target, Variant, Workload

IMAGE_HEIGHT, IMAGE_WIDTH, STRIDE = 800, 1333, 16

Op = Callable[..., torch.Tensor]


def random_rois(count: int, images: int, generator: torch.Generator) -> torch.Tensor:
    """(count, 5): boxes with sides of 4 to 204 pixels, anywhere inside the image."""
    sides = 4 + 200 * torch.rand(count, 2, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * (torch.tensor([IMAGE_WIDTH, IMAGE_HEIGHT]) - sides)
    image = torch.randint(images, (count, 1), generator=generator)
    return torch.cat([image.float(), corner, corner + sides], dim=1)


def problem(variant: Variant, shape: tuple[int, int, int, int], rois: int, backward: bool = False) -> Problem:
    """Features, boxes and, for the backward, the gradient that arrives at the (rois, C, 7, 7) result."""
    generator = torch.Generator().manual_seed(0)
    features = variant.place(torch.randn(shape, generator=generator))
    boxes = random_rois(rois * variant.scale, shape[0], generator).to(variant.device, variant.torch_dtype)
    pooled = variant.place(torch.randn(len(boxes), shape[1], 7, 7, generator=generator))
    # Forward: features are read, the result is written. Backward: its gradient is read, the features' written.
    moved = features.nbytes + boxes.nbytes + pooled.nbytes
    if backward:
        return Problem((features.requires_grad_(), boxes, pooled), bytes=2 * moved)
    return Problem((features, boxes), bytes=moved)


def forward(op: Op, features: torch.Tensor, boxes: torch.Tensor, sampling_ratio: int = 2) -> torch.Tensor:
    return op(features, boxes, 7, 1 / STRIDE, sampling_ratio)


def forward_backward(op: Op, features: torch.Tensor, boxes: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(forward(op, features, boxes), features, grad)[0]


def overhead(variant: Variant) -> Problem:
    features = variant.place(torch.ones(1, 16, 8, 8))
    return Problem((features, torch.tensor([[0.0, 1.0, 1.0, 6.0, 6.0]], device=variant.device)))


CONTENDERS: dict[str, Any] = {"fastcv": "fastcv.ops:roi_align", "torchvision": "torchvision.ops:roi_align"}
WITH_REFERENCE = {**CONTENDERS, "reference": "fastcv.reference:roi_align"}

DETECTOR = (2, 256, 50, 84)
VARIANTS = (
    ("float32", "contiguous"),
    ("float32", "channels_last"),
    ("bfloat16", "contiguous"),
    ("bfloat16", "channels_last"),
    ("float16", "contiguous"),
    ("float16", "channels_last"),
    ("float64", "contiguous"),
)
FORWARD_TARGETS = {
    "one thread": Target(ratio=6),
    "all threads": Target(ratio=10),
    "cuda": Target(ratio=2, share=0.6),
}

WORKLOADS = [
    Workload(
        id="A0",
        title="roi_align forward, 1×32×25×42, 64 RoIs, 7×7, sampling 2 (small enough for the reference)",
        problem=partial(problem, shape=(1, 32, 25, 42), rois=64),
        call=forward,
        contenders=WITH_REFERENCE,
    ),
    Workload(
        id="A1",
        title="roi_align forward, 2×256×50×84, 1000 RoIs, 7×7, sampling 2",
        problem=partial(problem, shape=DETECTOR, rois=1000),
        call=forward,
        contenders=CONTENDERS,
        targets=FORWARD_TARGETS,
        variants=VARIANTS,
    ),
    Workload(
        id="A2",
        title="adaptive roi_align forward, 2×256×50×84, 1000 RoIs, 7×7, sampling −1",
        problem=partial(problem, shape=DETECTOR, rois=1000),
        call=partial(forward, sampling_ratio=-1),
        contenders=CONTENDERS,
        targets=FORWARD_TARGETS,
        variants=VARIANTS[:2],
    ),
    Workload(
        id="A3",
        title="roi_align forward + backward, 2×256×50×84, 1000 RoIs, 7×7, sampling 2",
        problem=partial(problem, shape=DETECTOR, rois=1000, backward=True),
        call=forward_backward,
        contenders=CONTENDERS,
        targets={"one thread": Target(ratio=8), "all threads": Target(ratio=15), "cuda": Target(ratio=2)},
        variants=VARIANTS,
    ),
    Workload(
        id="H1-roi_align",
        title="cost of a roi_align call, forward, 1×16×8×8, 1 RoI, 2×2, sampling 2",
        problem=overhead,
        call=lambda op, features, boxes: op(features, boxes, 2, 1.0, 2),
        contenders=CONTENDERS,
        targets={name: Target(seconds=4e-6) for name in ("one thread", "all threads", "cuda")},
        iterations=1000,
    ),
]

test_roi_align = run_case

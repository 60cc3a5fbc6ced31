"""MultiScaleRoIAlign on a detector's feature pyramid (workload A5)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from bench.harness import run_case
from bench.workloads import Problem, Target, Variant, Workload

HEIGHT, WIDTH = 800, 1344
SIZES = ((200, 336), (100, 168), (50, 84), (25, 42))
NAMES = ["0", "1", "2", "3"]


def random_boxes(count: int, generator: torch.Generator) -> torch.Tensor:
    """(count, 4): boxes with sides of 16 to 600 pixels, small ones more often, so that every level has some."""
    sides = 16 * (600 / 16) ** torch.rand(count, 2, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * (torch.tensor([WIDTH, HEIGHT]) - sides)
    return torch.cat([corner, corner + sides], dim=1)


def problem(variant: Variant, images: int, rois: int, backward: bool = False) -> Problem:
    """Features, boxes of each image and, for the backward, the gradient that arrives at the result."""
    generator = torch.Generator().manual_seed(0)
    features = [variant.place(torch.randn(images, 256, *size, generator=generator)) for size in SIZES]
    count = rois * variant.scale
    boxes = [random_boxes(count, generator).to(variant.device, variant.torch_dtype) for _ in range(images)]
    pooled = variant.place(torch.randn(images * count, 256, 7, 7, generator=generator))
    moved = sum(feature.nbytes for feature in features) + sum(b.nbytes for b in boxes) + pooled.nbytes
    if backward:
        return Problem(([feature.requires_grad_() for feature in features], boxes, pooled), bytes=2 * moved)
    return Problem((features, boxes), bytes=moved)


def forward(module: Callable[..., Any], features: list[torch.Tensor], boxes: list[torch.Tensor]) -> torch.Tensor:
    layer = module(NAMES, output_size=7, sampling_ratio=2)
    pooled: torch.Tensor = layer(dict(zip(NAMES, features, strict=True)), boxes, [(HEIGHT, WIDTH)] * len(boxes))
    return pooled


def forward_backward(
    module: Callable[..., Any], features: list[torch.Tensor], boxes: list[torch.Tensor], grad: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(forward(module, features, boxes), features, grad)


CONTENDERS: dict[str, Any] = {
    "fastcv": "fastcv.nn:MultiScaleRoIAlign",
    "torchvision": "torchvision.ops:MultiScaleRoIAlign",
}
VARIANTS = (("float32", "contiguous"), ("float32", "channels_last"), ("bfloat16", "contiguous"))

WORKLOADS = [
    Workload(
        id="A5",
        title="multiscale_roi_align forward, 256 ch, 200×336 … 25×42, 2×1000 RoIs, 7×7, sampling 2",
        problem=partial(problem, images=2, rois=1000),
        call=forward,
        contenders=CONTENDERS,
        targets={"all threads": Target(ratio=10), "cuda": Target(ratio=2, share=0.6)},
        variants=VARIANTS,
    ),
    Workload(
        id="A5-backward",
        title="multiscale_roi_align forward + backward, A5 shapes",
        problem=partial(problem, images=2, rois=1000, backward=True),
        call=forward_backward,
        contenders=CONTENDERS,
        targets={"cuda": Target(ratio=2)},
        variants=VARIANTS[:2],
    ),
]

test_multiscale_roi_align = run_case

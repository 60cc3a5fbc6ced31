"""ps_roi_align on detector-sized score maps and the cost of a call (H1)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from bench.harness import run_case
from bench.workloads import Problem, Target, Variant, Workload

IMAGE_HEIGHT, IMAGE_WIDTH, STRIDE = 800, 1333, 16

Op = Callable[..., torch.Tensor]


def problem(variant: Variant, rois: int, backward: bool = False) -> Problem:
    """Features, boxes with sides of 4 to 204 pixels and, for the backward, the gradient that arrives at the result."""
    generator = torch.Generator().manual_seed(0)
    features = variant.place(torch.randn(2, 490, 50, 84, generator=generator))
    count = rois * variant.scale
    sides = 4 + 200 * torch.rand(count, 2, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * (torch.tensor([IMAGE_WIDTH, IMAGE_HEIGHT]) - sides)
    image = torch.randint(2, (count, 1), generator=generator)
    boxes = torch.cat([image.float(), corner, corner + sides], dim=1).to(variant.device, variant.torch_dtype)
    pooled = variant.place(torch.randn(count, 10, 7, 7, generator=generator))
    moved = features.nbytes + boxes.nbytes + pooled.nbytes
    if backward:
        return Problem((features.requires_grad_(), boxes, pooled), bytes=2 * moved)
    return Problem((features, boxes), bytes=moved)


def forward(op: Op, features: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    return op(features, boxes, 7, 1 / STRIDE, 2)


def forward_backward(op: Op, features: torch.Tensor, boxes: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(forward(op, features, boxes), features, grad)[0]


def overhead(variant: Variant) -> Problem:
    features = variant.place(torch.ones(1, 16, 8, 8))
    return Problem((features, torch.tensor([[0.0, 1.0, 1.0, 6.0, 6.0]], device=variant.device)))


CONTENDERS: dict[str, Any] = {"fastcv": "fastcv.ops:ps_roi_align", "torchvision": "torchvision.ops:ps_roi_align"}
VARIANTS = (("float32", "contiguous"), ("float32", "channels_last"))

WORKLOADS = [
    Workload(
        id="A-ps_roi_align",
        title="ps_roi_align forward, 2×490×50×84, 1000 RoIs, 7×7, sampling 2",
        problem=partial(problem, rois=1000),
        call=forward,
        contenders=CONTENDERS,
        targets={"all threads": Target(ratio=8), "cuda": Target(ratio=2)},
        variants=VARIANTS,
    ),
    Workload(
        id="A-ps_roi_align-backward",
        title="ps_roi_align forward + backward, 2×490×50×84, 1000 RoIs, 7×7, sampling 2",
        problem=partial(problem, rois=1000, backward=True),
        call=forward_backward,
        contenders=CONTENDERS,
        targets={"cuda": Target(ratio=2)},
        variants=VARIANTS,
    ),
    Workload(
        id="H1-ps_roi_align",
        title="cost of a ps_roi_align call, forward, 1×16×8×8, 1 RoI, 2×2",
        problem=overhead,
        call=lambda op, features, boxes: op(features, boxes, 2, 1.0, 2),
        contenders=CONTENDERS,
        targets={name: Target(seconds=4e-6) for name in ("one thread", "all threads", "cuda")},
        iterations=1000,
    ),
]

test_ps_roi_align = run_case

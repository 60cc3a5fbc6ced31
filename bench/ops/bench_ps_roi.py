"""ps_roi_align and ps_roi_pool on detector-sized score maps, and the cost of a call (H1)."""

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


def forward(op: Op, features: torch.Tensor, boxes: torch.Tensor, *, sampling: tuple[int, ...]) -> torch.Tensor:
    return op(features, boxes, 7, 1 / STRIDE, *sampling)


def forward_backward(
    op: Op, features: torch.Tensor, boxes: torch.Tensor, grad: torch.Tensor, *, sampling: tuple[int, ...]
) -> torch.Tensor:
    return torch.autograd.grad(forward(op, features, boxes, sampling=sampling), features, grad)[0]


def small_call(op: Op, features: torch.Tensor, boxes: torch.Tensor, *, sampling: tuple[int, ...]) -> torch.Tensor:
    return op(features, boxes, 2, 1.0, *sampling)


def overhead(variant: Variant) -> Problem:
    features = variant.place(torch.ones(1, 16, 8, 8))
    return Problem((features, torch.tensor([[0.0, 1.0, 1.0, 6.0, 6.0]], device=variant.device)))


VARIANTS = (("float32", "contiguous"), ("float32", "channels_last"))


def workloads(name: str, sampling: tuple[int, ...]) -> list[Workload]:
    """Forward, with backward, and a small call of one op; ``sampling`` are its last arguments."""
    contenders: dict[str, Any] = {"fastcv": f"fastcv.ops:{name}", "torchvision": f"torchvision.ops:{name}"}
    task = "2×490×50×84, 1000 RoIs, 7×7" + "".join(f", sampling {ratio}" for ratio in sampling)
    return [
        Workload(
            id=f"A-{name}",
            title=f"{name} forward, {task}",
            problem=partial(problem, rois=1000),
            call=partial(forward, sampling=sampling),
            contenders=contenders,
            targets={"all threads": Target(ratio=8), "cuda": Target(ratio=2)},
            variants=VARIANTS,
        ),
        Workload(
            id=f"A-{name}-backward",
            title=f"{name} forward + backward, {task}",
            problem=partial(problem, rois=1000, backward=True),
            call=partial(forward_backward, sampling=sampling),
            contenders=contenders,
            targets={"cuda": Target(ratio=2)},
            variants=VARIANTS,
        ),
        Workload(
            id=f"H1-{name}",
            title=f"cost of a {name} call, forward, 1×16×8×8, 1 RoI, 2×2",
            problem=overhead,
            call=partial(small_call, sampling=sampling),
            contenders=contenders,
            targets={name: Target(seconds=4e-6) for name in ("one thread", "all threads", "cuda")},
            iterations=1000,
        ),
    ]


WORKLOADS = [*workloads("ps_roi_align", (2,)), *workloads("ps_roi_pool", ())]

test_ps_roi = run_case

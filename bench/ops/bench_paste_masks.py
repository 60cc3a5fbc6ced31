"""Masks pasted into the image (workload M2-paste): the last step of Mask R-CNN."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch

from bench.harness import run_case
from bench.workloads import Problem, Target, Variant, Workload

Op = Callable[..., torch.Tensor]
HEIGHT, WIDTH = 800, 1333


def problem(variant: Variant, decides: bool = False) -> Problem:
    """100 masks 28×28 of boxes with sides of 16 to 416 pixels; all pixels of the image must be written."""
    generator = torch.Generator().manual_seed(0)
    count = 100 * variant.scale
    sides = 16 + 400 * torch.rand(count, 2, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * (torch.tensor([WIDTH, HEIGHT]) - sides)
    masks = torch.rand(count, 1, 28, 28, generator=generator)
    boxes = torch.cat([corner, corner + sides], dim=1).to(variant.device)
    size = 1 if decides else variant.torch_dtype.itemsize
    return Problem((masks.to(variant.device, variant.torch_dtype), boxes), bytes=count * HEIGHT * WIDTH * size)


def small_problem(variant: Variant) -> Problem:
    """One mask into an image of 16×16."""
    masks = torch.rand(1, 1, 28, 28).to(variant.device, variant.torch_dtype)
    return Problem((masks, torch.tensor([[1.0, 1.0, 9.0, 9.0]], device=variant.device)))


def paste(op: Op, masks: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int] = (HEIGHT, WIDTH)) -> torch.Tensor:
    return op(masks, boxes, size)


def torchvision_decided() -> Op:
    op = import_module("torchvision.models.detection.roi_heads").paste_masks_in_image
    return lambda masks, boxes, size: op(masks, boxes, size) > 0.5


def fastcv_decided() -> Op:
    return partial(import_module("fastcv.ops").paste_masks, threshold=0.5)


CONTENDERS: dict[str, Any] = {
    "fastcv": "fastcv.ops:paste_masks",
    "torchvision": "torchvision.models.detection.roi_heads:paste_masks_in_image",
}
DECIDED: dict[str, Any] = {"fastcv": fastcv_decided, "torchvision": torchvision_decided}
VARIANTS = tuple((dtype, "contiguous") for dtype in ("float32", "float64", "float16"))

WORKLOADS = [
    Workload(
        id="M2-paste",
        title="paste_masks, 100 masks 28×28 into 800×1333",
        problem=problem,
        call=paste,
        contenders=CONTENDERS,
        variants=VARIANTS,
    ),
    Workload(
        id="M2-paste-bool",
        title="the same with threshold 0.5",
        problem=partial(problem, decides=True),
        call=paste,
        contenders=DECIDED,
        tolerance=None,  # a pixel at the threshold may fall on either side
    ),
    Workload(
        id="H1-paste_masks",
        title="cost of a paste_masks call, 1 mask into 16×16",
        problem=small_problem,
        call=partial(paste, size=(16, 16)),
        contenders=CONTENDERS,
        targets={name: Target(seconds=4e-6) for name in ("one thread", "all threads", "cuda")},
        iterations=200,
    ),
]

test_paste_masks = run_case

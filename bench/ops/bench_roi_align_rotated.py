"""roi_align of rotated boxes (workload K3): detectron2 and mmcv have no wheels, so against torch's grid_sample.

And without a turn against the upright roi_align, ours and torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from bench.harness import run_case
from bench.workloads import Problem, Target, Variant, Workload

IMAGE_HEIGHT, IMAGE_WIDTH, STRIDE, BINS, RATIO = 800, 1333, 16, 7, 2
SHAPE, ROIS = (2, 256, 50, 84), 1000

Op = Callable[..., torch.Tensor]


def random_rois(count: int, images: int, is_turned: bool, generator: torch.Generator) -> torch.Tensor:
    """(count, 6), image after image: boxes with sides of 4 to 204 pixels, anywhere inside the image."""
    centre = torch.rand(count, 2, generator=generator) * torch.tensor([IMAGE_WIDTH, IMAGE_HEIGHT])
    sides = 4 + 200 * torch.rand(count, 2, generator=generator)
    angle = 360 * is_turned * torch.rand(count, 1, generator=generator)
    image = torch.arange(count)[:, None] // (count // images)
    return torch.cat([image.float(), centre, sides, angle], dim=1)


def problem(variant: Variant, is_turned: bool = True, backward: bool = False) -> Problem:
    """Features, boxes and, for the backward, the gradient that arrives at the (K, C, 7, 7) result."""
    generator = torch.Generator().manual_seed(0)
    features = variant.place(torch.randn(SHAPE, generator=generator))
    dtype = torch.float64 if variant.dtype == "float64" else torch.float32
    boxes = random_rois(ROIS * variant.scale, SHAPE[0], is_turned, generator).to(variant.device, dtype)
    pooled = variant.place(torch.randn(len(boxes), SHAPE[1], BINS, BINS, generator=generator))
    moved = features.nbytes + boxes.nbytes + pooled.nbytes
    if backward:
        return Problem((features.requires_grad_(), boxes, pooled), bytes=2 * moved)
    return Problem((features, boxes), bytes=moved)


def forward(op: Op, features: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    return op(features, boxes, BINS, 1 / STRIDE, RATIO)


def forward_backward(op: Op, features: torch.Tensor, boxes: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(forward(op, features, boxes), features, grad)[0]


def with_grid_sample() -> Op:
    """The same by torch alone, for boxes that come image after image, as many of each: one grid per image."""

    def pool(features: torch.Tensor, boxes: torch.Tensor, bins: int, scale: float, ratio: int) -> torch.Tensor:
        images, channels, height, width = features.shape
        place = (torch.arange(bins * ratio, device=boxes.device, dtype=boxes.dtype) + 0.5) / (bins * ratio) - 0.5
        centre_x, centre_y, w, h = (column[:, None, None] * scale for column in boxes[:, 1:5].unbind(1))
        angle = boxes[:, 5].deg2rad()[:, None, None]
        down, right = place[:, None] * h, place * w
        y = down * angle.cos() - right * angle.sin() + centre_y - 0.5
        x = down * angle.sin() + right * angle.cos() + centre_x - 0.5
        inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
        grid = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
        grid = grid.reshape(images, -1, bins * ratio, 2).to(features.dtype)
        samples = functional.grid_sample(features, grid, padding_mode="border", align_corners=True)
        samples = samples * inside.reshape(images, 1, -1, bins * ratio)
        pooled = functional.avg_pool2d(samples, ratio).reshape(images, channels, -1, bins, bins)
        return pooled.transpose(1, 2).reshape(-1, channels, bins, bins)

    return pool


def upright(package: str) -> Callable[[], Op]:
    """roi_align of a package for boxes without a turn."""

    def load() -> Op:
        from importlib import import_module

        op = import_module(f"{package}.ops").roi_align

        def pool(features: torch.Tensor, boxes: torch.Tensor, *options: Any) -> torch.Tensor:
            half = boxes[:, 3:5] / 2
            rows = torch.cat([boxes[:, :1], boxes[:, 1:3] - half, boxes[:, 1:3] + half], dim=1)
            result: torch.Tensor = op(features, rows.to(features.dtype), *options, True)
            return result

        return pool

    return load


OWN = "fastcv.ops:roi_align_rotated"
TURNED: dict[str, Any] = {"fastcv": OWN, "grid_sample": with_grid_sample}
UPRIGHT: dict[str, Any] = {"fastcv": OWN, "fastcv roi_align": upright("fastcv"), "torchvision": upright("torchvision")}
TITLE = "2×256×50×84, 1000 RoIs, 7×7, sampling 2"
VARIANTS = (("float32", "contiguous"), ("float32", "channels_last"), ("float64", "contiguous"))
EVERYWHERE = ("one thread", "all threads")

WORKLOADS = [
    Workload(
        id="K3",
        title=f"roi_align_rotated forward, {TITLE}",
        problem=problem,
        call=forward,
        contenders=TURNED,
        peer="grid_sample",
        targets=dict.fromkeys(EVERYWHERE, Target(ratio=5)),
        variants=VARIANTS,
    ),
    Workload(
        id="K3-backward",
        title=f"roi_align_rotated forward + backward, {TITLE}",
        problem=partial(problem, backward=True),
        call=forward_backward,
        contenders=TURNED,
        peer="grid_sample",
        targets=dict.fromkeys(EVERYWHERE, Target(ratio=5)),
        variants=VARIANTS,
    ),
    Workload(
        id="K3-upright",
        title=f"roi_align_rotated forward without a turn against roi_align, {TITLE}",
        problem=partial(problem, is_turned=False),
        call=forward,
        contenders=UPRIGHT,
        variants=VARIANTS,
    ),
]

test_roi_align_rotated = run_case

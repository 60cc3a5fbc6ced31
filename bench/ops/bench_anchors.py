"""Anchors of a feature pyramid (workload D1), and boxes decoded straight from anchor indices."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch

from bench.harness import run_case
from bench.workloads import Problem, Target, Variant, Workload

IMAGE = (800, 1333)
STRIDES = (4, 8, 16, 32, 64)
SIZES = ((32,), (64,), (128,), (256,), (512,))
RATIOS = ((0.5, 1.0, 2.0),) * len(SIZES)
LEVELS = [(-(-IMAGE[0] // stride), -(-IMAGE[1] // stride)) for stride in STRIDES]

Generator = Callable[..., Any]


def pyramid(variant: Variant) -> Problem:
    """Two images and five maps of no channels: only shapes, dtype and device are looked at."""
    images = SimpleNamespace(tensors=torch.empty(2, 0, *IMAGE), image_sizes=[IMAGE, IMAGE])
    maps = [torch.empty(2, 0, *size, device=variant.device, dtype=variant.torch_dtype) for size in LEVELS]
    anchors = sum(3 * height * width for height, width in LEVELS)
    return Problem((images, maps), bytes=2 * 4 * anchors * maps[0].element_size())


def chosen(variant: Variant) -> Problem:
    """1000 places per level, as a region proposal network keeps them before suppression."""
    generator = torch.Generator().manual_seed(0)
    anchors = sum(3 * height * width for height, width in LEVELS)
    indices = torch.randint(anchors, (5000,), generator=generator).to(variant.device)
    deltas = variant.place(torch.randn(5000, 4, generator=generator) / 4)
    return Problem((deltas, indices), bytes=2 * deltas.nbytes + indices.nbytes)


def fastcv_generator() -> Generator:
    from fastcv.models.detection import AnchorGenerator

    return AnchorGenerator(SIZES, RATIOS)


def torchvision_generator() -> Generator:
    generator: Generator = import_module("torchvision.models.detection.anchor_utils").AnchorGenerator(SIZES, RATIOS)
    return generator


def fastcv_decode() -> Generator:
    from fastcv.models.detection import AnchorGenerator
    from fastcv.ops import decode_anchors

    cells = AnchorGenerator(SIZES, RATIOS).cell_anchors
    steps = [(IMAGE[0] // height, IMAGE[1] // width) for height, width in LEVELS]
    return lambda deltas, indices: decode_anchors(deltas, indices, LEVELS, steps, cells, image_size=IMAGE)


def torchvision_decode() -> Generator:
    clip_boxes_to_image = import_module("torchvision.ops").clip_boxes_to_image
    coder = import_module("torchvision.models.detection._utils").BoxCoder((1.0, 1.0, 1.0, 1.0))
    generator = torchvision_generator()

    def decode(deltas: torch.Tensor, indices: torch.Tensor) -> Any:
        images = SimpleNamespace(tensors=torch.empty(1, 0, *IMAGE), image_sizes=[IMAGE])
        maps = [torch.empty(1, 0, *size, device=deltas.device, dtype=deltas.dtype) for size in LEVELS]
        return clip_boxes_to_image(coder.decode_single(deltas, generator(images, maps)[0][indices]), IMAGE)

    return decode


def call(contender: Generator, *args: Any) -> Any:
    return contender(*args)


VARIANTS = tuple((dtype, "contiguous") for dtype in ("float32", "float16"))

WORKLOADS = [
    Workload(
        id="D1",
        title="AnchorGenerator, 800×1333, 5 levels, 2 images",
        problem=pyramid,
        call=call,
        contenders={"fastcv": fastcv_generator, "torchvision": torchvision_generator},
        targets={name: Target(ratio=5) for name in ("one thread", "all threads")},
        variants=VARIANTS,
        tolerance=0,
    ),
    Workload(
        id="D6",
        title="decode_anchors, 5000 of the 268 000 anchors of D1, clipped, against grid + decode + clip",
        problem=chosen,
        call=call,
        contenders={"fastcv": fastcv_decode, "torchvision": torchvision_decode},
        tolerance=1e-5,
    ),
]

test_anchors = run_case

"""encode_boxes and decode_boxes at the sizes of a detector, and the cost of a call (H1)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch

from bench.harness import run_case
from bench.workloads import Problem, Target, Variant, Workload

ANCHORS, PROPOSALS, CLASSES = 268_569, 1000, 91
RPN, HEAD = (1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)

Op = Callable[..., torch.Tensor]


def random_boxes(count: int, generator: torch.Generator) -> torch.Tensor:
    corner = torch.rand(count, 2, generator=generator) * 800
    return torch.cat([corner, corner + 16 + 300 * torch.rand(count, 2, generator=generator)], dim=1)


def decoding(variant: Variant, count: int, classes: int, backward: bool = False) -> Problem:
    generator = torch.Generator().manual_seed(0)
    boxes = variant.place(random_boxes(count * variant.scale, generator))
    deltas = variant.place(torch.randn(len(boxes), 4 * classes, generator=generator) / 4)
    moved = 2 * deltas.nbytes + boxes.nbytes
    if backward:
        return Problem((deltas.requires_grad_(), boxes.requires_grad_(), torch.ones_like(deltas)), bytes=3 * moved)
    return Problem((deltas, boxes), bytes=moved)


def encoding(variant: Variant, count: int) -> Problem:
    generator = torch.Generator().manual_seed(0)
    boxes, proposals = (variant.place(random_boxes(count * variant.scale, generator)) for _ in range(2))
    return Problem((boxes, proposals), bytes=3 * boxes.nbytes)


def overhead(variant: Variant) -> Problem:
    return Problem((torch.zeros(1, 4, device=variant.device), torch.tensor([[0.0, 0, 8, 8]], device=variant.device)))


def call(op: Op, first: torch.Tensor, second: torch.Tensor, weights: tuple[float, ...] = RPN) -> torch.Tensor:
    return op(first, second, weights)


def forward_backward(op: Op, deltas: torch.Tensor, boxes: torch.Tensor, grad: torch.Tensor) -> Any:
    return torch.autograd.grad(op(deltas, boxes, HEAD), [deltas, boxes], grad)


def torchvision_decode() -> Op:
    coder = import_module("torchvision.models.detection._utils").BoxCoder
    return lambda deltas, boxes, weights: coder(weights).decode_single(deltas, boxes)


def torchvision_encode() -> Op:
    coder = import_module("torchvision.models.detection._utils").BoxCoder
    return lambda boxes, proposals, weights: coder(weights).encode_single(boxes, proposals)


DECODE: dict[str, Any] = {"fastcv": "fastcv.ops:decode_boxes", "torchvision": torchvision_decode}
ENCODE: dict[str, Any] = {"fastcv": "fastcv.ops:encode_boxes", "torchvision": torchvision_encode}
VARIANTS = tuple((dtype, "contiguous") for dtype in ("float32", "float16", "bfloat16", "float64"))

WORKLOADS = [
    Workload(
        id="D2",
        title="decode_boxes, 268 569 anchors, 1 class",
        problem=partial(decoding, count=ANCHORS, classes=1),
        call=call,
        contenders=DECODE,
        variants=VARIANTS,
    ),
    Workload(
        id="D3",
        title="decode_boxes, 1000 proposals, 91 classes",
        problem=partial(decoding, count=PROPOSALS, classes=CLASSES),
        call=partial(call, weights=HEAD),
        contenders=DECODE,
        variants=VARIANTS,
    ),
    Workload(
        id="D4",
        title="decode_boxes forward + backward, 1000 proposals, 91 classes",
        problem=partial(decoding, count=PROPOSALS, classes=CLASSES, backward=True),
        call=forward_backward,
        contenders=DECODE,
    ),
    Workload(
        id="D5",
        title="encode_boxes, 268 569 anchors",
        problem=partial(encoding, count=ANCHORS),
        call=call,
        contenders=ENCODE,
        variants=VARIANTS,
    ),
    Workload(
        id="H1-decode_boxes",
        title="cost of a decode_boxes call, 1 box",
        problem=overhead,
        call=call,
        contenders=DECODE,
        targets={name: Target(seconds=4e-6) for name in ("one thread", "all threads", "cuda")},
        iterations=1000,
    ),
]

test_box_coding = run_case

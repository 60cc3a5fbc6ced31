"""Deformable convolutions of detectors (workload K1) and the cost of a call (H1).

FLOP/s count the products alone, as of a convolution of that size, not the samples.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from bench.harness import run_case
from bench.workloads import Problem, Target, Variant, Workload

Op = Callable[..., torch.Tensor]

LAYERS = {"64": (64, 100, 136), "256": (256, 50, 68)}
CONTENDERS: dict[str, Any] = {"fastcv": "fastcv.ops:deform_conv2d", "torchvision": "torchvision.ops:deform_conv2d"}


def problem(variant: Variant, layer: tuple[int, int, int], masked: bool, backward: bool = False) -> Problem:
    """Input, offsets of about two pixels, weight and mask (or None), and the gradient that arrives at the result."""
    channels, height, width = layer
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return variant.place(torch.randn(shape, generator=generator))

    input, grad = normal(variant.scale, channels, height, width), normal(variant.scale, channels, height, width)
    offset = 2 * normal(variant.scale, 18, height, width)
    weight = normal(channels, channels, 3, 3) * (9 * channels) ** -0.5
    mask = normal(variant.scale, 9, height, width).sigmoid() if masked else None
    tensors = [tensor for tensor in (input, offset, weight, mask) if tensor is not None]
    moved = sum(tensor.nbytes for tensor in (*tensors, grad))
    flops = 2 * 9 * channels * grad.numel()
    if backward:
        for tensor in tensors:
            tensor.requires_grad_()
        return Problem((input, offset, weight, mask, grad), bytes=3 * moved, flops=3 * flops)
    return Problem((input, offset, weight, mask), bytes=moved, flops=flops)


def forward(
    op: Op, input: torch.Tensor, offset: torch.Tensor, weight: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    return op(input, offset, weight, None, (1, 1), (1, 1), (1, 1), mask)


def forward_backward(
    op: Op,
    input: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    mask: torch.Tensor | None,
    grad: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    leaves = [tensor for tensor in (input, offset, weight, mask) if tensor is not None]
    return torch.autograd.grad(forward(op, input, offset, weight, mask), leaves, grad)


def workloads(version: str, masked: bool) -> list[Workload]:
    """Forward, and forward with backward, of each layer."""
    return [
        Workload(
            id=f"K1-{version}-{name}{'-backward' if backward else ''}",
            title=f"deform_conv2d {version} forward{' + backward' if backward else ''}, {layer[0]}→{layer[0]}, 3×3, "
            f"1×{layer[0]}×{layer[1]}×{layer[2]}",
            problem=partial(problem, layer=layer, masked=masked, backward=backward),
            call=forward_backward if backward else forward,
            contenders=CONTENDERS,
            targets={"one thread": Target(ratio=5), "all threads": Target(ratio=5), "cuda": Target(ratio=1)},
            variants=(("float32", "contiguous"), ("float32", "channels_last")),
        )
        for name, layer in LAYERS.items()
        for backward in (False, True)
    ]


WORKLOADS = [
    *workloads("v2", masked=True),
    *workloads("v1", masked=False),
    Workload(
        id="H1-deform_conv2d",
        title="cost of a deform_conv2d call, forward, 1×4×4×4 → 4, 3×3, p1",
        problem=partial(problem, layer=(4, 4, 4), masked=True),
        call=forward,
        contenders=CONTENDERS,
        iterations=1000,
    ),
]

test_deform_conv2d = run_case

"""Transposed convolutions of detectors, U-Nets and generators (workloads E1-E6) and the cost of a call (H1).

The peer is torch's own operator (oneDNN on a CPU, cuDNN on a GPU). FLOP/s count what a direct sum over all taps does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from bench.harness import run_case
from bench.workloads import Problem, Target, Variant, Workload

Op = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Layer:
    """Shapes of one layer: input (N, C, H, W), weight (C, O, k, k), stride and padding."""

    name: str
    input: tuple[int, int, int, int]
    weight: tuple[int, int, int, int]
    stride: int
    padding: int


LAYERS = {
    "E1": Layer("Mask R-CNN 2×2 s2, 8×256×14×14 → 256", (8, 256, 14, 14), (256, 256, 2, 2), 2, 0),
    "E2": Layer("4×4 s2 p1, 1×64×128×128 → 32", (1, 64, 128, 128), (64, 32, 4, 4), 2, 1),
    "E3": Layer("U-Net 2×2 s2, 1×512×64×64 → 256", (1, 512, 64, 64), (512, 256, 2, 2), 2, 0),
    "E4": Layer("DCGAN 4×4 s2 p1, 8×512×8×8 → 256", (8, 512, 8, 8), (512, 256, 4, 4), 2, 1),
}

LARGE = Layer("", (128, 256, 14, 14), (256, 256, 2, 2), 2, 0)  # four times as many images on a GPU


def torch_fused() -> Op:
    """The convolution of torch followed by its ReLU."""

    def conv_transpose_relu(*arguments: Any, activation: str | None = None) -> torch.Tensor:
        output = F.conv_transpose2d(*arguments)
        return output if activation is None else output.relu()

    return conv_transpose_relu


CONTENDERS: dict[str, Any] = {"fastcv": "fastcv.ops:conv_transpose2d", "torch": torch_fused}


def problem(variant: Variant, layer: Layer, backward: bool = False) -> Problem:
    """Input, weight and bias of a layer, and the gradient that arrives at its result."""
    generator = torch.Generator().manual_seed(0)
    n, c, h, w = layer.input
    scale = (c * layer.weight[2] * layer.weight[3]) ** -0.5
    input = variant.place(torch.randn((n * variant.scale, c, h, w), generator=generator))
    weight = (torch.randn(layer.weight, generator=generator) * scale).to(variant.device, variant.torch_dtype)
    bias = torch.randn(layer.weight[1], generator=generator).to(variant.device, variant.torch_dtype)
    height, width = (
        (size - 1) * layer.stride - 2 * layer.padding + kernel
        for size, kernel in zip((h, w), layer.weight[2:], strict=True)
    )
    grad = variant.place(torch.randn((n * variant.scale, layer.weight[1], height, width), generator=generator))
    moved = input.nbytes + weight.nbytes + grad.nbytes
    flops = 2 * input.numel() * weight[0].numel()
    if backward:
        return Problem((input.requires_grad_(), weight.requires_grad_(), grad), bytes=3 * moved, flops=3 * flops)
    return Problem((input, weight, bias), bytes=moved, flops=flops)


def forward(op: Op, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, layer: Layer) -> torch.Tensor:
    return op(input, weight, None, layer.stride, layer.padding)


def fused(op: Op, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, layer: Layer) -> torch.Tensor:
    return op(input, weight, bias, layer.stride, layer.padding, activation="relu")


def forward_backward(
    op: Op, input: torch.Tensor, weight: torch.Tensor, grad: torch.Tensor, layer: Layer
) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(op(input, weight, None, layer.stride, layer.padding), (input, weight), grad)


def targets(ratio: float) -> dict[str, Target]:
    return {"one thread": Target(ratio=ratio), "all threads": Target(ratio=ratio), "cuda": Target(ratio=1)}


def workloads(id: str, kind: str, call: Callable[..., Any], ratios: dict[str, float], **options: Any) -> list[Workload]:
    """One workload for each layer."""
    backward = call is forward_backward
    return [
        Workload(
            id=id.format(name),
            title=f"conv_transpose2d {kind}, {layer.name}",
            problem=partial(problem, layer=layer, backward=backward),
            call=partial(call, layer=layer),
            contenders=CONTENDERS,
            peer="torch",
            targets=targets(ratios[name]) if name in ratios else {},
            **options,
        )
        for name, layer in LAYERS.items()
    ]


FORWARD = {"E1": 1.2, "E2": 1.2, "E3": 1.4, "E4": 0.95}
HALVES = (("bfloat16", "contiguous"), ("bfloat16", "channels_last"), ("float16", "channels_last"))

WORKLOADS = [
    *workloads("{}", "forward", forward, FORWARD),
    *workloads("{}-backward", "forward + backward", forward_backward, {}),
    *workloads(
        "E5-{}",
        "forward in channels_last",
        forward,
        dict.fromkeys(LAYERS, 0.95),
        variants=(("float32", "channels_last"),),
    ),
    *workloads("E5-{}-half", "forward", forward, dict.fromkeys(LAYERS, 0.95), variants=HALVES),
    Workload(
        id="E1-512",
        title="conv_transpose2d with bias and ReLU, Mask R-CNN 2×2 s2, 512×256×14×14 → 256",
        problem=partial(problem, layer=LARGE),
        call=partial(fused, layer=LARGE),
        contenders=CONTENDERS,
        peer="torch",
        targets={"cuda": Target(ratio=1)},
        variants=(("float16", "contiguous"), ("float16", "channels_last")),
        devices=("cuda",),
    ),
    *workloads("E6-{}", "with bias and ReLU", fused, {name: ratio * 1.05 for name, ratio in FORWARD.items()}),
    Workload(
        id="H1-conv_transpose",
        title="cost of a conv_transpose2d call, forward, 1×4×2×2, 2×2 s2",
        problem=partial(problem, layer=Layer("", (1, 4, 2, 2), (4, 4, 2, 2), 2, 0)),
        call=lambda op, input, weight, bias: op(input, weight, bias, 2),
        contenders=CONTENDERS,
        peer="torch",
        iterations=1000,
    ),
]

test_conv_transpose = run_case

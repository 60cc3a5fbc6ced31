"""Convolutions of detectors: 3 x 3 of stride 1 (K1), the other layers of ResNet-50 (K2), YOLOv3-tiny's (K3).

The peer is torch's own (oneDNN) in channels_last, followed by torch's addition and activation in place. Weights of both
are ready: fastcv's packed, torch's in channels_last. FLOP/s count what a direct sum over all taps does, also of
Winograd's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.harness import run_case
from bench.workloads import Problem, Target, Variant, Workload

Op = Callable[..., Tensor]


@dataclass(frozen=True)
class Layer:
    """Channels, size of the input (H, W), side of the kernel, stride; what follows the sum."""

    inputs: int
    outputs: int
    size: tuple[int, int]
    kernel: int = 3
    stride: int = 1
    activation: str | None = None
    addition: bool = False

    @property
    def name(self) -> str:
        """As people write it."""
        height, width = self.size
        behind = ["+ addition"] * self.addition + [f"+ {self.activation}"] * (self.activation is not None)
        shape = f"{self.kernel}×{self.kernel} s{self.stride} {self.inputs}→{self.outputs} at {height}×{width}"
        return " ".join([shape, *behind])


WINOGRAD = [
    (Layer(256, 256, (200, 272)), 2.5),
    (Layer(256, 256, (100, 136)), 2.5),
    (Layer(256, 256, (50, 68)), 2.5),
    (Layer(128, 128, (100, 136)), 2.5),
    (Layer(64, 64, (200, 272)), 2.5),
    (Layer(512, 512, (25, 34)), 2.0),
]
RESNET = [
    Layer(3, 64, (480, 640), 7, 2, "relu"),
    Layer(64, 64, (120, 160), 1, 1, "relu"),
    Layer(64, 256, (120, 160), 1, 1, "relu", True),
    Layer(256, 64, (120, 160), 1, 1, "relu"),
    Layer(256, 128, (120, 160), 1, 1, "relu"),
    Layer(128, 128, (120, 160), 3, 2, "relu"),
    Layer(128, 512, (60, 80), 1, 1, "relu", True),
    Layer(256, 512, (120, 160), 1, 2),
    Layer(512, 128, (60, 80), 1, 1, "relu"),
    Layer(256, 256, (60, 80), 3, 2, "relu"),
    Layer(256, 1024, (30, 40), 1, 1, "relu", True),
    Layer(512, 1024, (60, 80), 1, 2),
    Layer(1024, 256, (30, 40), 1, 1, "relu"),
    Layer(512, 512, (30, 40), 3, 2, "relu"),
    Layer(512, 2048, (15, 20), 1, 1, "relu", True),
    Layer(2048, 512, (15, 20), 1, 1, "relu"),
]
YOLO = [
    Layer(inputs, outputs, (side, side), activation="leaky_relu")
    for inputs, outputs, side in [
        *((3, 16, 416), (16, 32, 208), (32, 64, 104), (64, 128, 52)),
        *((128, 256, 26), (256, 512, 13), (512, 1024, 13)),
    ]
]


def fastcv_packed() -> Op:
    """Modules of fastcv, one for each convolution, kept as a network keeps them."""
    from fastcv.nn import Conv2d

    kept: dict[nn.Conv2d, Conv2d] = {}

    def apply(conv: nn.Conv2d, input: Tensor, residual: Tensor | None, activation: str | None) -> Tensor:
        if conv not in kept:
            kept[conv] = Conv2d.from_conv(conv, activation=activation, negative_slope=0.1)
        output: Tensor = kept[conv](input, residual)
        return output

    return apply


def torch_apart() -> Op:
    """The three operations of torch, one after the other."""

    def apply(conv: nn.Conv2d, input: Tensor, residual: Tensor | None, activation: str | None) -> Tensor:
        output: Tensor = conv(input)
        if residual is not None:
            output += residual
        if activation == "relu":
            return F.relu_(output)
        return output if activation is None else F.leaky_relu_(output, 0.1)

    return apply


CONTENDERS: dict[str, Any] = {"fastcv": fastcv_packed, "torch": torch_apart}


def problem(variant: Variant, layer: Layer) -> Problem:
    """The module, its input, and what is added."""
    torch.manual_seed(0)
    conv = nn.Conv2d(layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.kernel // 2)
    conv = conv.eval().requires_grad_(False)
    conv = conv.to(variant.device, variant.torch_dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    input = variant.place(torch.randn(variant.scale, layer.inputs, *layer.size))
    output = conv(input)
    residual = torch.randn_like(output) if layer.addition else None
    moved = input.nbytes + conv.weight.nbytes + output.nbytes * (2 if layer.addition else 1)
    return Problem((conv, input, residual), bytes=moved, flops=2 * output.numel() * conv.weight[0].numel())


def call(op: Op, conv: nn.Conv2d, input: Tensor, residual: Tensor | None, layer: Layer) -> Tensor:
    with torch.no_grad():
        return op(conv, input, residual, layer.activation)


def workload(id: str, layer: Layer, ratio: float | None) -> Workload:
    target = Target(ratio=ratio)
    return Workload(
        id=id,
        title=f"conv2d {layer.name}",
        problem=partial(problem, layer=layer),
        call=partial(call, layer=layer),
        contenders=CONTENDERS,
        peer="torch",
        targets={} if ratio is None else {"one thread": target, "all threads": target},
        variants=(("float32", "channels_last"), ("bfloat16", "channels_last")),
    )


WORKLOADS = [
    *(workload(f"K1-{i + 1}", layer, ratio) for i, (layer, ratio) in enumerate(WINOGRAD)),
    *(workload(f"K2-{i + 1}", layer, 1.05) for i, layer in enumerate(RESNET)),
    *(workload(f"K3-{i + 1}", layer, None) for i, layer in enumerate(YOLO)),
]

test_conv2d = run_case

"""The upsamplings without weights, max pooling and bilinear interpolation against torch (workloads U1-U5)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from bench.harness import run_case
from bench.workloads import Problem, Target, Variant, Workload

Op = Callable[..., Any]
Shape = tuple[int, int, int, int]
VARIANTS = (
    ("float32", "contiguous"),
    ("float32", "channels_last"),
    ("bfloat16", "contiguous"),
    ("bfloat16", "channels_last"),
)


def map_problem(variant: Variant, shape: Shape, factor: float, index: bool = False, backward: bool = False) -> Problem:
    """A map, and for the backward the gradient of a result of ``factor`` times its height and width."""
    generator = torch.Generator().manual_seed(0)
    n, c, h, w = shape
    image = variant.place(torch.randn(n * variant.scale, c, h, w, generator=generator))
    result = variant.place(torch.randn(n * variant.scale, c, int(h * factor), int(w * factor), generator=generator))
    # Read one, write the other, and the int64 indices; the backward moves the same once more.
    moved = image.nbytes + result.nbytes + (8 * result.numel() if index else 0)
    if backward:
        return Problem((image.requires_grad_(), result), bytes=2 * moved)
    return Problem((image,), bytes=moved)


def unpool_problem(variant: Variant) -> Problem:
    values, indices = torch.nn.functional.max_pool2d(
        map_problem(variant, (8, 64, 128, 128), 0.5).args[0], 2, return_indices=True
    )
    return Problem((values, indices), bytes=values.nbytes + indices.nbytes + 4 * values.nbytes)


def forward_backward(op: Op, image: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(op(image), image, grad)[0]


def forward(op: Op, *tensors: torch.Tensor) -> Any:
    return op(*tensors)


def functional(name: str, *arguments: Any, **options: Any) -> Callable[[], Op]:
    return lambda: partial_of(getattr(torch.nn.functional, name), *arguments, **options)


def ours(name: str, *arguments: Any, **options: Any) -> Callable[[], Op]:
    def load() -> Op:
        import fastcv

        return partial_of(getattr(fastcv.ops, name), *arguments, **options)

    return load


def partial_of(op: Op, *arguments: Any, **options: Any) -> Op:
    """The op with everything behind its tensors filled in; the first of its results."""

    def call(*tensors: torch.Tensor) -> Any:
        result = op(*tensors, *arguments, **options)
        return result[0] if isinstance(result, tuple) else result

    return call


NEAREST = {
    "fastcv": ours("unpool_nearest", 2),
    "torch": functional("interpolate", scale_factor=2, mode="nearest"),
}
BILINEAR = {
    "fastcv": ours("upsample_bilinear2d", scale_factor=2),
    "torch": functional("interpolate", scale_factor=2, mode="bilinear"),
}
TARGETS = {name: Target(ratio=1) for name in ("one thread", "all threads", "cuda")}


def pool(kernel: int, stride: int, padding: int) -> dict[str, Any]:
    return {
        "fastcv": ours("max_pool2d_with_indices", kernel, stride, padding),
        "torch": functional("max_pool2d", kernel, stride, padding, return_indices=True),
    }


def workload(id: str, title: str, contenders: dict[str, Any], problem: Any, backward: bool = False) -> Workload:
    return Workload(
        id=id,
        title=title,
        problem=problem,
        call=forward_backward if backward else forward,
        contenders=contenders,
        peer="torch",
        targets=TARGETS,
        variants=VARIANTS,
    )


MIDDLE: Shape = (8, 64, 64, 64)
LARGE: Shape = (8, 64, 128, 128)
STEM: Shape = (8, 64, 112, 112)

WORKLOADS = [
    workload("U1", "nearest ×2, 8×64×64×64", NEAREST, partial(map_problem, shape=MIDDLE, factor=2)),
    workload(
        "U1-backward",
        "nearest ×2 forward + backward, 8×64×64×64",
        NEAREST,
        partial(map_problem, shape=MIDDLE, factor=2, backward=True),
        backward=True,
    ),
    workload("U2", "bilinear ×2, 8×64×64×64", BILINEAR, partial(map_problem, shape=MIDDLE, factor=2)),
    workload(
        "U2-backward",
        "bilinear ×2 forward + backward, 8×64×64×64",
        BILINEAR,
        partial(map_problem, shape=MIDDLE, factor=2, backward=True),
        backward=True,
    ),
    workload(
        "U3",
        "max pooling 2×2 with indices, 8×64×128×128",
        pool(2, 2, 0),
        partial(map_problem, shape=LARGE, factor=0.5, index=True),
    ),
    workload(
        "U3-backward",
        "max pooling 2×2 forward + backward, 8×64×128×128",
        pool(2, 2, 0),
        partial(map_problem, shape=LARGE, factor=0.5, index=True, backward=True),
        backward=True,
    ),
    workload(
        "U4",
        "max pooling 3×3 s2 p1 with indices, 8×64×112×112",
        pool(3, 2, 1),
        partial(map_problem, shape=STEM, factor=0.5, index=True),
    ),
    workload(
        "U4-backward",
        "max pooling 3×3 s2 p1 forward + backward, 8×64×112×112",
        pool(3, 2, 1),
        partial(map_problem, shape=STEM, factor=0.5, index=True, backward=True),
        backward=True,
    ),
    workload(
        "U5",
        "max unpooling 2×2, 8×64×64×64 to 128×128",
        {"fastcv": ours("max_unpool2d", 2), "torch": functional("max_unpool2d", 2)},
        unpool_problem,
    ),
    Workload(
        id="H1-unpool",
        title="cost of an unpool_nearest call, forward, 1×16×8×8",
        problem=partial(map_problem, shape=(1, 16, 8, 8), factor=2),
        call=forward,
        contenders=NEAREST,
        peer="torch",
        targets={name: Target(seconds=4e-6) for name in ("one thread", "all threads", "cuda")},
        iterations=1000,
    ),
]

test_upsample = run_case

"""Sums whose bits do not depend on the number of threads, against torch's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from bench.harness import run_case
from bench.workloads import Problem, Variant, Workload

Op = Callable[..., torch.Tensor]


def problem(variant: Variant, shape: tuple[int, ...]) -> Problem:
    values = variant.place(torch.rand(shape, generator=torch.Generator().manual_seed(0)))
    return Problem((values,), bytes=values.nbytes)


def whole(op: Op, values: torch.Tensor) -> torch.Tensor:
    return op(values, None)


def per_channel(op: Op, values: torch.Tensor) -> torch.Tensor:
    return op(values, 1)


def torch_sum() -> Op:
    def call(values: torch.Tensor, axis: int | None) -> torch.Tensor:
        return values.sum([i for i in range(values.dim()) if i != axis])

    return call


CONTENDERS: dict[str, Any] = {"fastcv": "fastcv.ops.ordered_sum:ordered_sum", "torch": torch_sum}

WORKLOADS = [
    Workload(
        id="C7",
        title="sum of 1 600 000 losses",
        problem=partial(problem, shape=(20_000, 80)),
        call=whole,
        contenders=CONTENDERS,
        peer="torch",
        variants=(("float32", "contiguous"), ("bfloat16", "contiguous")),
    ),
    Workload(
        id="C7-channels",
        title="sum of (8, 256, 50, 50) per channel",
        problem=partial(problem, shape=(8, 256, 50, 50)),
        call=per_channel,
        contenders=CONTENDERS,
        peer="torch",
        variants=(("float32", "contiguous"), ("float32", "channels_last"), ("bfloat16", "contiguous")),
    ),
]

test_ordered_sum = run_case

"""soft_nms against the reference: no peer of this environment has it (S1)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from bench.harness import run_case
from bench.ops.bench_nms import problem
from bench.workloads import Workload


def call(
    op: Callable[..., tuple[torch.Tensor, torch.Tensor]], boxes: torch.Tensor, scores: torch.Tensor, method: str
) -> torch.Tensor:
    return op(boxes, scores, method=method)[0]


WORKLOADS = [
    Workload(
        id=f"S1-{method}",
        title=f"soft_nms {method}, 1000 boxes in 800×1333",
        problem=partial(problem, count=1000),
        call=partial(call, method=method),
        contenders={"fastcv": "fastcv.ops:soft_nms", "reference": "fastcv.reference:soft_nms"},
        peer="reference",
        tolerance=None,  # in float32 near ties change places between exponential functions
    )
    for method in ("linear", "gaussian")
]

test_soft_nms = run_case

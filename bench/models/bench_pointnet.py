"""PointNet and PointNet++, inference of 16 clouds of 1024 points, against plain torch as the published code has it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.harness import run_case
from bench.workloads import Problem, Target, Variant, Workload

OPTIONS: dict[str, dict[str, bool]] = {"PointNet": {}, "PointNet2": {}, "PointNet2MSG": {"msg": True}}


def square_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances by a product of matrices, as the published code computes them (the tests want them exact)."""
    return (a**2).sum(-1)[:, :, None] + (b**2).sum(-1)[:, None] - 2 * a @ b.mT


@lru_cache(maxsize=4)
def network(name: str, twin: bool) -> Callable[[Tensor], Tensor]:
    """A network or its twin (of the tests), with the same weights."""
    twins: Any = importlib.import_module("point_twins")
    twins.square_distance = square_distance
    torch.manual_seed(0)
    build = getattr(twins, name.removesuffix("MSG") + "Twin")
    model: nn.Module = build(40, **OPTIONS[name])
    if not twin:
        weights = model.state_dict()
        model = getattr(importlib.import_module("fastcv.models.pointcloud"), name)()
        model.load_state_dict(weights)
    model.eval()

    def infer(points: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = model.to(points.device)(points)
        return logits

    return infer


def problem(variant: Variant) -> Problem:
    """Surfaces of boxes of all proportions, in the unit ball."""
    generator = torch.Generator().manual_seed(0)
    points = 2 * torch.rand(16, 1024, 3, generator=generator) - 1
    side = torch.randint(0, 3, (16, 1024, 1), generator=generator)
    points.scatter_(2, side, points.gather(2, side).sign())
    points *= 0.3 + 0.7 * torch.rand(16, 1, 3, generator=generator)
    points /= points.norm(dim=2).amax(1)[:, None, None]
    return Problem((points.to(variant.device),))


def infer(contender: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    return contender(points)


def workload(name: str, title: str, ratio: float) -> Workload:
    """One network and its twin."""
    return Workload(
        id=name,
        title=f"{title}, 16 clouds of 1024 points, evaluation, 40 classes",
        problem=problem,
        call=infer,
        contenders={"fastcv": partial(network, name, False), "plain torch": partial(network, name, True)},
        peer="plain torch",
        targets={"one thread": Target(ratio=ratio)},
    )


WORKLOADS = [
    workload("PointNet", "PointNet", 1.0),
    workload("PointNet2", "PointNet++ SSG", 3.0),
    workload("PointNet2MSG", "PointNet++ MSG", 3.0),
]

test_pointnet = run_case

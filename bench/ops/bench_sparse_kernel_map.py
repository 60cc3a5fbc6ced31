"""The kernel map of a sparse convolution alone, on the sites of G1 and G2, ordered and shuffled; up to 10⁶ sites."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.harness import run_case
from bench.workloads import Problem, Variant, Workload
from fastcv.ops import sparse_kernel_map

SHAPE = (41, 400, 352)
SITES = 34_934
GEOMETRY: dict[str, dict[str, Any]] = {
    "subm": {"kernel_size": 3, "subm": True},
    "strided": {"kernel_size": 3, "stride": 2, "padding": 1},
}


def surface_sites(variant: Variant, copies: int = 1) -> Tensor:
    """Sites of a wavy surface around the middle of a grid, in ascending order; ``copies`` of them as a batch."""
    depth, height, width = SHAPE
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    wave = 0.5 * torch.sin(x / 23) * torch.cos(y / 19) + 0.2 * torch.sin(x / 7 + y / 11)
    z = (depth / 2 * (1 + wave)).long().clamp(0, depth - 1)
    sites = torch.stack([z, y, x], dim=-1).reshape(-1, 3)
    distance = ((y - height / 2).square() + (x - width / 2).square()).reshape(-1)
    sites = sites[distance.argsort(stable=True)[: SITES * min(variant.scale, 4)]]
    key = (sites[:, 0] * height + sites[:, 1]) * width + sites[:, 2]
    sites = sites[key.argsort()]
    batch = torch.arange(copies).repeat_interleave(len(sites))
    return torch.cat([batch[:, None], sites.repeat(copies, 1)], dim=1).int()


def problem(variant: Variant, kind: str, shuffled: bool = False, copies: int = 1) -> Problem:
    indices = surface_sites(variant, copies)
    if shuffled:
        indices = indices[torch.randperm(len(indices), generator=torch.Generator().manual_seed(0))]
    indices = indices.to(variant.device)
    out, neighbours, reverse = sparse_kernel_map(indices, SHAPE, copies, **GEOMETRY[kind])
    return Problem((indices, copies, kind), bytes=indices.nbytes + out.nbytes + neighbours.nbytes + reverse.nbytes)


def load_fastcv() -> Callable[..., Any]:
    return lambda indices, copies, kind: sparse_kernel_map(indices, SHAPE, copies, **GEOMETRY[kind])


def load_spconv() -> Callable[..., Any]:
    import spconv.pytorch.ops as ops  # type: ignore[import-not-found,unused-ignore]
    from spconv.core import ConvAlgo  # type: ignore[import-not-found,unused-ignore]

    def call(indices: Tensor, copies: int, kind: str) -> Any:
        geometry = GEOMETRY[kind]
        stride, padding = ([geometry.get(name, default)] * 3 for name, default in (("stride", 1), ("padding", 1)))
        submanifold = kind == "subm"
        return ops.get_indice_pairs(
            indices, copies, list(SHAPE), ConvAlgo.Native, [3] * 3, stride, padding, [1] * 3, [0] * 3, submanifold
        )

    return call


def call(op: Any, *arguments: Any) -> Any:
    return op(*arguments)


WORKLOADS = [
    Workload(
        id=f"G-map-{kind}{'-shuffled' if shuffled else ''}",
        title=f"kernel map 3³, {kind}, {SITES} surface sites{', shuffled' if shuffled else ''}",
        problem=partial(problem, kind=kind, shuffled=shuffled),
        call=call,
        contenders={"fastcv": load_fastcv, "spconv": load_spconv},
        peer="spconv",
        tolerance=None,  # their layouts differ
    )
    for kind in GEOMETRY
    for shuffled in (False, True)
]
WORKLOADS += [
    Workload(
        id=f"G-map-{kind}-{copies}",
        title=f"kernel map 3³, {kind}, {copies} × {SITES} surface sites",
        problem=partial(problem, kind=kind, copies=copies),
        call=call,
        contenders={"fastcv": load_fastcv},
        peer="spconv",
        tolerance=None,
    )
    for kind in GEOMETRY
    for copies in (6, 29)
]

test_sparse_kernel_map = run_case

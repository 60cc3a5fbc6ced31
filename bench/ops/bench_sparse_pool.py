"""sparse_max_pool and sparse_avg_pool on a LiDAR-like surface, 3×3×3 with stride 2, over a kernel map that exists."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.harness import run_case
from bench.workloads import Contender, Problem, Variant, Workload

GRID = (41, 400, 352)


def surface(scale: int) -> Tensor:
    """About 35 000 sites (z, y, x) per unit of scale on wavy ground with a few steps."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(GRID[1] * scale), torch.arange(GRID[2]), indexing="ij")
    height = 15 + 6 * torch.sin(y / 31) + 5 * torch.cos(x / 23) + 8 * ((x // 40 + y // 55) % 3 == 0)
    seen = torch.rand(y.shape, generator=generator) < 0.25
    return torch.stack([height.int()[seen], y.int()[seen], x.int()[seen]], 1).long()


def halving_map(sites: Tensor) -> tuple[Tensor, Tensor]:
    """The kernel map of a 3×3×3 convolution with stride 2 and padding 1: neighbours (27, M) and reverse (27, N)."""
    steps = torch.arange(3)
    offsets = torch.cartesian_prod(steps, steps, steps)
    moved = sites + 1 - offsets[:, None]  # (27, N, 3): twice the output site that each input feeds
    feeds = (moved % 2 == 0).all(2) & (moved >= 0).all(2)
    key = ((moved[..., 0] // 2) * 2**40 + (moved[..., 1] // 2) * 2**20 + moved[..., 2] // 2)[feeds]
    outputs, row = torch.unique(key, return_inverse=True)
    neighbours = torch.full((27, len(outputs)), -1, dtype=torch.int32)
    reverse = torch.full((27, len(sites)), -1, dtype=torch.int32)
    k, n = feeds.nonzero().unbind(1)
    neighbours[k, row], reverse[k, n] = n.int(), row.int()
    return neighbours, reverse


def pairs_of(neighbours: Tensor) -> tuple[Tensor, Tensor]:
    """The same links as spconv wants them: rows of input and output (2, 27, N) and their number (27,)."""
    there = neighbours >= 0
    counts = there.sum(1).int()
    pairs = torch.full((2, 27, int(neighbours.max()) + 1), -1, dtype=torch.int32)
    for k in range(27):
        (rows,) = there[k].nonzero(as_tuple=True)
        pairs[0, k, : len(rows)], pairs[1, k, : len(rows)] = neighbours[k, rows], rows.int()
    return pairs, counts


def problem(variant: Variant, channels: int, backward: bool = False) -> Problem:
    neighbours, reverse = halving_map(surface(variant.scale))
    rows, outputs = reverse.shape[1], neighbours.shape[1]
    generator = torch.Generator().manual_seed(0)
    features = variant.place(torch.randn(rows, channels, generator=generator))
    links = [t.to(variant.device) for t in (neighbours, reverse, *pairs_of(neighbours))]
    moved = features.nbytes + neighbours.nbytes + outputs * channels * features.element_size()
    if backward:
        # The gradient needs argmax too, written and read, and the map the other way round.
        grad = variant.place(torch.randn(outputs, channels, generator=generator))
        moved = 2 * (moved + 4 * outputs * channels) + reverse.nbytes - neighbours.nbytes
        return Problem((features.requires_grad_(), *links, grad), bytes=moved)
    return Problem((features, *links), bytes=moved)


def fastcv(name: str) -> Callable[..., Tensor]:
    import fastcv.ops

    op = getattr(fastcv.ops, name)
    return lambda features, neighbours, reverse, pairs, counts: op(features, neighbours, reverse)


def plain_torch(average: bool) -> Callable[..., Tensor]:
    """What can be done with torch alone: gather all neighbours, then reduce."""

    def pool(features: Tensor, neighbours: Tensor, reverse: Tensor, pairs: Tensor, counts: Tensor) -> Tensor:
        fill = features.new_full((1, features.shape[1]), 0.0 if average else -torch.inf)
        gathered = torch.cat([features, fill])[neighbours.long()]  # -1 is the last row
        return gathered.sum(0) / (neighbours >= 0).sum(0)[:, None] if average else gathered.amax(0)

    return pool


def spconv() -> Callable[..., Tensor]:
    indice_maxpool = importlib.import_module("spconv.pytorch.functional").indice_maxpool
    return lambda features, neighbours, reverse, pairs, counts: indice_maxpool(
        features, pairs, counts, neighbours.shape[1]
    )


def forward_backward(op: Callable[..., Tensor], *args: Tensor) -> Tensor:
    *inputs, grad = args
    return torch.autograd.grad(op(*inputs), inputs[0], grad)[0]


MAX: dict[str, Contender] = {
    "fastcv": partial(fastcv, "sparse_max_pool"),
    "torch": partial(plain_torch, False),
    "spconv": spconv,
}
AVG: dict[str, Contender] = {"fastcv": partial(fastcv, "sparse_avg_pool"), "torch": partial(plain_torch, True)}
VARIANTS = (("float32", "contiguous"), ("float16", "contiguous"), ("bfloat16", "contiguous"))


def call(op: Callable[..., Any], *args: Any) -> Any:
    return op(*args)


WORKLOADS = [
    Workload(
        id=f"G3-{name}-{channels}{suffix}",
        title=f"sparse {name} pooling {'forward + backward' if suffix else 'forward'}, 3×3×3 stride 2, 35 000 sites, "
        f"{channels} channels",
        problem=partial(problem, channels=channels, backward=bool(suffix)),
        call=forward_backward if suffix else call,
        contenders=contenders,
        peer="torch",
        variants=VARIANTS,
    )
    for name, contenders in (("max", MAX), ("avg", AVG))
    for channels in (16, 64)
    for suffix in ("", "-backward")
]

test_sparse_pool = run_case

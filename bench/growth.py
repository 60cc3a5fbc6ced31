"""How cost grows with size: ``python -m bench.growth [op ...]`` writes ``bench/results/growth_<op>.json`` and ``.png``.

Each op has a list of sizes and a function that makes its inputs for one; time per element should stay flat once the
data no longer fit the caches. An op takes part by its own entry in ``GROWTHS``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.machine import device_name

RESULTS = Path(__file__).parent / "results"
SECONDS_PER_SIZE = 1.5
FEWEST_CALLS = 3
ALLOWED = 1.5  # times the least time per element, for sizes beyond the caches


@dataclass(frozen=True)
class Growth:
    """An op whose cost is followed over sizes.

    Parameters
    ----------
    op
        Its name; also that of the result files.
    title
        What grows and what stays as it is.
    element
        What a size counts, in the singular.
    sizes
        Ascending.
    make
        ``make(size)``: a function without arguments that runs the op once.
    """

    op: str
    title: str
    element: str
    sizes: Sequence[int]
    make: Callable[[int], Callable[[], Any]]


def nms_of_constant_density(count: int) -> Callable[[], Any]:
    """Boxes with sides of 4 to 204 pixels, 1000 of them per 800×1333 pixels."""
    from fastcv.ops import nms

    generator = torch.Generator().manual_seed(0)
    sides = 4 + 200 * torch.rand(count, 2, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * (800 * 1333 * count / 1000) ** 0.5
    boxes, scores = torch.cat([corner, corner + sides], dim=1), torch.rand(count, generator=generator)
    return lambda: nms(boxes, scores, 0.5)


def voxelize_of_constant_density(count: int) -> Callable[[], Any]:
    """Points anywhere in a flat world that grows with them, three to a voxel, all voxels kept."""
    from fastcv.ops import voxelize

    side = (count / 3 / 20) ** 0.5 * 0.1  # 20 voxels high
    points = torch.rand(count, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([side, side, 2.0, 1.0])
    return lambda: voxelize(points, 0.1, (0, 0, 0, side + 0.1, side + 0.1, 2), 5)


def sparse_conv_of_constant_density(count: int) -> Callable[[], Any]:
    """Sites of a wavy surface that grows with them; the map and SubMConv3d 3³ from 4 to 16 channels, as in G1."""
    from fastcv.ops import sparse_conv, sparse_kernel_map

    depth, side = 41, int(count**0.5)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    wave = 0.5 * torch.sin(x / 23) * torch.cos(y / 19) + 0.2 * torch.sin(x / 7 + y / 11)
    z = (depth / 2 * (1 + wave)).long().clamp(0, depth - 1)
    key = ((z * side + y) * side + x).reshape(-1).sort().values
    sites = [torch.zeros_like(key), key // side**2, key // side % side, key % side]
    indices = torch.stack(sites, dim=1).int()
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(len(indices), 4, generator=generator)
    weight = torch.rand(16, 3, 3, 3, 4, generator=generator)

    def call() -> torch.Tensor:
        _, neighbours, reverse = sparse_kernel_map(indices, (depth, side, side), 1, 3, subm=True)
        return sparse_conv(features, weight, None, neighbours, reverse)

    return call


GROWTHS = [
    Growth(
        op="nms",
        title="nms at constant density, IoU 0.5",
        element="box",
        sizes=(1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000),
        make=nms_of_constant_density,
    ),
    Growth(
        op="sparse_conv",
        title="SubMConv3d 3³ with its map, 4 → 16 channels, a surface of constant density",
        element="site",
        sizes=(1000, 10_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000),
        make=sparse_conv_of_constant_density,
    ),
    Growth(
        op="voxelize",
        title="voxelize at constant density, all voxels kept, 5 points each",
        element="point",
        sizes=(1000, 10_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000),
        make=voxelize_of_constant_density,
    ),
]


def least_seconds(call: Callable[[], Any]) -> float:
    """The quickest of several calls: noise only ever adds."""
    call()
    best, end, calls = float("inf"), time.perf_counter() + SECONDS_PER_SIZE, 0
    while calls < FEWEST_CALLS or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
        calls += 1
    return best


def measure(growth: Growth) -> dict[str, Any]:
    """Time all sizes, in nanoseconds per element."""
    points = []
    for size in growth.sizes:
        seconds = least_seconds(growth.make(size))
        points.append({"size": size, "seconds": float(f"{seconds:.4g}"), "ns": float(f"{seconds / size * 1e9:.4g}")})
        print(f"{growth.op}: {size:>9} {growth.element}: {seconds * 1e3:10.3f} ms, {points[-1]['ns']:7.1f} ns each")
    return {
        "op": growth.op,
        "title": growth.title,
        "element": growth.element,
        "device": device_name("cpu", torch.get_num_threads()),
        "threads": torch.get_num_threads(),
        "points": points,
    }


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw nanoseconds per element over size, with the band that counts as flat."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    sizes, each = [p["size"] for p in result["points"]], [p["ns"] for p in result["points"]]
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.axhspan(min(each), ALLOWED * min(each), color="#e8eef5", label=f"flat within {ALLOWED}×")
    axes.plot(sizes, each, marker="o", color="#1f5f99")
    axes.set_xscale("log")
    axes.set_ylim(0, max(*each, ALLOWED * min(each)) * 1.15)
    axes.set_xlabel(f"size, one per {result['element']}")
    axes.set_ylabel(f"ns per {result['element']}")
    axes.set_title(f"{result['title']}\n{result['device']}", loc="left", fontsize=10)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(names: Sequence[str]) -> int:
    """Measure the ops named, or all."""
    known = {growth.op: growth for growth in GROWTHS}
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    RESULTS.mkdir(exist_ok=True)
    for name in names or known:
        result = measure(known[name])
        points = ",\n".join("  " + json.dumps(point) for point in result.pop("points"))
        head = json.dumps(result, ensure_ascii=False, indent=1).removesuffix("\n}")
        path = RESULTS / f"growth_{name}.json"
        path.write_text(f'{head},\n "points": [\n{points}\n ]\n}}\n', encoding="utf-8")
        plot(json.loads(path.read_text(encoding="utf-8")), path.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

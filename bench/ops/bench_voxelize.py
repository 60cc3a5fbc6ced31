"""Voxelisation (F1) against spconv, and the voxel ops around it (F2 to F4) against plain torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from bench.harness import run_case
from bench.workloads import Problem, Target, Variant, Workload

RANGE = (0.0, -40.0, -3.0, 70.4, 40.0, 1.0)
SIZE = (0.05, 0.05, 0.1)
MAX_POINTS, MAX_VOXELS = 5, 40_000
EVERYWHERE = ("one thread", "all threads")


def scan(count: int) -> torch.Tensor:
    """(count, 4): what 64 rings ahead of a car see of the ground and of walls, ring by ring."""
    generator = torch.Generator().manual_seed(0)
    rings, columns = 64, -(-count // 64)
    elevation = torch.linspace(-0.43, 0.03, rings)[:, None]
    azimuth = torch.linspace(-0.75, 0.75, columns)[None, :]
    wall = 12 + 50 * torch.rand(1, 40, generator=generator).repeat_interleave(-(-columns // 40), 1)[:, :columns]
    ground = 1.73 / torch.sin(-elevation).clamp(min=0.01)
    distance = torch.minimum(wall, ground) + 0.02 * torch.randn(rings, columns, generator=generator)
    level = distance * torch.cos(elevation)
    xyz = [level * torch.cos(azimuth), level * torch.sin(azimuth), distance * torch.sin(elevation)]
    points = torch.stack([*xyz, torch.rand(rings, columns, generator=generator)], dim=-1)
    return points.reshape(-1, 4)[:count].contiguous()


def uniform(count: int) -> torch.Tensor:
    """(count, 4): anywhere in the range, nearly each in a voxel of its own."""
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor(RANGE[:3]), torch.tensor(RANGE[3:])
    points = torch.rand(count, 4, generator=generator)
    points[:, :3] = low + (high - low) * points[:, :3]
    return points


def spconv_voxelize() -> Callable[..., Any]:
    """spconv's generator, built once and kept, as its users keep it."""
    utils = importlib.import_module("spconv.pytorch.utils")
    generator = utils.PointToVoxel(
        vsize_xyz=list(SIZE),
        coors_range_xyz=list(RANGE),
        num_point_features=4,
        max_num_voxels=MAX_VOXELS,
        max_num_points_per_voxel=MAX_POINTS,
    )

    def voxelize(points: torch.Tensor, *_: Any) -> tuple[torch.Tensor, ...]:
        return tuple(generator(points))

    return voxelize


def voxelize_problem(variant: Variant, points: Callable[[int], torch.Tensor], count: int = 120_000) -> Problem:
    placed = variant.place(points(count * variant.scale))
    # read the points; write the voxels, their coordinates and numbers
    return Problem((placed,), bytes=placed.numel() * 4 + MAX_VOXELS * (MAX_POINTS * 16 + 12 + 4))


def call_voxelize(op: Any, points: torch.Tensor) -> torch.Tensor:
    voxels = op(points, SIZE, RANGE, MAX_POINTS, MAX_VOXELS)[0]
    assert isinstance(voxels, torch.Tensor)
    return voxels


def scatter_problem(variant: Variant, count: int = 120_000) -> Problem:
    from fastcv.ops import voxel_ids

    points = scan(count * variant.scale)
    coords = voxel_ids(points, SIZE, RANGE).to(variant.device)
    features = torch.rand(len(points), 16, generator=torch.Generator().manual_seed(1))
    return Problem((variant.place(features), coords), bytes=features.numel() * 4 + coords.numel() * 4)


def torch_scatter() -> Callable[..., Any]:
    """unique and index_add, as voxel encoders without kernels of their own do it."""

    def scatter(features: torch.Tensor, coords: torch.Tensor, reduce: str) -> tuple[torch.Tensor, ...]:
        inside = coords[:, 0] >= 0
        wide = coords.long()
        keys = ((wide[:, 0] * 64 + wide[:, 1]) * 2048 + wide[:, 2]) * 2048 + wide[:, 3]
        unique, inverse = keys[inside].unique(return_inverse=True)
        sums = features.new_zeros(len(unique), features.shape[1]).index_add_(0, inverse, features[inside])
        return (sums / torch.bincount(inverse)[:, None],)

    return scatter


def call_scatter(op: Any, features: torch.Tensor, coords: torch.Tensor) -> torch.Tensor:
    reduced = op(features, coords, "mean")[0]
    assert isinstance(reduced, torch.Tensor)
    return reduced


def occupancy_problem(variant: Variant) -> Problem:
    points = variant.place(scan(120_000 * variant.scale))
    return Problem((points,), bytes=points.numel() * 4 + 20 * 400 * 352 * 4)


def torch_occupancy() -> Callable[..., Any]:
    """Cells by arithmetic, then one assignment by index."""

    def occupancy(points: torch.Tensor, size: float, limits: tuple[float, ...]) -> torch.Tensor:
        cells = ((points[:, :3] - torch.tensor(limits[:3])) / size).floor()
        inside = ((cells >= 0) & (cells < torch.tensor([352.0, 400.0, 20.0]))).all(1)
        x, y, z = cells[inside].long().unbind(1)
        grid = points.new_zeros(20, 400, 352)
        grid[z, y, x] = 1
        return grid

    return occupancy


def call_occupancy(op: Any, points: torch.Tensor) -> torch.Tensor:
    grid = op(points, 0.2, RANGE)
    assert isinstance(grid, torch.Tensor)
    return grid


def devoxelize_problem(variant: Variant) -> Problem:
    from fastcv.ops import voxel_ids, voxel_scatter

    points = scan(120_000 * variant.scale)
    features = torch.rand(len(points), 16, generator=torch.Generator().manual_seed(1))
    voxels, coords, _ = voxel_scatter(features, voxel_ids(points, SIZE, RANGE))
    moved = voxels.numel() * 4 + coords.numel() * 4 + points.numel() * 4 + features.numel() * 4
    return Problem(tuple(variant.place(tensor) for tensor in (voxels, coords, points[:, :3].contiguous())), bytes=moved)


def call_devoxelize(op: Any, features: torch.Tensor, coords: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    found = op(features, coords, points, SIZE, RANGE)
    assert isinstance(found, torch.Tensor)
    return found


WORKLOADS = [
    Workload(
        id=f"F1{suffix}",
        title=f"voxelize, 120 000 points{what}, 0.05×0.05×0.1 m, 5 per voxel, 40 000 voxels",
        problem=partial(voxelize_problem, points=points),
        call=call_voxelize,
        contenders={"fastcv": "fastcv.ops:voxelize", "spconv": spconv_voxelize},
        peer="spconv",
        targets={**dict.fromkeys(EVERYWHERE, Target(ratio=3)), "cuda": Target(share=0.7)},
    )
    for suffix, what, points in (("", " of a scan", scan), ("u", " anywhere", uniform))
]
WORKLOADS += [
    Workload(
        id="F1-1M",
        title="voxelize, 1 000 000 points of a scan, 0.05×0.05×0.1 m, 5 per voxel, 40 000 voxels",
        problem=partial(voxelize_problem, points=scan, count=250_000),
        call=call_voxelize,
        contenders={"fastcv": "fastcv.ops:voxelize"},
        targets={"cuda": Target(share=0.7)},
        devices=("cuda",),
    ),
    Workload(
        id="F2-1M",
        title="voxel_scatter, 1 000 000 points of a scan, 16 channels, mean",
        problem=partial(scatter_problem, count=250_000),
        call=call_scatter,
        contenders={"fastcv": "fastcv.ops:voxel_scatter", "torch": torch_scatter},
        peer="torch",
        targets={"cuda": Target(share=0.7)},
        devices=("cuda",),
    ),
    Workload(
        id="F2",
        title="voxel_scatter, 120 000 points of a scan, 16 channels, mean",
        problem=scatter_problem,
        call=call_scatter,
        contenders={"fastcv": "fastcv.ops:voxel_scatter", "torch": torch_scatter},
        peer="torch",
        targets={"cuda": Target(share=0.7)},
    ),
    Workload(
        id="F3",
        title="voxel_occupancy, 120 000 points of a scan, 20×400×352, binary",
        problem=occupancy_problem,
        call=call_occupancy,
        contenders={"fastcv": "fastcv.ops:voxel_occupancy", "torch": torch_occupancy},
        peer="torch",
    ),
    Workload(
        id="F4",
        title="devoxelize, trilinear, the voxels of F2 back to its 120 000 points",
        problem=devoxelize_problem,
        call=call_devoxelize,
        contenders={"fastcv": "fastcv.ops:devoxelize", "reference": "fastcv.reference:devoxelize"},
        peer="reference",
    ),
]

test_voxelize = run_case

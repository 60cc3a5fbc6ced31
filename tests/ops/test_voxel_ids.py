"""voxel_ids and voxel_occupancy against the reference, on every backend."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastcv import reference
from fastcv.ops import voxel_grid_size, voxel_ids, voxel_occupancy, voxelize

NAN, INF = float("nan"), float("inf")
RANGE = [0.0, -4.0, -1.0, 8.0, 4.0, 1.0]
SIZE = [0.5, 0.25, 0.4]
MODES = ("binary", "count", "density")


def random_points(count: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Points in and around RANGE."""
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor(RANGE[:3]) - 0.5, torch.tensor(RANGE[3:]) + 0.5
    return (low + (high - low) * torch.rand(count, 3, generator=generator) ** 2).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 63, 64, 65, 257, 700])
def test_agrees_with_the_reference(backend: Any, dtype: torch.dtype, count: int) -> None:
    points = random_points(count, count, dtype)
    points[: count // 9] = torch.tensor([NAN, INF, -INF])[torch.arange(3 * (count // 9)).reshape(-1, 3) % 3].to(dtype)
    offsets = torch.tensor([0, 0, count // 3, count // 2, count])
    batch = torch.arange(count) % 5 - 1
    moved = points.to(backend.device)
    expected = reference.voxel_ids(points, SIZE, RANGE)
    assert torch.equal(voxel_ids(moved, SIZE, RANGE).cpu(), expected)
    clouds = voxel_ids(moved, SIZE, RANGE, offsets=offsets.to(backend.device)).cpu()
    assert torch.equal(clouds, reference.voxel_ids(points, SIZE, RANGE, offsets))
    for dtype_of_batch in (torch.int64, torch.int32):
        by_batch = voxel_ids(moved, SIZE, RANGE, batch=batch.to(backend.device, dtype_of_batch)).cpu()
        inside = (expected[:, 0] >= 0) & (batch >= 0)
        assert torch.equal(by_batch[:, 0], torch.where(inside, batch, -1).int())
        assert torch.equal(by_batch[:, 1:], torch.where(inside[:, None], expected[:, 1:], -1))
    for mode in MODES:
        wanted = reference.voxel_occupancy(points, SIZE, RANGE, mode)
        assert torch.equal(voxel_occupancy(moved, SIZE, RANGE, mode).cpu(), wanted)
        wanted = reference.voxel_occupancy(points, SIZE, RANGE, mode, offsets)
        assert torch.equal(voxel_occupancy(moved, SIZE, RANGE, mode, offsets.to(backend.device)).cpu(), wanted)


def test_clouds_beyond_32_bits(backend: Any) -> None:
    points = torch.tensor([[1.0, 1, 0]] * 4, device=backend.device)
    batch = torch.tensor([2**31 - 1, 2**31, -(2**63), 2**40 + 3], device=backend.device)
    ids = voxel_ids(points, 1.0, RANGE, batch=batch)
    assert ids[0].tolist() == [2**31 - 1, 1, 5, 1]
    assert (ids[1:] == -1).all()


def test_the_exercise_of_the_lecture(backend: Any) -> None:
    """A cube of 2 x 2 x 2 cells: occupied cells by hand."""
    points = torch.tensor([[0.1, 0.1, 0.1], [0.2, 0.3, 0.4], [0.9, 0.1, 0.1], [0.9, 0.9, 0.9], [1.0, 0.5, 0.5]])
    grid = voxel_occupancy(points.to(backend.device), 0.5, [0, 0, 0, 1, 1, 1]).cpu()
    assert grid.tolist() == [[[1, 1], [0, 0]], [[0, 0], [0, 1]]]
    counts = voxel_occupancy(points.to(backend.device), 0.5, [0, 0, 0, 1, 1, 1], mode="count").cpu()
    assert counts.tolist() == [[[2, 1], [0, 0]], [[0, 0], [0, 1]]]
    density = voxel_occupancy(points.to(backend.device), 0.5, [0, 0, 0, 1, 1, 1], mode="density").cpu()
    assert torch.equal(density, counts / 4)


def test_strided(backend: Any) -> None:
    points = random_points(90, 1)
    wide = torch.full((90, 8), NAN)
    wide[:, 2:5] = points
    expected = reference.voxel_ids(points, SIZE, RANGE)
    for view in (wide.to(backend.device)[:, 2:5], points.T.contiguous().to(backend.device).T):
        assert torch.equal(voxel_ids(view, SIZE, RANGE).cpu(), expected)
        wanted = reference.voxel_occupancy(points, SIZE, RANGE, "count")
        assert torch.equal(voxel_occupancy(view, SIZE, RANGE, "count").cpu(), wanted)
    batch = torch.zeros(90, 2, dtype=torch.int64, device=backend.device)[:, 1]
    assert torch.equal(voxel_ids(points.to(backend.device), SIZE, RANGE, batch=batch).cpu(), expected)


def test_compile_for_any_number_of_points() -> None:
    def both(points: Tensor) -> tuple[Tensor, Tensor]:
        return voxel_ids(points * 2, SIZE, RANGE), voxel_occupancy(points, SIZE, RANGE, "density") + 1

    points = random_points(40, 1)
    torch._dynamo.reset()
    compiled = torch.compile(both, fullgraph=True, backend="aot_eager", dynamic=True)
    for count in (40, 7, 21):
        results = compiled(points[:count]), both(points[:count])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_vmap_and_meta(backend: Any) -> None:
    points = random_points(40, 1).to(backend.device)
    assert voxel_ids(points.to("meta"), SIZE, RANGE).shape == (40, 4)
    assert voxel_occupancy(points.to("meta"), SIZE, RANGE).shape == (5, 32, 16)
    mapped = torch.vmap(lambda p: voxel_occupancy(p, SIZE, RANGE))(points.reshape(2, 20, 3))
    assert torch.equal(mapped[1], voxel_occupancy(points[20:], SIZE, RANGE))


def test_numbers_of_any_type() -> None:
    points = random_points(40, 1)
    expected = voxel_ids(points, [0.5, 0.25, 1.0], RANGE)
    ranges = ([0, -4, -1, 8, 4, 1], tuple(RANGE), np.array(RANGE, dtype=np.float32), torch.tensor(RANGE).double())
    sizes = (
        (0.5, 0.25, 1),
        np.array([0.5, 0.25, 1]),
        torch.tensor([0.5, 0.25, 1]),
        [np.float32(0.5), 0.25, np.int8(1)],
    )
    for limits, size in itertools.product(ranges, sizes):
        assert torch.equal(voxel_ids(points, size, limits), expected)
    expected = voxel_ids(points, 2.0, RANGE)
    for one in (2, np.float32(2), np.int64(2), np.array(2.0), torch.tensor(2)):
        assert torch.equal(voxel_ids(points, one, RANGE), expected)


AWKWARD = [
    ([0, -39.68, -3, 69.12, 39.68, 1], [0.16, 0.16, 4], (432, 496, 1)),
    ([-51.2, -51.2, -5, 51.2, 51.2, 3], [0.1, 0.1, 0.2], (1024, 1024, 40)),
    ([-75.2, -75.2, -2, 75.2, 75.2, 4], [0.1, 0.1, 0.15], (1504, 1504, 40)),
    ([0, 0, 0, 2.5, 3.5, 0.5], 1.0, (3, 4, 1)),  # halves go up: round() has 2, 4, 0
    ([0, 0, 0, 0.3, 0.7, 1.1], 0.1, (3, 7, 11)),  # 0.3 / 0.1 is below 3
    ([0, 0, 0, 2.49, 2.51, 7.0], [1, 1, 3], (2, 3, 2)),
    ([1e6, -1e6, 0, 1e6 + 1.2, -1e6 + 0.9, 1], [0.3, 0.3, 1.0], (4, 3, 1)),
]


@pytest.mark.parametrize(("range_", "size", "cells"), AWKWARD, ids=str)
def test_grid_size_is_that_of_the_kernels(
    backend: Any, range_: list[float], size: float | list[float], cells: tuple[int, int, int]
) -> None:
    assert voxel_grid_size(range_, size) == cells
    sides = torch.tensor([size] * 3 if isinstance(size, float) else size, dtype=torch.float64)
    low = torch.tensor(range_[:3], dtype=torch.float64)
    if cells[0] * cells[1] < 1000:
        assert voxel_occupancy(low[None].to(backend.device), size, range_).shape == cells[::-1]
    last = torch.tensor(cells).double() - 0.5
    inside = torch.stack([low + sides * last, low + sides * (last + torch.eye(3, dtype=torch.float64)[0])])
    ids = voxel_ids(inside.to(backend.device), size, range_)
    assert ids.tolist() == [[0, *(n - 1 for n in cells[::-1])], [-1] * 4]
    assert voxelize(inside.to(backend.device), size, range_, 1)[1].tolist() == [[n - 1 for n in cells[::-1]]]


def test_grid_size_of_any_range() -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        low, size = generator.uniform(-100, 100, 3), generator.uniform(0.01, 2, 3)
        high = low + size * generator.integers(1, 60, 3) / generator.integers(1, 4, 3)
        cells = tuple(int(np.floor((h - a) / s + 0.5)) for a, h, s in zip(low, high, size, strict=True))
        if min(cells) < 1:
            continue
        assert voxel_grid_size([*low, *high], size) == cells
        assert voxel_occupancy(torch.zeros(0, 3), size, [*low, *high]).shape == cells[::-1]


def test_grid_size_refuses_what_the_kernels_refuse() -> None:
    with pytest.raises(ValueError, match="point_cloud_range must span 1 to 2"):
        voxel_grid_size([0, 0, 0, 1, 1, 0.1], 1.0)
    with pytest.raises(ValueError, match="voxel_size must be positive"):
        voxel_grid_size([0, 0, 0, 1, 1, 1], 0.0)
    with pytest.raises(TypeError, match="point_cloud_range"):
        voxel_grid_size(None, 1.0)  # type: ignore[arg-type]

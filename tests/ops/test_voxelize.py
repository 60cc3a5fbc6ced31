"""voxelize and voxelize_padded against a loop over points and spconv's PointToVoxel, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import reference
from fastcv.ops import voxelize, voxelize_padded

NAN, INF = float("nan"), float("inf")
RANGE = [0.0, -4.0, -1.0, 8.0, 4.0, 1.0]
SIZE = [0.5, 0.25, 0.4]


def random_points(count: int, seed: int, features: int = 4, dtype: torch.dtype = torch.float32) -> Tensor:
    """Points in and around RANGE, many of them close together."""
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor(RANGE[:3]) - 0.5, torch.tensor(RANGE[3:]) + 0.5
    points = torch.rand(count, features, generator=generator)
    points[:, :3] = low + (high - low) * points[:, :3] ** 2
    return points.to(dtype)


def agree(actual: Any, expected: Any) -> bool:
    """The same shapes and values, NaN included."""
    return all(
        a.shape == e.shape and a.dtype == e.dtype and torch.equal(a.cpu().nan_to_num(123.0), e.nan_to_num(123.0))
        for a, e in zip(actual, expected, strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("features", [3, 4, 5, 9])
def test_agrees_with_the_reference(backend: Any, dtype: torch.dtype, features: int) -> None:
    for seed, max_points, max_voxels in ((0, 1, 10_000), (1, 3, 10_000), (2, 5, 40), (3, 40, 7), (4, 2, 0)):
        points = random_points(300, seed, features, dtype)
        expected = reference.voxelize(points, SIZE, RANGE, max_points, max_voxels)
        actual = voxelize(points.to(backend.device), SIZE, RANGE, max_points, max_voxels)
        assert agree(actual, expected), seed


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025])
def test_sizes_around_the_edges_of_blocks(backend: Any, count: int) -> None:
    points = random_points(count, count)
    for max_voxels in (count // 3 + 1, None):
        expected = reference.voxelize(points, SIZE, RANGE, 2, max_voxels or count)
        assert agree(voxelize(points.to(backend.device), SIZE, RANGE, 2, max_voxels), expected)


def test_borders_of_cells(backend: Any) -> None:
    """Coordinates that are borders of cells as float32 has them, and their neighbours."""
    edges = torch.arange(-1, 18, dtype=torch.float32) * torch.tensor(0.05) + torch.tensor(-0.3)
    low, high = torch.nextafter(edges, torch.tensor(-INF)), torch.nextafter(edges, torch.tensor(INF))
    values = torch.cat([edges, low, high])
    limits, size = [-0.3, -0.3, -0.3, 0.4, 0.4, 0.4], [0.05, 0.05, 0.05]
    for axis in range(3):
        points = torch.zeros(len(values), 3)
        points[:, axis] = values
        expected = reference.voxelize(points, size, limits, 3, 100)
        assert agree(voxelize(points.to(backend.device), size, limits, 3, 100), expected)


def test_points_that_are_not_finite_or_far_away(backend: Any) -> None:
    points = random_points(200, 1)
    for i, value in enumerate((NAN, INF, -INF, 3e38, -3e38, 2.0**31, -(2.0**31), 1e10)):
        for column in range(4):
            points[8 * column + i, column] = value
    expected = reference.voxelize(points, SIZE, RANGE, 4, 50)
    actual = voxelize(points.to(backend.device), SIZE, RANGE, 4, 50)
    assert agree(actual, expected)
    assert torch.isfinite(actual[0][..., :3]).all()


def test_many_points(backend: Any) -> None:
    """Enough for the CPU kernel to split them, where no limit of voxels keeps its table small."""
    count = 3000 if backend.is_emulated else 300_000
    points = random_points(count, 3)
    size, limits = [0.02, 0.02, 0.02], RANGE
    moved = points.to(backend.device)
    everything = voxelize(moved, size, limits, 3)
    few = voxelize(moved, size, limits, 3, 1000)
    assert agree([t[:1000] for t in everything], [t.cpu() for t in few])
    ids = reference.voxel_ids(points, size, limits).long()
    keys = (ids[:, 1] * 400 + ids[:, 2]) * 400 + ids[:, 3]
    keys[ids[:, 0] < 0] = -1
    unique, inverse, counts = keys.unique(return_inverse=True, return_counts=True)
    first = torch.full((len(unique),), count).scatter_reduce(0, inverse, torch.arange(count), "amin")
    chosen = first[unique >= 0].sort().values
    assert torch.equal(everything[1].cpu(), ids[chosen, 1:].int())
    assert torch.equal(everything[2].cpu(), counts[inverse[chosen]].clamp(max=3).int())
    assert torch.equal(everything[0][:, 0].cpu(), points[chosen])
    order = inverse.sort(stable=True).indices  # by voxel, then by index: the second points
    starts = torch.cat([torch.zeros(1).long(), counts.cumsum(0)])[inverse[chosen]]
    twice = counts[inverse[chosen]] > 1
    assert torch.equal(everything[0][twice.to(backend.device), 1].cpu(), points[order[starts[twice] + 1]])


def test_grids_beyond_32_bits(backend: Any) -> None:
    """More than 2^32 cells, and grids as large as they may be."""
    points = random_points(400, 5, 3, torch.float64) * 1000
    limits = [1000.0 * value for value in RANGE]
    for size in ([0.4, 0.4, 0.4], [500.0, 0.001, 2000.0], [0.01, 0.1, 0.1]):
        expected = reference.voxelize(points, size, limits, 2, 300)
        assert agree(voxelize(points.to(backend.device), size, limits, 2, 300), expected)


def test_clouds(backend: Any) -> None:
    points = random_points(500, 7)
    offsets = torch.tensor([0, 0, 130, 131, 400, 400, 500])
    for max_points, max_voxels in ((2, 1000), (3, 20), (1, 0)):
        expected = reference.voxelize(points, SIZE, RANGE, max_points, max_voxels, offsets)
        moved = points.to(backend.device), offsets.to(backend.device)
        actual = voxelize(moved[0], SIZE, RANGE, max_points, max_voxels, moved[1])
        assert agree(actual, expected)
        padded = voxelize_padded(moved[0], SIZE, RANGE, max_points, max_voxels, moved[1])
        assert padded[0].shape == (6, max_voxels, max_points, 4)
        for b in range(6):
            rows, count = (expected[1][:, 0] == b), int(padded[3][b])
            assert count == int(rows.sum())
            assert agree([t[b, :count] for t in padded[:3]], [t[rows] for t in expected])
            assert (padded[0][b, count:] == 0).all()
            assert (padded[1][b, count:] == -1).all()
            assert (padded[2][b, count:] == 0).all()


@pytest.mark.parametrize("max_voxels", [0, 1, 20, 900])
def test_padded(backend: Any, max_voxels: int) -> None:
    points = random_points(300, 8)
    expected = reference.voxelize(points, SIZE, RANGE, 3, max_voxels)
    *outputs, count = voxelize_padded(points.to(backend.device), SIZE, RANGE, 3, max_voxels)
    assert (count.shape, outputs[0].shape, outputs[1].shape) == ((), (max_voxels, 3, 4), (max_voxels, 3))
    assert int(count) == len(expected[0])
    assert agree([t[: int(count)] for t in outputs], expected)
    assert (outputs[0][int(count) :] == 0).all()
    assert (outputs[1][int(count) :] == -1).all()
    assert (outputs[2][int(count) :] == 0).all()


def test_strided(backend: Any) -> None:
    points = random_points(120, 2, 8)
    expected = reference.voxelize(points[:, :4].contiguous(), SIZE, RANGE, 3, 50)
    for view in (points.to(backend.device)[:, :4], points[:, :4].T.contiguous().to(backend.device).T):
        assert agree(voxelize(view, SIZE, RANGE, 3, 50), expected)
    doubled = points.to(backend.device)[::2]
    assert agree(voxelize(doubled, SIZE, RANGE, 3, 50), reference.voxelize(points[::2], SIZE, RANGE, 3, 50))
    one = points[:1, :4].to(backend.device).expand(9, 4)
    assert agree(voxelize(one, SIZE, RANGE, 20, 50), reference.voxelize(one.cpu(), SIZE, RANGE, 20, 50))


def test_offsets_beyond_32_bits(backend: Any) -> None:
    """Element offsets above 2^31, in a view of memory that is mostly never touched."""
    apart = 2**30 + 4096
    storage = torch.empty(2 * apart + 16, dtype=torch.float16, device=backend.device)
    view = storage.as_strided((3, 3), (apart, 1))
    points = torch.tensor([[1.0, 1, 0], [2, 2, 0], [1, 1, 0.1]], dtype=torch.float16)
    view.copy_(points)
    assert agree(voxelize(view, SIZE, RANGE, 2, 5), reference.voxelize(points, SIZE, RANGE, 2, 5))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_shape(backend: Any, data: Any) -> None:
    count, features = data.draw(st.integers(0, 150)), data.draw(st.integers(3, 7))
    size = [data.draw(st.sampled_from([0.03, 0.1, 0.5, 1.7, 40.0])) for _ in range(3)]
    limits = [*RANGE[:3], *(a + max(b - a, s) for a, b, s in zip(RANGE[:3], RANGE[3:], size, strict=True))]
    max_points, max_voxels = data.draw(st.integers(1, 9)), data.draw(st.integers(0, 160))
    points = random_points(count, data.draw(st.integers(0, 99)), features)
    bounds = sorted(data.draw(st.lists(st.integers(0, count), max_size=3)))
    offsets = data.draw(st.sampled_from([None, torch.tensor([0, *bounds, count])]))
    expected = reference.voxelize(points, size, limits, max_points, max_voxels, offsets)
    moved = None if offsets is None else offsets.to(backend.device)
    assert agree(voxelize(points.to(backend.device), size, limits, max_points, max_voxels, moved), expected)


def test_agrees_with_spconv(backend: Any) -> None:
    """Voxel for voxel what PointToVoxel makes of a scan, borders and limits included."""
    utils = pytest.importorskip("spconv.pytorch.utils", reason="spconv is not installed")
    generator = torch.Generator().manual_seed(0)
    count = 2000 if backend.is_emulated else 60_000
    limits, size = [0.0, -40.0, -3.0, 70.4, 40.0, 1.0], [0.05, 0.05, 0.1]
    points = torch.rand(count, 4, generator=generator) * torch.tensor([90.0, 100, 6, 1]) - torch.tensor([9.0, 50, 4, 0])
    points[: count // 2, :3] = (points[: count // 2, :3] * 20).round() / 20  # on the borders of cells
    for max_points, max_voxels in ((5, 40_000), (1, 40_000), (3, 500)):
        peer = utils.PointToVoxel(
            vsize_xyz=size, coors_range_xyz=limits, num_point_features=4, max_num_voxels=max_voxels,
            max_num_points_per_voxel=max_points,
        )  # fmt: skip
        expected = [t.clone() for t in peer(points)]
        assert agree(voxelize(points.to(backend.device), size, limits, max_points, max_voxels), expected)


def test_vmap(backend: Any) -> None:
    points = torch.stack([random_points(50, s) for s in range(3)]).to(backend.device)
    mapped = torch.vmap(lambda p: voxelize_padded(p, SIZE, RANGE, 2, 30))(points)
    for b in range(3):
        single = voxelize_padded(points[b], SIZE, RANGE, 2, 30)
        assert all(torch.equal(m[b], s) for m, s in zip(mapped, single, strict=True))
    assert not voxelize(points[0].clone().requires_grad_(), SIZE, RANGE, 2)[0].requires_grad


def test_compile_for_any_number_of_points() -> None:
    def padded(points: Tensor) -> tuple[Tensor, ...]:
        return voxelize_padded(points * 1.5, SIZE, RANGE, 2, 30)

    def dynamic(points: Tensor) -> tuple[Tensor, ...]:
        voxels, coords, num_points = voxelize(points, SIZE, RANGE, 2)
        return voxels.sum(1) / num_points[:, None], coords + 1

    points = random_points(60, 1)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        for function in (padded, dynamic):
            compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
            for count in (60, 17, 33):
                results = compiled(points[:count]), function(points[:count])
                assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


BAD_OFFSETS = [[0, 2], [1, 3], [0, 4], [0, 2, 1, 3], [-1, 3], [2**62, 3], [0, -(2**62), 3]]


@pytest.mark.parametrize("offsets", BAD_OFFSETS)
def test_bad_offsets_do_no_harm_on_a_gpu(backend: Any, offsets: list[int]) -> None:
    """Where they can be read for nothing they are an error."""
    if backend.name != "cuda":
        pytest.skip("needs a GPU")
    for op in (voxelize, voxelize_padded):
        op(torch.zeros(3, 4).cuda(), SIZE, RANGE, 2, 5, torch.tensor(offsets).cuda())
    torch.cuda.synchronize()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_extreme_points_and_grids(backend: Any, dtype: torch.dtype) -> None:
    values = [0.0, NAN, INF, -INF, 3e38, -3e38, 1e-45, 2.0**31]
    points = torch.tensor([[a, b, c, 1.0] for a in values for b in values for c in values]).to(dtype)
    for size, low, high in (
        (1.0, 0.0, 1.0), (1e-3, 0.0, 1.0), (10.0, -1e6, 1e6), (1e33, -3e38, 3e38), (1e-30, 0.0, 1e-30),
    ):  # fmt: skip
        limits = [low] * 3 + [high] * 3
        actual = voxelize(points.to(backend.device), size, limits, 3, 1000)
        assert agree(actual, reference.voxelize(points, [size] * 3, limits, 3, 1000))

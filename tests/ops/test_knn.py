"""knn against the reference and against torch, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import reference
from fastcv.ops import knn, three_nn

INF, NAN = float("inf"), float("nan")
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def clouds(batch: int, count: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(batch, count, 3, generator=generator, dtype=torch.float64) * 20 - 10).to(dtype)


def lattice(batch: int, count: int, seed: int = 0, side: int = 4) -> Tensor:
    """Points on a small grid: many duplicates and ties."""
    return torch.randint(0, side, (batch, count, 3), generator=torch.Generator().manual_seed(seed)).float()


def check(backend: Any, query: Tensor, points: Tensor, k: int, *lengths: Tensor | None) -> None:
    there = [None if value is None else value.to(backend.device) for value in lengths]
    distances, indices = knn(query.to(backend.device), points.to(backend.device), k, *there)
    expected_distances, expected_indices = reference.knn(query, points, k, *lengths)
    assert torch.equal(indices.cpu(), expected_indices)
    assert distances.dtype is expected_distances.dtype
    assert torch.equal(distances.cpu(), expected_distances)  # bits


@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_reference(backend: Any, dtype: torch.dtype) -> None:
    for seed, (count, k) in enumerate([(1, 1), (2, 3), (16, 4), (17, 5), (63, 16), (64, 17), (65, 3), (300, 40)]):
        check(backend, clouds(2, 9, seed + 50, dtype), clouds(2, count, seed, dtype), k)


def test_ties_and_duplicates(backend: Any) -> None:
    for seed, k in enumerate((1, 3, 16, 17, 60)):
        points = lattice(1, 150, seed)
        check(backend, points[:, :20], points, k)
    check(backend, torch.zeros(1, 3, 3), torch.ones(1, 200, 3), 20)


def test_many_points(backend: Any) -> None:
    """More points than the tiles and blocks of the kernels hold, in clusters."""
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(1, 12, 3, generator=generator) * 50
    points = centres[:, torch.randint(0, 12, (3000,), generator=generator)]
    points = points + torch.randn(points.shape, generator=generator)
    check(backend, points[:, :200] + 0.1, points, 8)
    check(backend, points[:, :20] * 3, points, 100)
    check(backend, points[:, :150], points[..., :1] * torch.tensor([0, 1.0, 0]), 4)


def shapes(count: int) -> dict[str, Tensor]:
    """Clouds that even cells do not fit."""
    generator = torch.Generator().manual_seed(4)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    sizes = torch.tensor([1e-3, 0.1, 10.0])[torch.arange(count) % 3, None]
    distance = torch.exp(torch.rand(count, generator=generator) * 4)
    angle = torch.rand(count, generator=generator) * 6.3
    return {
        "clusters": normal(3, 3).mul(100)[torch.arange(count) % 3] + normal(count, 3) * sizes,
        "line": normal(count, 1) * torch.tensor([1.0, 2.0, -3.0]),
        "plane": normal(count, 3) * torch.tensor([1.0, 0.0, 1.0]),
        "street": torch.stack([distance * angle.cos(), distance * angle.sin(), normal(count) * 0.02], 1),
        "equal": torch.full((count, 3), 0.1),
        "duplicates": normal(count // 10 + 1, 3)[torch.arange(count) % (count // 10 + 1)],
        "ascending": torch.arange(count).float()[:, None] * torch.tensor([1.0, 0.0, 0.0]),
        "huge": normal(count, 3) * 1e19,
    }


@pytest.mark.parametrize("shape", shapes(10))
def test_clouds_of_any_density(backend: Any, shape: str) -> None:
    for count in (33, 513, 1100) if backend.is_emulated else (33, 513, 1100, 4500):
        points = shapes(count)[shape][None]
        query = points[:, :: max(1, count // 90)]
        for k in (1, 16, 37):
            check(backend, query, points, k)
    check(backend, query[:, :3], points, 5)  # too few to sort the cloud for
    check(backend, query.double() + 1e-3, points.double(), 9)


@pytest.mark.parametrize("shape", ["clusters", "line", "street"])
def test_agrees_with_the_tree_of_scipy(backend: Any, shape: str) -> None:
    spatial = pytest.importorskip("scipy.spatial")
    points = shapes(3000)[shape].double()
    query = points[::20] + 0.01
    distances, indices = knn(query[None].to(backend.device), points[None].to(backend.device), 12)
    nearest, found = spatial.cKDTree(points.numpy()).query(query.numpy(), 12)
    assert torch.equal(indices[0].cpu(), torch.from_numpy(found))
    torch.testing.assert_close(distances[0].cpu().sqrt(), torch.from_numpy(nearest), rtol=1e-12, atol=1e-12)


def test_three_nearest(backend: Any) -> None:
    target, source = clouds(2, 40, 1), clouds(2, 90, 2)
    for count in (90, 2):
        there = [tensor.to(backend.device) for tensor in (target, source[:, :count])]
        expected = reference.three_nn(target, source[:, :count])
        for actual, wanted in zip(three_nn(*there), expected, strict=True):
            assert torch.equal(actual.cpu(), wanted)
    distances, indices = torch.cdist(target.double(), source.double()).topk(3, largest=False)
    assert torch.equal(three_nn(target, source)[1], indices)
    torch.testing.assert_close(three_nn(target, source)[0].double(), distances)


def test_more_neighbours_than_points(backend: Any) -> None:
    points = clouds(3, 70, 5)
    check(backend, points[:, :4], points, 80, None, torch.tensor([1, 0, 70]))
    check(backend, points, points[:, :1], 3)


def test_agrees_with_distances_of_torch(backend: Any) -> None:
    query, points = clouds(2, 40, 1, torch.float64), clouds(2, 500, 2, torch.float64)
    distances, indices = knn(query.to(backend.device), points.to(backend.device), 10)
    nearest = torch.cdist(query, points).topk(10, largest=False)
    assert torch.equal(indices.cpu(), nearest.indices)
    torch.testing.assert_close(distances.cpu().sqrt(), nearest.values)


def test_lengths(backend: Any) -> None:
    query, points = clouds(4, 12, 8), clouds(4, 100, 9)
    asking, lengths = torch.tensor([12, 0, 5, 12]), torch.tensor([100, 100, 3, 0])
    check(backend, query, points, 6, asking, lengths)
    check(backend, query, points, 20, None, lengths)
    check(backend, query, points, 6, asking.int(), None)


@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e30])
def test_points_that_are_not_finite_are_no_neighbours(backend: Any, value: float) -> None:
    query, points = clouds(2, 10, 5), clouds(2, 90, 6)
    query[0, 3, 0] = value
    points[:, ::3, 1] = value
    points[1, :, 2] = value
    for k in (3, 70):
        check(backend, query, points, k)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(1, 3), st.integers(1, 20), st.integers(1, 200), st.integers(1, 40), st.integers(0, 99), st.booleans()
)
def test_random_shapes(backend: Any, batch: int, queries: int, count: int, k: int, seed: int, ties: bool) -> None:
    draw = lattice if ties else clouds
    query, points = draw(batch, queries, seed), draw(batch, count, seed + 1000)
    lengths = torch.randint(0, count + 1, (batch,), generator=torch.Generator().manual_seed(seed))
    check(backend, query, points, k, None, lengths if seed % 2 else None)


def test_clouds_without_points(backend: Any) -> None:
    points = clouds(2, 5).to(backend.device)
    distances, indices = knn(points, points[:, :0], 2)
    assert (distances == INF).all()
    assert (indices == -1).all()


def test_strided_and_unaligned_input(backend: Any) -> None:
    points = clouds(2, 60).to(backend.device)
    expected = knn(points, points, 5)
    for view in (
        torch.cat([points, points], 2)[..., 3:],
        points.transpose(1, 2).contiguous().transpose(1, 2),
        torch.cat([points.new_zeros(1), points.flatten()])[1:].view_as(points),
    ):
        for a, b in ((view, points), (points, view)):
            for actual, value in zip(knn(a, b, 5), expected, strict=True):
                assert torch.equal(actual, value)


def test_any_number_of_points_in_a_trace_and_vmap(backend: Any) -> None:
    points = clouds(4, 30).to(backend.device)
    compiled = torch.compile(lambda p: knn(p, p, 4)[1] + 1, fullgraph=True, backend="aot_eager", dynamic=True)
    for count in (30, 9):
        assert torch.equal(compiled(points[:, :count]), knn(points[:, :count], points[:, :count], 4)[1] + 1)
    nested = torch.vmap(lambda p: knn(p, p, 4)[0])(points.view(2, 2, 30, 3))
    assert torch.equal(nested.flatten(0, 1), knn(points, points, 4)[0])
    assert not knn(points.requires_grad_(), points, 6)[0].requires_grad

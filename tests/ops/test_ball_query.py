"""ball_query against the reference, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import reference
from fastcv.ops import ball_query

INF, NAN = float("inf"), float("nan")
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def clouds(batch: int, count: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(batch, count, 3, generator=generator, dtype=torch.float64) * 4 - 2).to(dtype)


def lattice(batch: int, count: int, seed: int = 0, side: int = 4) -> Tensor:
    """Points on a small grid: many at exactly the radius."""
    return torch.randint(0, side, (batch, count, 3), generator=torch.Generator().manual_seed(seed)).float()


def check(
    backend: Any, query: Tensor, points: Tensor, radius: float, k: int, *lengths: Tensor | None, first: bool = False
) -> Tensor:
    asking, length = (*lengths, None, None)[:2]
    there = [None if value is None else value.to(backend.device) for value in (asking, length)]
    actual = ball_query(query.to(backend.device), points.to(backend.device), radius, k, *there, first).cpu()
    expected = reference.ball_query(query, points, radius, k, asking, length, first)
    assert actual.dtype is torch.int64
    assert torch.equal(actual, expected), (actual.tolist(), expected.tolist())
    return actual


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("first", [False, True])
def test_equals_the_reference(backend: Any, dtype: torch.dtype, first: bool) -> None:
    for seed, (count, k) in enumerate([(1, 1), (16, 4), (17, 5), (31, 16), (32, 33), (33, 3), (300, 20), (700, 8)]):
        query, points = clouds(2, 9, seed + 50, dtype), clouds(2, count, seed, dtype)
        check(backend, query, points, 0.7, k, first=first)


def test_points_at_the_radius_are_outside(backend: Any) -> None:
    for seed in range(3):
        points = lattice(2, 120, seed)
        for radius in (0.0, 1.0, 2.0**0.5, 3.0, 0.1):
            check(backend, points[:, :15], points, radius, 10)


def test_dilated_balls(backend: Any) -> None:
    """mmcv's condition: at the query itself, or from min_radius to max_radius."""
    for seed in range(2):
        for points in (lattice(1, 1500, seed, side=6), clouds(1, 300, seed)):
            query = points[:, :9]
            squared = (points[:, None] - query[:, :, None]).double().square().sum(3)
            for radius, min_radius in ((2.0, 1.0), (1.5, 0.5), (1.0, 1.0), (1.0, 2.0), (2.0, 0.0)):
                there = [tensor.to(backend.device) for tensor in (query, points)]
                actual = ball_query(*there, radius, 1500, min_radius=min_radius).cpu()
                inside = (squared == 0) | ((squared >= min_radius**2) & (squared < radius**2))
                found = torch.zeros_like(inside).scatter_(2, actual.clamp(min=0), True)
                found[..., 0] &= (actual == 0).any(2)
                assert torch.equal(found, inside)
                assert torch.equal(actual, reference.ball_query(query, points, radius, 1500, min_radius=min_radius))


def test_many_points(backend: Any) -> None:
    """More points than the prefix holds: balls that it fills, balls that it does not, and all radii between."""
    points = clouds(2, 2500, 3)
    points[1, :1100] += 100
    query = points[:, ::70]
    for radius, k in ((0.1, 4), (0.5, 64), (1.0, 9), (5.0, 32), (5.0, 2000), (INF, 3), (1e30, 3), (1e300, 3)):
        check(backend, query, points, radius, k)
    check(backend, query, points, 0.5, 64, None, torch.tensor([1024, 1025]))
    check(backend, query, points, 0.5, 64, None, torch.tensor([1023, 2000]), first=True)


def test_lengths(backend: Any) -> None:
    query, points = clouds(4, 12, 8), clouds(4, 100, 9)
    asking, lengths = torch.tensor([12, 0, 5, 12]), torch.tensor([100, 100, 3, 0])
    check(backend, query, points, 1.5, 6, asking, lengths)
    check(backend, query, points, 1.5, 6, asking.int(), None, first=True)


@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e30])
def test_points_that_are_not_finite_are_in_no_ball(backend: Any, value: float) -> None:
    for count in (90, 1500):
        query, points = clouds(2, 10, 5), clouds(2, count, 6)
        query[0, 3, 0] = value
        points[:, ::3, 1] = value
        points[1, :, 2] = value
        for radius in (1.0, INF):
            check(backend, query, points, radius, 70)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(1, 3),
    st.integers(1, 20),
    st.integers(1, 200),
    st.integers(1, 40),
    st.floats(0, 3),
    st.integers(0, 99),
    st.booleans(),
)
def test_random_shapes(
    backend: Any, batch: int, queries: int, count: int, k: int, radius: float, seed: int, ties: bool
) -> None:
    draw = lattice if ties else clouds
    query, points = draw(batch, queries, seed), draw(batch, count, seed + 1000)
    lengths = torch.randint(0, count + 1, (batch,), generator=torch.Generator().manual_seed(seed))
    check(backend, query, points, radius, k, None, lengths if seed % 2 else None, first=seed % 3 == 0)


@pytest.mark.parametrize("first", [False, True])
def test_balls_in_clouds_without_points_are_empty(backend: Any, first: bool) -> None:
    points = clouds(2, 5).to(backend.device)
    assert (ball_query(points, points[:, :0], 1.0, 2, repeat_first=first) == -1).all()


def test_strided_and_unaligned_input(backend: Any) -> None:
    points = clouds(2, 60).to(backend.device)
    expected = ball_query(points, points, 1.0, 5)
    for view in (
        torch.cat([points, points], 2)[..., 3:],
        points.transpose(1, 2).contiguous().transpose(1, 2),
        torch.cat([points.new_zeros(1), points.flatten()])[1:].view_as(points),
    ):
        assert torch.equal(ball_query(view, points, 1.0, 5), expected)
        assert torch.equal(ball_query(points, view, 1.0, 5), expected)


def test_any_number_of_points_in_a_trace_and_vmap(backend: Any) -> None:
    points = clouds(4, 30).to(backend.device)
    compiled = torch.compile(lambda p: ball_query(p, p, 1.0, 4) + 1, fullgraph=True, backend="aot_eager", dynamic=True)
    for count in (30, 9):
        assert torch.equal(compiled(points[:, :count]), ball_query(points[:, :count], points[:, :count], 1.0, 4) + 1)
    nested = torch.vmap(lambda p: ball_query(p, p, 1.0, 4))(points.view(2, 2, 30, 3))
    assert torch.equal(nested.flatten(0, 1), ball_query(points, points, 1.0, 4))
    assert not ball_query(points.requires_grad_(), points, 1.0, 6).requires_grad

"""farthest_point_sample against the reference, on every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import reference
from fastcv.ops import farthest_point_sample

INF, NAN = float("inf"), float("nan")
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def clouds(batch: int, count: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(batch, count, 3, generator=generator, dtype=torch.float64) * 20 - 10).to(dtype)


def lattice(batch: int, count: int, seed: int = 0, side: int = 4) -> Tensor:
    """Points on a small grid: many duplicates and ties."""
    return torch.randint(0, side, (batch, count, 3), generator=torch.Generator().manual_seed(seed)).float()


def check(
    backend: Any,
    points: Tensor,
    k: int,
    start: int | Tensor = 0,
    lengths: Tensor | None = None,
    rows: int | None = None,
) -> None:
    there = None if lengths is None else lengths.to(backend.device)
    first = start.to(backend.device) if isinstance(start, Tensor) else start
    actual = farthest_point_sample(points.to(backend.device), k, first, there).cpu()
    expected = reference.farthest_point_sample(points, k, start, lengths)
    assert actual.dtype is torch.int64
    assert torch.equal(actual, expected), (actual.tolist(), expected.tolist())


@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_reference(backend: Any, dtype: torch.dtype) -> None:
    for seed, count in enumerate((1, 2, 15, 16, 17, 63, 64, 65, 200, 700)):
        check(backend, clouds(2, count, seed, dtype), min(count, 40), start=count // 2)


def test_ties_and_duplicates(backend: Any) -> None:
    for seed in range(4):
        check(backend, lattice(2, 90, seed), 90)
        check(backend, lattice(1, 300, seed, side=7), 150, start=17)
    check(backend, torch.ones(1, 80, 3), 80, start=70)
    check(backend, torch.zeros(1, 5, 3), 8)


def test_many_points_in_clusters(backend: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(1, 12, 3, generator=generator) * 50
    points = centres[:, torch.randint(0, 12, (3000,), generator=generator)]
    points = points + torch.randn(points.shape, generator=generator) * torch.rand(1, 3000, 1, generator=generator)
    check(backend, points, 200)
    check(backend, points[..., :1] * torch.tensor([1.0, 0, 0]), 200)  # on a line


def test_the_first_choice(backend: Any) -> None:
    points = clouds(3, 50)
    points[0, 10, 1] = NAN
    lengths = torch.tensor([50, 11, 5])
    for start in (0, 4, 5, 10, 49, 50, 1000):
        check(backend, points, 6, start, lengths)
    for starts in ([4, 10, 3], [10, 0, 5], [1000, 10, 2]):
        check(backend, points, 6, torch.tensor(starts), lengths)
        check(backend, points, 6, torch.tensor(starts).int(), None)


def test_more_than_there_are(backend: Any) -> None:
    check(backend, clouds(2, 20), 30)
    check(backend, clouds(4, 20), 12, lengths=torch.tensor([0, 1, 7, 20]))
    check(backend, clouds(4, 20), 12, lengths=torch.tensor([0, 1, 7, 20], dtype=torch.int32))


@pytest.mark.parametrize("count", [1024, 1025, 8192, 8193])
def test_where_points_are_kept(backend: Any, count: int) -> None:
    """CUDA keeps the points of smaller clouds in registers: two of a thread, sixteen, or none."""
    check(backend, clouds(1, count, count), 6, start=count - 1)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_points_that_are_not_finite_are_never_chosen(backend: Any, value: float) -> None:
    points = clouds(2, 100, 5)
    points[:, ::3, 1] = value
    points[1, :, 0] = value
    check(backend, points, 100)
    chosen = farthest_point_sample(points.to(backend.device), 100)[0]
    assert (chosen[:66] % 3 != 0).all()
    assert (chosen[66:] == -1).all()


def test_distances_that_overflow_and_vanish(backend: Any) -> None:
    for scale in (1e30, 3e38 / 10, 1e-25, 1e-44):
        check(backend, clouds(1, 70, 6) * scale, 30)
    mixed = clouds(1, 90, 7)
    mixed[:, ::2] *= 1e25
    check(backend, mixed, 90)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(1, 3), st.integers(1, 150), st.integers(1, 30), st.integers(0, 160), st.integers(0, 99), st.booleans()
)
def test_random_shapes(backend: Any, batch: int, count: int, k: int, start: int, seed: int, ties: bool) -> None:
    points = lattice(batch, count, seed) if ties else clouds(batch, count, seed)
    lengths = torch.randint(0, count + 1, (batch,), generator=torch.Generator().manual_seed(seed))
    check(backend, points, k, start, lengths if seed % 2 else None)


def test_clouds_without_points(backend: Any) -> None:
    assert farthest_point_sample(torch.zeros(2, 0, 3, device=backend.device), 2).tolist() == [[-1, -1], [-1, -1]]


def test_strided_and_unaligned_input(backend: Any) -> None:
    points = clouds(2, 60).to(backend.device)
    expected = farthest_point_sample(points, 20)
    for view in (
        torch.cat([points, points], 2)[..., 3:],
        points.transpose(1, 2).contiguous().transpose(1, 2),
        torch.cat([points.new_zeros(1), points.flatten()])[1:].view_as(points),
    ):
        assert torch.equal(farthest_point_sample(view, 20), expected)
    lengths = torch.tensor([[60, 9], [30, 9]], device=backend.device)
    assert torch.equal(
        farthest_point_sample(points, 20, 0, lengths[:, 0]), farthest_point_sample(points, 20, 0, lengths[:, 0].clone())
    )


def test_any_number_of_points_in_a_trace_and_vmap(backend: Any) -> None:
    points = clouds(4, 30).to(backend.device)
    compiled = torch.compile(
        lambda p: farthest_point_sample(p, 6) + 1, fullgraph=True, backend="aot_eager", dynamic=True
    )
    for count in (30, 9):
        assert torch.equal(compiled(points[:, :count]), farthest_point_sample(points[:, :count], 6) + 1)
    nested = torch.vmap(lambda p: farthest_point_sample(p, 6))(points.view(2, 2, 30, 3))
    assert torch.equal(nested.flatten(0, 1), farthest_point_sample(points, 6))
    assert not farthest_point_sample(points.requires_grad_(), 6).requires_grad


def test_the_worst_numbers_do_no_harm(in_new_process: Callable[[str], str]) -> None:
    script = """
import torch
from fastcv.ops import ball_query, farthest_point_sample, knn
values = torch.tensor([s * 2.0**e for e in range(-149, 128, 7) for s in (-1, 1)]
    + [float("inf"), -float("inf"), float("nan"), 0.0, 3.4e38, -3.4e38])
generator = torch.Generator().manual_seed(0)
for count in (1, 5, 100, 3000):
    points = values[torch.randint(0, len(values), (2, count, 3), generator=generator)]
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        cloud = points.to(dtype)
        assert farthest_point_sample(cloud, 60).max() < count
        assert knn(cloud[:, :50], cloud, 7)[1].max() < count
        for radius in (0.0, 1.0, 1e30, 1e300, float("inf")):
            assert ball_query(cloud[:, :50], cloud, radius, 9).max() < count
print("unharmed")
"""
    printed = in_new_process(script)
    assert printed == "unharmed\n"

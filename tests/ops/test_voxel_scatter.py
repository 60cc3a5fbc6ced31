"""voxel_scatter against a loop over voxels, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import reference
from fastcv.ops import voxel_scatter

NAN = float("nan")
REDUCTIONS = ("mean", "sum", "max", "min")


def problem(count: int, channels: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Features and coordinates, some of them negative, few of them distinct."""
    generator = torch.Generator().manual_seed(seed)
    coords = torch.randint(-1, 3, (count, 4), generator=generator, dtype=torch.int32)
    coords[:, :2] = coords[:, :2].clamp(min=0)
    return torch.randn(count, channels, generator=generator, dtype=torch.float64).to(dtype), coords


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_agrees_with_the_reference(backend: Any, dtype: torch.dtype, reduce: str) -> None:
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-5, torch.float64: 1e-13}[dtype]
    for count, channels in ((1, 1), (40, 3), (300, 16), (257, 33), (100, 64), (90, 65), (64, 130), (20, 0)):
        features, coords = problem(count, channels, count, dtype)
        expected = reference.voxel_scatter(features.double(), coords, reduce)
        actual = voxel_scatter(features.to(backend.device), coords.to(backend.device), reduce)
        assert actual[0].dtype is dtype
        torch.testing.assert_close(actual[0].double().cpu(), expected[0], rtol=tolerance, atol=tolerance)
        assert torch.equal(actual[1].cpu(), expected[1])
        assert torch.equal(actual[2].cpu(), expected[2])


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_gradients(backend: Any, reduce: str) -> None:
    features, coords = problem(30, 3, 1)
    features = features.round() if reduce in ("max", "min") else features  # ties: the first point has the gradient
    mine = features.clone().to(backend.device).requires_grad_()
    theirs = features.clone().requires_grad_()
    reduced, _, _ = voxel_scatter(mine, coords.to(backend.device), reduce)
    expected, _, _ = reference.voxel_scatter(theirs, coords, reduce)
    weight = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    reduced.backward(weight.to(backend.device))
    expected.backward(weight)
    assert mine.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(mine.grad.cpu(), theirs.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gradients_of_other_dtypes(backend: Any, dtype: torch.dtype) -> None:
    for reduce in REDUCTIONS:
        features, coords = problem(50, 5, 3, dtype)
        mine = features.clone().to(backend.device).requires_grad_()
        theirs = features.double().requires_grad_()
        voxel_scatter(mine, coords.to(backend.device), reduce)[0].sum().backward()
        reference.voxel_scatter(theirs, coords, reduce)[0].sum().backward()
        assert mine.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(mine.grad.double().cpu(), theirs.grad, rtol=1e-2, atol=1e-2)


def test_not_a_number(backend: Any) -> None:
    features = torch.tensor([[1.0, NAN], [NAN, 5.0], [2.0, 3.0], [4.0, 4.0]], device=backend.device)
    coords = torch.tensor([[0, 0, 0, 0]] * 3 + [[0, 0, 0, 1]], dtype=torch.int32, device=backend.device)
    for reduce in REDUCTIONS:
        leaf = features.clone().requires_grad_()
        reduced, _, _ = voxel_scatter(leaf, coords, reduce)
        assert reduced[0].isnan().all()
        assert reduced[1].tolist() == [4.0, 4.0]
        reduced.sum().backward()
        assert leaf.grad is not None
        if reduce in ("max", "min"):
            assert leaf.grad.tolist() == [[0, 1], [1, 0], [0, 0], [1, 1]]


def test_huge_coordinates(backend: Any) -> None:
    """More than 64 bits of coordinates: two sorts instead of one."""
    generator = torch.Generator().manual_seed(0)
    top = 2**31 - 1
    coords = torch.randint(0, 3, (400, 4), generator=generator) * (top // 2)
    coords = (coords + torch.randint(0, 2, (400, 4), generator=generator)).int()
    coords[7] = top
    features = torch.randn(400, 2, generator=generator, dtype=torch.float64)
    expected = reference.voxel_scatter(features, coords, "sum")
    actual = voxel_scatter(features.to(backend.device), coords.to(backend.device), "sum")
    torch.testing.assert_close(actual[0].cpu(), expected[0])
    assert torch.equal(actual[1].cpu(), expected[1])
    assert torch.equal(actual[2].cpu(), expected[2])


@pytest.mark.parametrize("count", [1023, 1024, 1025, 2049])
def test_sizes_around_the_edges_of_blocks(backend: Any, count: int) -> None:
    features, coords = problem(count, 2, count)
    for kind in ("few", "one", "all", "none"):
        rows = coords.clone()
        if kind == "one":
            rows[:] = 3
        elif kind == "all":
            rows[:] = torch.arange(count, 0, -1, dtype=torch.int32)[:, None]
        elif kind == "none":
            rows[:, 2] = -1
        expected = reference.voxel_scatter(features, rows, "sum")
        actual = voxel_scatter(features.to(backend.device), rows.to(backend.device), "sum")
        torch.testing.assert_close(actual[0].cpu(), expected[0])
        assert torch.equal(actual[1].cpu(), expected[1])
        assert torch.equal(actual[2].cpu(), expected[2])


def test_no_point_in_a_voxel(backend: Any) -> None:
    for reduce in REDUCTIONS:
        outside = torch.ones(5, 3, device=backend.device).requires_grad_()
        coords = torch.full((5, 4), -1, dtype=torch.int32, device=backend.device)
        reduced, _, voxel_of = voxel_scatter(outside, coords, reduce)
        assert (reduced.shape, voxel_of.tolist()) == ((0, 3), [-1] * 5)
        reduced.sum().backward()
        assert outside.grad is not None
        assert (outside.grad == 0).all()


def test_strided(backend: Any) -> None:
    features, coords = problem(60, 4, 5)
    expected = reference.voxel_scatter(features, coords, "mean")
    wide = torch.stack([coords, coords + 1], dim=2).to(backend.device)
    for view in (features.T.contiguous().to(backend.device).T, torch.cat([features] * 2, 1).to(backend.device)[:, :4]):
        actual = voxel_scatter(view, wide[:, :, 0], "mean")
        torch.testing.assert_close(actual[0].cpu(), expected[0])
        assert torch.equal(actual[1].cpu(), expected[1])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(0, 200), channels=st.integers(0, 70), seed=st.integers(0, 99), which=st.integers(0, 3))
def test_any_shape(backend: Any, count: int, channels: int, seed: int, which: int) -> None:
    features, coords = problem(count, channels, seed)
    expected = reference.voxel_scatter(features, coords, REDUCTIONS[which])
    actual = voxel_scatter(features.to(backend.device), coords.to(backend.device), REDUCTIONS[which])
    torch.testing.assert_close(actual[0].cpu(), expected[0])
    assert torch.equal(actual[1].cpu(), expected[1])


def test_compile_for_any_number_of_points() -> None:
    def scaled(features: Tensor, coords: Tensor) -> tuple[Tensor, ...]:
        reduced, voxels, voxel_of = voxel_scatter(features * 2, coords, "mean")
        return reduced + 1, voxels, voxel_of

    features, coords = problem(40, 3, 1, torch.float32)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(scaled, fullgraph=True, backend="aot_eager", dynamic=True)
        for count in (40, 11, 29):
            arguments = features[:count], coords[:count]
            assert all(torch.equal(a, b) for a, b in zip(compiled(*arguments), scaled(*arguments), strict=True))


def test_vmap(backend: Any) -> None:
    features, coords = problem(40, 3, 1, torch.float32)
    _, voxel_of, order, starts = torch.ops.fastcv.voxel_segments(coords.to(backend.device))
    stacked = torch.stack([features, features * 2]).to(backend.device)
    mapped = torch.vmap(lambda f: torch.ops.fastcv.voxel_reduce(f, voxel_of, order, starts, 0)[0])(stacked)
    assert torch.equal(mapped[1], torch.ops.fastcv.voxel_reduce(stacked[1], voxel_of, order, starts, 0)[0])


def test_wrong_segments_do_no_harm(backend: Any) -> None:
    """Whatever the internal operators are handed, they stay in their memory."""
    device = backend.device
    features = torch.ones(4, 2, device=device)
    order = torch.tensor([9, -5, 2**30, 1], dtype=torch.int32, device=device)
    starts = torch.tensor([-7, 3, 2**30, 1], dtype=torch.int32, device=device)
    voxel_of = torch.tensor([5, -9, 2**60, 1], device=device)
    for reduction in range(4):
        reduced, argument = torch.ops.fastcv.voxel_reduce(features, voxel_of, order, starts, reduction)
        assert reduced.shape == (3, 2)
        torch.ops.fastcv.voxel_spread(reduced, voxel_of, order, starts, argument, reduction)

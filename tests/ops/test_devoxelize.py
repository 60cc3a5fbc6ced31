"""devoxelize against a loop over points, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import reference
from fastcv.ops import devoxelize
from fastcv.ops._voxels import as_grid

RANGE = [0.0, -2.0, -1.0, 4.0, 2.0, 1.0]
SIZE = [1.0, 0.5, 0.4]
MODES = ("nearest", "trilinear")


def problem(voxels: int, points: int, channels: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features and coordinates of voxels in and around the grid, and points, all float64."""
    generator = torch.Generator().manual_seed(seed)
    coords = torch.stack([torch.randint(-1, n, (voxels,), generator=generator) for n in (3, 6, 9, 5)], dim=1).int()
    low, high = torch.tensor(RANGE[:3]) - 0.3, torch.tensor(RANGE[3:]) + 0.3
    positions = low + (high - low) * torch.rand(points, 3, generator=generator)
    features = torch.randn(voxels, channels, generator=generator, dtype=torch.float64)
    return features, coords, positions.double()


def inside_grid(coords: Tensor) -> Tensor:
    """Rows that are no voxel of the grid, made negative: the reference looks rows up whatever they are."""
    rows = coords.clone()
    rows[(coords < 0).any(1) | (coords[:, 1:] >= torch.tensor([5, 8, 4])).any(1)] = -9
    return rows


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_agrees_with_the_reference(backend: Any, dtype: torch.dtype, mode: str) -> None:
    tolerance = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    for voxels, points, channels in ((1, 1, 1), (300, 200, 3), (200, 65, 64), (100, 33, 67), (50, 20, 0), (0, 9, 2)):
        features, coords, positions = problem(voxels, points, channels, points)
        features = features.to(dtype)
        offsets = torch.tensor([0, points // 3, points])
        for clouds in (None, offsets):
            expected = reference.devoxelize(
                features.double(), inside_grid(coords), positions, SIZE, RANGE, mode, clouds
            )
            moved = features.to(backend.device), coords.to(backend.device), positions.to(backend.device)
            there = None if clouds is None else clouds.to(backend.device)
            actual = devoxelize(*moved, SIZE, RANGE, mode, there)
            assert actual.dtype is dtype
            torch.testing.assert_close(actual.double().cpu(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_points_of_other_dtypes(backend: Any, dtype: torch.dtype) -> None:
    features, coords, positions = problem(300, 80, 4, 1)
    positions = positions.to(dtype)
    for mode in MODES:
        expected = reference.devoxelize(features, inside_grid(coords), positions.float(), SIZE, RANGE, mode)
        moved = features.to(backend.device), coords.to(backend.device), positions.to(backend.device)
        actual = devoxelize(*moved, SIZE, RANGE, mode).cpu()
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_a_linear_field_comes_back(backend: Any) -> None:
    """In a full grid trilinear interpolation is exact on linear functions, between the outermost centres."""
    z, y, x = torch.meshgrid(torch.arange(5), torch.arange(8), torch.arange(4), indexing="ij")
    coords = torch.stack([torch.zeros_like(z), z, y, x], dim=-1).reshape(-1, 4).int()
    centres = torch.stack([(x + 0.5) * 1.0, (y + 0.5) * 0.5 - 2, (z + 0.5) * 0.4 - 1], dim=-1).reshape(-1, 3).double()
    slope = torch.tensor([[1.0, -2.0, 3.0]]).T.double()
    low, high = centres.min(0).values, centres.max(0).values
    points = low + (high - low) * torch.rand(100, 3, generator=torch.Generator().manual_seed(0)).double()
    moved = (t.to(backend.device) for t in (centres @ slope, coords, points))
    torch.testing.assert_close(devoxelize(*moved, SIZE, RANGE).cpu(), points @ slope)


@pytest.mark.parametrize("mode", MODES)
def test_gradients(backend: Any, mode: str) -> None:
    features, coords, positions = problem(60, 40, 3, 2)
    mine, theirs = features.clone().to(backend.device).requires_grad_(), features.clone().requires_grad_()
    moved = coords.to(backend.device), positions.to(backend.device)
    weight = torch.randn(40, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    devoxelize(mine, *moved, SIZE, RANGE, mode).backward(weight.to(backend.device))
    reference.devoxelize(theirs, inside_grid(coords), positions, SIZE, RANGE, mode).backward(weight)
    assert mine.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(mine.grad.cpu(), theirs.grad)

    leaf = features[:20].to(backend.device).requires_grad_()

    def op(values: Tensor) -> Tensor:
        return devoxelize(values, moved[0][:20], moved[1][:12], SIZE, RANGE, mode)

    assert torch.autograd.gradcheck(op, (leaf,), check_forward_ad=True)


def test_equal_voxels_and_strange_points(backend: Any) -> None:
    coords = torch.tensor([[0, 1, 1, 1]] * 3, dtype=torch.int32, device=backend.device)
    features = torch.tensor([[1.0], [2.0], [3.0]], device=backend.device)
    nan, inf = float("nan"), float("inf")
    points = torch.tensor([[1.5, -1.25, -0.4], [nan, -1.25, -0.4], [inf, 0, 0], [3e38, 0, 0]], device=backend.device)
    for mode in MODES:
        assert devoxelize(features, coords, points, SIZE, RANGE, mode).flatten().tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("mode", MODES)
def test_without_voxels(backend: Any, mode: str) -> None:
    features = torch.zeros(0, 3, device=backend.device).requires_grad_()
    coords = torch.zeros(0, 4, dtype=torch.int32, device=backend.device)
    output = devoxelize(features, coords, torch.zeros(5, 3, device=backend.device), SIZE, RANGE, mode)
    assert output.shape == (5, 3)
    assert (output == 0).all()


def test_strided(backend: Any) -> None:
    features, coords, positions = problem(80, 50, 4, 5)
    expected = reference.devoxelize(features, inside_grid(coords), positions, SIZE, RANGE)
    wide = torch.cat([positions, positions], 1).to(backend.device)[:, :3]
    turned = features.T.contiguous().to(backend.device).T
    rows = torch.stack([coords, coords], dim=2).to(backend.device)[:, :, 1]
    torch.testing.assert_close(devoxelize(turned, rows, wide, SIZE, RANGE).cpu(), expected)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(voxels=st.integers(0, 200), points=st.integers(0, 60), channels=st.integers(0, 70), seed=st.integers(0, 99))
def test_any_shape(backend: Any, voxels: int, points: int, channels: int, seed: int) -> None:
    features, coords, positions = problem(voxels, points, channels, seed)
    mode = MODES[seed % 2]
    expected = reference.devoxelize(features, inside_grid(coords), positions, SIZE, RANGE, mode)
    moved = features.to(backend.device), coords.to(backend.device), positions.to(backend.device)
    torch.testing.assert_close(devoxelize(*moved, SIZE, RANGE, mode).cpu(), expected)


def test_any_number_of_points_in_a_trace_and_vmap(backend: Any) -> None:
    features, coords, positions = (t.to(backend.device) for t in problem(50, 20, 3, 1))

    def op(features: Tensor, points: Tensor) -> Tensor:
        return devoxelize(features * 2, coords, points, SIZE, RANGE) + 1

    torch._dynamo.reset()
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager", dynamic=True)
    leaf = features.clone().requires_grad_()
    for count in (20, 7, 13):
        assert torch.equal(compiled(leaf, positions[:count]), op(leaf, positions[:count]))
    stacked = torch.stack([features, -features])
    mapped = torch.vmap(lambda f: devoxelize(f, coords, positions, SIZE, RANGE))(stacked)
    assert torch.equal(mapped[1], devoxelize(stacked[1], coords, positions, SIZE, RANGE))


def test_wrong_neighbours_do_no_harm(backend: Any) -> None:
    indices = torch.tensor([[2**31 - 1], [-5], [1]], dtype=torch.int32, device=backend.device)
    weights = torch.ones(3, 1, device=backend.device)
    output = torch.ops.fastcv.devoxelize(torch.ones(2, 2, device=backend.device), indices, weights)
    assert output.tolist() == [[0, 0], [0, 0], [1, 1]]
    grad = torch.ops.fastcv.devoxelize_transposed(torch.ones(3, 2, device=backend.device), indices, weights, 2)
    assert grad.tolist() == [[0, 0], [1, 1]]


def test_sizes_that_make_no_grid() -> None:
    coords = torch.zeros(3, 4, dtype=torch.int32)
    with pytest.raises(ValueError, match="voxel_size must be positive"):
        devoxelize(torch.zeros(3, 2), coords, torch.zeros(5, 3), 0.0, RANGE)


def test_other_numbers_of_neighbours_are_refused() -> None:
    coords, points, grid = torch.zeros(3, 4, dtype=torch.int32), torch.zeros(5, 3), as_grid(SIZE, RANGE)
    with pytest.raises(ValueError, match="neighbors must be 1 or 8, got 2"):
        torch.ops.fastcv.voxel_neighbors(coords, points, grid, None, 2)
    indices, weights = torch.zeros(5, 2, dtype=torch.int32), torch.zeros(5, 2)
    with pytest.raises(ValueError, match=r"indices must have shape \(P, 1\) or \(P, 8\), got \(5, 2\)"):
        torch.ops.fastcv.devoxelize(torch.zeros(3, 2), indices, weights)

"""group_points and three_interpolate against the reference, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import reference
from fastcv.ops import gather_points, group_points, three_interpolate

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
CHANNELS = [1, 3, 4, 8, 15, 16, 17, 64, 65]


def sample(
    batch: int, count: int, channels: int, shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Features, indices of which some are -1, and weights."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, count, channels, generator=generator, dtype=torch.float64).to(dtype)
    indices = torch.randint(-1, count, (batch, *shape), generator=generator)
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    return features, indices, torch.rand(batch, *shape, generator=generator, dtype=wide)


def close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert actual.dtype is dtype
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(actual.cpu().double(), expected.double(), atol=tolerance, rtol=tolerance)


def call(features: Tensor, indices: Tensor, weights: Tensor | None) -> Tensor:
    return group_points(features, indices) if weights is None else three_interpolate(features, indices, weights)


def expect(features: Tensor, indices: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return reference.group_points(features, indices)
    return reference.three_interpolate(features, indices, weights)


@pytest.mark.parametrize("dtype", DTYPES)
def test_grouping_equals_the_reference(backend: Any, dtype: torch.dtype) -> None:
    for seed, channels in enumerate(CHANNELS):
        for shape in ((7,), (5, 6), (2, 3, 4), (1, 2, 1, 3, 1, 2)):
            features, indices, _ = sample(2, 20, channels, shape, seed, dtype)
            actual = group_points(features.to(backend.device), indices.to(backend.device))
            assert torch.equal(actual.cpu(), reference.group_points(features, indices))


@pytest.mark.parametrize("dtype", DTYPES)
def test_interpolation_equals_the_reference(backend: Any, dtype: torch.dtype) -> None:
    for seed, channels in enumerate(CHANNELS):
        features, indices, weights = sample(2, 20, channels, (30, (1, 3, 5)[seed % 3]), seed, dtype)
        actual = three_interpolate(*(t.to(backend.device) for t in (features, indices, weights)))
        expected = reference.three_interpolate(features.double(), indices, weights.double())
        close(actual, expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interpolates", [False, True])
def test_gradient_equals_the_reference(backend: Any, dtype: torch.dtype, interpolates: bool) -> None:
    for seed, channels in enumerate(CHANNELS):
        features, indices, weights = sample(3, 9, channels, (25, 3), seed, dtype)
        if seed == 3:
            indices[:] = 4  # one row takes all
        used = weights if interpolates else None
        exact = features.double().requires_grad_()
        output = expect(exact, indices, None if used is None else used.double())
        gradient = torch.randn(output.shape, dtype=torch.float64).to(dtype)
        output.backward(gradient.double())
        leaf = features.detach().clone().to(backend.device).requires_grad_()
        there = None if used is None else used.to(backend.device)
        call(leaf, indices.to(backend.device), there).backward(gradient.to(backend.device))
        assert leaf.grad is not None
        assert exact.grad is not None
        close(leaf.grad, exact.grad, dtype)


@pytest.mark.parametrize("interpolates", [False, True])
def test_forward_mode(backend: Any, interpolates: bool) -> None:
    features, indices, weights = sample(2, 5, 3, (4, 3), 1, torch.float64)
    indices, weights = indices.to(backend.device), weights.to(backend.device)

    def function(f: Tensor) -> Tensor:
        return call(f, indices, weights if interpolates else None)

    leaf = features.detach().clone().to(backend.device).requires_grad_()
    assert torch.autograd.gradcheck(function, (leaf,), check_forward_ad=True)


def test_the_weights_of_pointnet(backend: Any) -> None:
    """Half-precision features with float32 weights, half weights, and weights for -1 that are not numbers."""
    features, indices, weights = (t.to(backend.device) for t in sample(2, 6, 8, (10, 3), 3, torch.float16))
    expected = three_interpolate(features, indices, weights.half().float())
    assert torch.equal(three_interpolate(features, indices, weights.half()), expected)
    spoilt = torch.where(indices < 0, float("nan"), weights)
    assert torch.equal(three_interpolate(features, indices, spoilt), three_interpolate(features, indices, weights))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(1, 3), st.integers(1, 30), st.integers(1, 40), st.integers(1, 50), st.integers(1, 4), st.integers(0, 99)
)
def test_random_shapes(backend: Any, batch: int, count: int, channels: int, groups: int, terms: int, seed: int) -> None:
    features, indices, weights = sample(batch, count, channels, (groups, terms), seed)
    leaf = features.detach().clone().to(backend.device).requires_grad_()
    used = weights if seed % 2 else None
    actual = call(leaf, indices.to(backend.device), None if used is None else used.to(backend.device))
    exact = features.double().requires_grad_()
    expected = expect(exact, indices, None if used is None else used.double())
    close(actual.detach(), expected.detach(), torch.float32)
    actual.sum().backward()
    expected.sum().backward()
    assert leaf.grad is not None
    assert exact.grad is not None
    close(leaf.grad, exact.grad, torch.float32)


def test_int32_indices(backend: Any) -> None:
    features, indices, weights = (t.to(backend.device) for t in sample(2, 9, 5, (4, 3)))
    assert torch.equal(group_points(features, indices.int()), group_points(features, indices))
    assert torch.equal(
        three_interpolate(features, indices.int(), weights), three_interpolate(features, indices, weights)
    )


def test_without_points_or_terms(backend: Any) -> None:
    features = torch.randn(2, 5, 4, device=backend.device)
    indices = torch.zeros(2, 3, 2, dtype=torch.int64, device=backend.device)
    assert not group_points(features[:, :0], indices - 1).any()
    assert not three_interpolate(features, indices[..., :0], torch.zeros(2, 3, 0, device=backend.device)).any()
    for chosen in (indices[:, :0], indices - 1):
        leaf = features.clone().requires_grad_()
        group_points(leaf, chosen).sum().backward()
        assert leaf.grad is not None
        assert not leaf.grad.any()


def test_strided_and_unaligned_input(backend: Any) -> None:
    features, indices, weights = (t.to(backend.device) for t in sample(2, 12, 16, (9, 3)))
    expected = three_interpolate(features, indices, weights)
    for view in (
        torch.cat([features, features], 2)[..., 16:],
        features.transpose(1, 2).contiguous().transpose(1, 2),
        torch.cat([features.new_zeros(1), features.flatten()])[1:].view_as(features),
    ):
        assert torch.equal(three_interpolate(view, indices, weights), expected)
        assert torch.equal(group_points(view, indices), group_points(features, indices))
    turned = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (indices, weights)]
    assert torch.equal(three_interpolate(features, *turned), expected)
    leaf = features.clone().requires_grad_()
    output = three_interpolate(leaf, indices, weights)
    gradient = torch.randn(2, 16, 9, device=backend.device)
    (first,) = torch.autograd.grad(output, leaf, gradient.transpose(1, 2), retain_graph=True)
    (second,) = torch.autograd.grad(output, leaf, gradient.transpose(1, 2).contiguous())
    assert torch.equal(first, second)


def test_an_index_out_of_range(backend: Any) -> None:
    """An error on the CPU; on CUDA, where looking would cost a synchronisation, no point."""
    features = torch.ones(1, 4, 3, device=backend.device, requires_grad=True)
    for wrong in (4, -2, 1 << 40, -(1 << 63), (1 << 63) - 1):
        indices = torch.tensor([[0, wrong, 3]], device=backend.device)
        if backend.is_cuda:
            output = group_points(features, indices)
            assert output[0, :, 0].tolist() == [1, 0, 1]
            (gradient,) = torch.autograd.grad(output.sum(), features)
            assert gradient[0, :, 0].tolist() == [1, 0, 0, 1]
        else:
            with pytest.raises(ValueError, match=f"indices must be between -1 and 3, .* got {wrong}"):
                group_points(features, indices)
            with pytest.raises(ValueError, match="indices must be between"):
                torch.ops.fastcv.group_points_backward(features.detach(), indices[:, :4].repeat(1, 2)[:, :4], None, 4)


def test_any_number_of_points_in_a_trace(backend: Any) -> None:
    features, indices, weights = (t.to(backend.device) for t in sample(4, 8, 5, (6, 3)))

    def function(f: Tensor, i: Tensor, w: Tensor) -> Tensor:
        return (group_points(f, i).sum(2) + three_interpolate(f, i, w)).square().sum()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    for groups in (6, 3):
        leaf = features.clone().requires_grad_()
        chosen = indices[:, :groups], weights[:, :groups]
        gradients = [torch.autograd.grad(f(leaf, *chosen), leaf)[0] for f in (function, compiled)]
        assert torch.equal(*gradients)


def test_transforms(backend: Any) -> None:
    features, indices, weights = (t.to(backend.device) for t in sample(4, 8, 5, (6, 3)))

    def function(f: Tensor) -> Tensor:
        return (group_points(f, indices).sum(2) + three_interpolate(f, indices, weights)).square().sum()

    leaf = features.clone().requires_grad_()
    (expected,) = torch.autograd.grad(function(leaf), leaf)
    assert torch.equal(torch.func.grad(function)(features), expected)
    nested = torch.vmap(three_interpolate)(*(t.unflatten(0, (2, 2)) for t in (features, indices, weights)))
    assert torch.equal(nested.flatten(0, 1), three_interpolate(features, indices, weights))
    nested = torch.vmap(group_points)(*(t.unflatten(0, (2, 2)) for t in (features, indices)))
    assert torch.equal(nested.flatten(0, 1), group_points(features, indices))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gather_points(backend: Any, dtype: torch.dtype) -> None:
    features, indices, _ = sample(2, 30, 5, (17,), dtype=dtype)
    features = features.transpose(1, 2)
    for layout in (features, features.contiguous()):
        leaf = layout.to(backend.device).requires_grad_()
        for kind in (torch.int64, torch.int32):
            actual = gather_points(leaf, indices.to(backend.device, kind))
            assert actual.is_contiguous()
            assert torch.equal(actual.cpu(), reference.gather_points(features, indices))
        weights = torch.arange(actual.numel()).view_as(actual).remainder(7).to(dtype)
        (gradient,) = torch.autograd.grad(actual, leaf, weights.to(backend.device))
        wide = features.double().requires_grad_()
        (expected,) = torch.autograd.grad(reference.gather_points(wide, indices), wide, weights.double())
        close(gradient, expected, dtype)

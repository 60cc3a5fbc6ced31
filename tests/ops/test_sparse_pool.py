"""sparse_max_pool and sparse_avg_pool against the reference, on every backend.

What the pools mean on a grid is tested with the layers, in tests/sparse.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import reference
from fastcv.ops import sparse_avg_pool, sparse_max_pool

NAN, INF = float("nan"), float("inf")
POOLS = [
    pytest.param(sparse_max_pool, reference.sparse_max_pool, id="max"),
    pytest.param(sparse_avg_pool, reference.sparse_avg_pool, id="avg"),
    pytest.param(
        partial(sparse_avg_pool, count_include_missing=True),
        partial(reference.sparse_avg_pool, count_include_missing=True),
        id="avg-all",
    ),
]
OPS = [sparse_max_pool, sparse_avg_pool]


def random_map(volume: int, rows: int, outputs: int, fill: float = 0.4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A kernel map: each element is a partial matching of input and output rows, and no two link the same."""
    generator = torch.Generator().manual_seed(seed)
    neighbours = torch.full((volume, outputs), -1, dtype=torch.int32)
    reverse = torch.full((volume, rows), -1, dtype=torch.int32)
    linked = torch.zeros(rows, outputs, dtype=torch.bool)
    for k in range(volume):
        count = int(min(rows, outputs) * fill + 0.999)
        inputs = torch.randperm(rows, generator=generator)[:count]
        targets = torch.randperm(outputs, generator=generator)[:count]
        fresh = ~linked[inputs, targets]
        inputs, targets = inputs[fresh], targets[fresh]
        linked[inputs, targets] = True
        neighbours[k, targets], reverse[k, inputs] = inputs.int(), targets.int()
    return neighbours, reverse


def random_features(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def with_gradient(pool: Any, features: Tensor, *maps: Tensor) -> tuple[Tensor, Tensor]:
    leaf = features.detach().clone().requires_grad_()
    output = pool(leaf, *maps)
    weight = random_features(*output.shape, seed=1).to(output)
    (gradient,) = torch.autograd.grad(output, leaf, weight)
    assert torch.equal(pool(features, *maps).nan_to_num(7), output.detach().nan_to_num(7))  # without derivatives
    return output.detach().cpu(), gradient.cpu()


def on(backend: Any, *tensors: Tensor) -> list[Tensor]:
    return [tensor.to(backend.device) for tensor in tensors]


def close(actual: Any, expected: Any, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize(("pool", "expected_pool"), POOLS)
@given(
    volume=st.integers(0, 30),
    rows=st.integers(0, 70),
    outputs=st.integers(0, 300),
    channels=st.sampled_from([1, 3, 4, 8, 16, 17, 31, 33, 64, 67, 130]),
    fill=st.sampled_from([0.05, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_values_and_gradient_equal_the_reference(
    backend: Any,
    pool: Any,
    expected_pool: Any,
    volume: int,
    rows: int,
    outputs: int,
    channels: int,
    fill: float,
    seed: int,
) -> None:
    maps = random_map(volume, rows, outputs, fill, seed)
    features = random_features(rows, channels, seed=seed)
    if seed % 2:
        features = features.mul(2).round()  # many equal values: the first counts
    expected = with_gradient(expected_pool, features, *maps)
    actual = with_gradient(pool, *on(backend, features, *maps))
    close(actual, expected)
    if pool is sparse_max_pool:
        assert torch.equal(actual[0], expected[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [5, 40])
def test_dtypes(backend: Any, dtype: torch.dtype, channels: int) -> None:
    """Half types are summed in float32, so that only the result is rounded."""
    maps = random_map(9, 50, 40, 0.5)
    features = random_features(50, channels, dtype=dtype)
    for pool, expected_pool in ((p.values[0], p.values[1]) for p in POOLS):
        leaf = features.to(backend.device).requires_grad_()
        output = pool(leaf, *on(backend, *maps))
        assert output.dtype is dtype
        wide = features.double().requires_grad_()
        expected = expected_pool(wide, *maps)
        tolerance = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 1e-6}.get(dtype, 1e-14)
        close(output.detach().cpu().double(), expected.detach(), tolerance)
        upstream = random_features(*output.shape, seed=3, dtype=dtype)
        (gradient,) = torch.autograd.grad(output, leaf, upstream.to(backend.device))
        (expected_gradient,) = torch.autograd.grad(expected, wide, upstream.double())
        close(gradient.cpu().double(), expected_gradient, tolerance)
        if pool is sparse_max_pool:
            assert torch.equal(output.detach().cpu(), expected.detach().to(dtype))


def test_special_values(backend: Any) -> None:
    """NaN is larger than all, a missing neighbour smaller than -inf; the first of equals gets the gradient."""
    features = random_features(60, 19)
    choice = torch.randint(0, 5, features.shape, generator=torch.Generator().manual_seed(2))
    for code, value in ((1, NAN), (2, -INF), (3, INF)):
        features[choice == code] = value
    features[:, 0], features[:, 1], features[:, 2] = NAN, -INF, INF
    maps = random_map(9, 60, 80, 0.25)
    assert (maps[0] < 0).all(0).any()
    expected = with_gradient(reference.sparse_max_pool, features, *maps)
    close(with_gradient(sparse_max_pool, *on(backend, features, *maps)), expected)


def test_all_negative(backend: Any) -> None:
    maps = random_map(8, 40, 40, 0.5)
    features = -1 - random_features(40, 20).abs()
    output = sparse_max_pool(*on(backend, features, *maps)).cpu()
    seen = (maps[0] >= 0).any(0)
    assert (output[seen] <= -1).all()
    assert not output[~seen].any()


@pytest.mark.parametrize("op", OPS)
def test_layouts(backend: Any, op: Any) -> None:
    maps = random_map(5, 30, 40)
    wide = random_features(60, 48)
    for features in (wide[::2, ::2], wide[:30, 3:20], random_features(12, 30).t(), wide[:1, :16].expand(30, 16)):
        strided = [torch.stack([m, m], 2).to(backend.device)[:, :, 0] for m in maps]
        expected = with_gradient(op, *on(backend, features.contiguous(), *maps))
        close(with_gradient(op, features.to(backend.device), *strided), expected, 0)


@pytest.mark.parametrize("op", OPS)
def test_rows_beyond_the_last(backend: Any, op: Any) -> None:
    features = torch.ones(3, 4, device=backend.device)
    neighbours = torch.tensor([[0, 3, 2**31 - 1], [1, 2, -(2**31)]], dtype=torch.int32, device=backend.device)
    reverse = torch.full((2, 3), -1, dtype=torch.int32, device=backend.device)
    if backend.is_cuda:
        assert op(features, neighbours, reverse)[:, 0].tolist() == [1, 1, 0]
        return
    with pytest.raises(ValueError, match="must name rows below 3, but names one beyond"):
        op(features, neighbours, reverse)


@pytest.mark.parametrize("op", OPS)
def test_reverse_with_another_volume(backend: Any, op: Any) -> None:
    """Where no row feeds two outputs, one line of ``reverse`` says it all."""
    neighbours = torch.full((7, 3), -1, dtype=torch.int32)
    reverse = torch.full((1, 12), -1, dtype=torch.int32)
    for row in range(12):
        neighbours[row // 3, row % 3], reverse[0, row] = row, row % 3
    features = random_features(12, 6)
    expected = with_gradient(getattr(reference, op.__name__), features, neighbours, reverse)
    close(with_gradient(op, *on(backend, features, neighbours, reverse)), expected)


@pytest.mark.parametrize("op", OPS)
def test_forward_mode(backend: Any, op: Any) -> None:
    features = random_features(7, 3).to(backend.device).requires_grad_()
    maps = on(backend, *random_map(5, 7, 6, 0.6))
    assert torch.autograd.gradcheck(lambda x: op(x, *maps), (features,), check_forward_ad=True)


@pytest.mark.parametrize("op", OPS)
def test_function_transforms(backend: Any, op: Any) -> None:
    features = random_features(3, 9, 4).to(backend.device)
    maps = on(backend, *random_map(5, 9, 6))
    stacked = torch.stack([op(x, *maps) for x in features])
    assert torch.equal(torch.vmap(lambda x: op(x, *maps))(features), stacked)
    leaf = features[0].clone().requires_grad_()
    (expected,) = torch.autograd.grad(op(leaf, *maps).square().sum(), leaf)
    close(torch.func.grad(lambda x: op(x, *maps).square().sum())(features[0]), expected)


@pytest.mark.parametrize("op", OPS)
def test_gradients_that_need_the_reverse(backend: Any, op: Any) -> None:
    """Without its rows there is the output, and an error in place of a wrong gradient."""
    neighbours = torch.tensor([[0, 2], [1, -1]], dtype=torch.int32).to(backend.device)
    reverse = torch.tensor([[0, -1, 1], [-1, 0, -1]], dtype=torch.int32).to(backend.device)
    features = torch.rand(3, 4).to(backend.device)
    assert torch.equal(op(features, neighbours, reverse[:0]), op(features, neighbours, reverse))
    with pytest.raises(ValueError, match=r"reverse must be the map seen from the input .*, got \(0, 3\)"):
        op(features.requires_grad_(), neighbours, reverse[:0]).sum().backward()

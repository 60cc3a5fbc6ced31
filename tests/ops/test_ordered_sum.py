"""ordered_sum against exact sums, on every backend."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv.ops.ordered_sum import ordered_sum

NAN, INF = float("nan"), float("inf")
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
# (A, B, C) around the sizes of pieces and vectors.
SIZES = [
    *((1, 1, 1), (1, 1, 15), (1, 1, 33), (1, 1, 8191), (1, 1, 8192), (1, 1, 8193), (1, 1, 40_000)),
    *((9000, 1, 1), (700, 3, 1), (70, 255, 1), (33, 256, 1), (40, 257, 1), (3, 700, 1), (2, 9000, 1)),
    *((5, 7, 2), (300, 5, 49), (2, 3, 129), (2, 3, 256), (3, 2, 257), (3, 2, 9000), (1, 40, 300), (2, 600, 4)),
]


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Numbers of all sizes and both signs."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    return (values * 10 ** torch.randint(-3, 3, shape, generator=generator)).to(dtype)


def check(total: Tensor, input: Tensor, axis: int | None, count: int = 1) -> None:
    """Compares with the exact sum: four elements may have been added in float32, the result is rounded once."""
    rows = (input[None] if axis is None else input.movedim(axis, 0).flatten(1)).flatten(1).double()
    expected = torch.tensor([math.fsum(row) for row in rows.tolist()], dtype=torch.float64) / count
    working = torch.finfo(torch.promote_types(input.dtype, torch.float32)).eps
    allowed = torch.finfo(input.dtype).eps * expected.abs() + 2 * working * rows.abs().sum(1) / count
    assert total.dtype is input.dtype
    assert ((total.cpu().double().reshape(-1) - expected).abs() <= allowed).all()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sums_are_exact(backend: Any, size: tuple[int, int, int]) -> None:
    for dtype in DTYPES:
        input = random(*size, dtype=dtype)
        moved = input.to(backend.device)
        check(ordered_sum(moved, 1), input, 1)
        check(ordered_sum(moved, 1, True), input, 1, size[0] * size[2])
        check(ordered_sum(moved), input, None)
        check(ordered_sum(moved, mean=True), input, None, input.numel())


def test_at_least_as_exact_as_torch(backend: Any) -> None:
    """Errors beside the sum of the magnitudes: beside a sum that happens to be near zero, one sample would decide."""
    errors = []
    for seed in range(20):
        values = random(30_000, dtype=torch.float32, seed=seed)
        for input in (values, values.abs()):
            exact, scale = math.fsum(input.tolist()), math.fsum(input.abs().tolist())
            errors.append([abs(float(s) - exact) / scale for s in (ordered_sum(input.to(backend.device)), input.sum())])
    ours, theirs = torch.tensor(errors).square().mean(0).tolist()
    assert ours <= theirs


def test_axes_and_layouts(backend: Any) -> None:
    input = random(3, 40, 5, 6, dtype=torch.float32).to(backend.device)
    layouts = [
        input,
        input.contiguous(memory_format=torch.channels_last),
        input.transpose(0, 3).contiguous().transpose(0, 3),
        torch.cat([input, input], 2)[:, :, 5:],
    ]
    for view in layouts:
        for axis in range(4):
            check(ordered_sum(view, axis), input.cpu(), axis)
        check(ordered_sum(view), input.cpu(), None)
    expanded = input[:1, :1, :1, :1].expand(2, 3, 4, 5)
    assert ordered_sum(expanded, 2).tolist() == [pytest.approx(30 * float(input[0, 0, 0, 0]))] * 4
    assert torch.equal(ordered_sum(input[0, 0, 0, 0]), input[0, 0, 0, 0])


def test_special_values(backend: Any) -> None:
    rows = torch.tensor([[1.0, INF, 2], [INF, -INF, 0], [NAN, 1, 2], [3e38, 3e38, 0], [3e38, -3e38, 0]])
    total = ordered_sum(rows.to(backend.device), 0).tolist()
    assert total[0] == INF
    assert math.isnan(total[1])
    assert math.isnan(total[2])
    assert total[3:] == [INF, 0]
    assert ordered_sum(torch.full((1000,), 500.0, dtype=torch.float16, device=backend.device), None, True) == 500
    empty = torch.zeros(2, 0, 3, device=backend.device)
    assert ordered_sum(empty, 0).tolist() == [0, 0]
    assert ordered_sum(empty, 0, True).isnan().all()
    assert ordered_sum(empty, None).item() == 0


def test_derivatives(backend: Any) -> None:
    leaf = random(2, 3, 4).to(backend.device).requires_grad_()
    for axis in (None, 0, 1, 2):
        for mean in (False, True):
            assert torch.autograd.gradcheck(lambda x, a=axis, m=mean: ordered_sum(x, a, m), leaf, check_forward_ad=True)
            assert torch.autograd.gradgradcheck(lambda x, a=axis, m=mean: ordered_sum(x * x, a, m), leaf)
    expected = torch.stack([ordered_sum(x, 1) for x in leaf])
    assert torch.equal(torch.vmap(lambda x: ordered_sum(x, 1))(leaf), expected)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 70), st.integers(1, 300), st.integers(1, 300), st.integers(0, 9), st.sampled_from(DTYPES[1:]))
def test_any_size(backend: Any, a: int, b: int, c: int, seed: int, dtype: torch.dtype) -> None:
    if a * b * c > 100_000:
        a = 1 + a % 3
    input = random(a, b, c, dtype=dtype, seed=seed)
    check(ordered_sum(input.to(backend.device), 1), input, 1)

"""The kernels that sparse_conv has on CUDA beside the general one: few channels, tensor cores, rows in another order.

The CPU kernels pass through the same tests: there tf32 and the order of rows must change nothing.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fastcv import reference
from fastcv.ops import sparse_conv, sparse_row_order

HAS_BF16_PAIRS = True
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
HALVES = [torch.float16, torch.bfloat16]
Problem = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def random_values(*shape: int, seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def random_problem(
    in_channels: int,
    out_channels: int,
    volume: int = 6,
    groups: int = 1,
    inputs: int = 70,
    outputs: int = 66,
    dtype: torch.dtype = torch.float64,
    density: float = 0.4,
) -> Problem:
    """Features, weight, bias and a map in which some kernel elements have no pairs at all."""
    generator = torch.Generator().manual_seed(volume)
    neighbours = torch.full((volume, outputs), -1, dtype=torch.int32)
    reverse = torch.full((volume, inputs), -1, dtype=torch.int32)
    for k in range(volume):
        pairs = int(density * min(inputs, outputs)) if k % 5 != 3 else 0
        source = torch.randperm(inputs, generator=generator)[:pairs]
        target = torch.randperm(outputs, generator=generator)[:pairs]
        neighbours[k, target], reverse[k, source] = source.int(), target.int()
    features = random_values(inputs, in_channels, seed=1, dtype=dtype)
    weight = random_values(out_channels, 1, 1, volume, in_channels // groups, seed=2, dtype=dtype)
    return features, weight, random_values(out_channels, seed=3, dtype=dtype), neighbours, reverse


def run(function: Any, problem: Problem, groups: int, device: str = "cpu", *orders: Tensor) -> list[Tensor]:
    """The result and the gradients to features, weight and bias, all on the CPU."""
    leaves = [t.detach().to(device).requires_grad_() for t in problem[:3]]
    output = function(*leaves, *(m.to(device) for m in problem[3:]), groups, *(o.to(device) for o in orders))
    grad = random_values(*output.shape, seed=9, dtype=output.dtype).to(device)
    return [output.detach().cpu(), *(g.cpu() for g in torch.autograd.grad(output, leaves, grad))]


def assert_close(actual: list[Tensor], problem: Problem, groups: int, tolerance: float) -> None:
    exact = (*(t.double() for t in problem[:3]), *problem[3:])
    for one, other in zip(actual, run(reference.sparse_conv, exact, groups), strict=True):
        assert one.dtype is problem[0].dtype
        scale = max(other.abs().max().item(), 1.0)
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("channels", [(8, 40, 1), (24, 16, 1), (64, 64, 1), (40, 136, 1), (48, 96, 2)])
def test_halves(backend: Any, dtype: torch.dtype, channels: tuple[int, int, int]) -> None:
    in_channels, out_channels, groups = channels
    problem = random_problem(in_channels, out_channels, groups=groups, dtype=dtype)
    assert_close(run(sparse_conv, problem, groups, backend.device), problem, groups, TOLERANCE[dtype])


@pytest.mark.parametrize("volume", [1, 31, 32, 33, 65])
def test_halves_with_many_kernel_elements(backend: Any, volume: int) -> None:
    problem = random_problem(16, 40, volume, inputs=20, outputs=18, dtype=torch.float16)
    assert_close(run(sparse_conv, problem, 1, backend.device), problem, 1, TOLERANCE[torch.float16])


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 130])
def test_halves_around_the_edges_of_tiles(backend: Any, rows: int) -> None:
    for inputs, outputs in ((rows, 40), (40, rows)):
        problem = random_problem(24, 40, 3, inputs=inputs, outputs=outputs, dtype=torch.bfloat16, density=1)
        assert_close(run(sparse_conv, problem, 1, backend.device), problem, 1, TOLERANCE[torch.bfloat16])


@pytest.mark.parametrize("out_channels", [64, 136])
def test_large_tiles(backend: Any, out_channels: int) -> None:
    """More than 8192 rows of at least 64 channels."""
    problem = random_problem(64, out_channels, 1, inputs=400, outputs=8200, dtype=torch.float16, density=1)
    exact = reference.sparse_conv(*(t.double() for t in problem[:3]), *problem[3:])
    device = backend.device
    actual = sparse_conv(*(t.to(device) for t in problem)).cpu()
    torch.testing.assert_close(actual.double(), exact, rtol=4e-3, atol=4e-3)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("channels", [(64, 256, 1), (192, 256, 1), (128, 1024, 2)])
def test_warpgroups(backend: Any, dtype: torch.dtype, channels: tuple[int, int, int]) -> None:
    """Multiples of 64 channels to multiples of 256, in each group; on sm_90 from 192 rows a multiprocessor on."""
    in_channels, out_channels, groups = channels
    rows = 30000 if backend.device == "cuda" else 197
    problem = random_problem(in_channels, out_channels, 5, groups, 150, rows, dtype=dtype, density=0.8)
    exact = reference.sparse_conv(*(t.double() for t in problem[:3]), *problem[3:], groups)
    arguments = [t.to(backend.device) for t in problem]
    actual = sparse_conv(*arguments, groups).cpu()
    torch.testing.assert_close(actual.double(), exact, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * 10)
    if groups == 1 and backend.device != "cuda":  # the other tensor-core kernel, whose sums run in the same order
        features, weight, bias, *maps = arguments
        parts = [sparse_conv(features, w, b, *maps) for w, b in zip(weight.split(64), bias.split(64), strict=True)]
        assert torch.equal(actual, torch.cat(parts, 1).cpu())
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(3)).int().to(backend.device)
    assert torch.equal(sparse_conv(*arguments, groups, order).cpu(), actual)


def test_warpgroups_and_many_kernel_elements(backend: Any) -> None:
    """More than are looked up at once, some without pairs, and none at all."""
    rows = 30000 if backend.device == "cuda" else 192
    problem = random_problem(64, 256, 37, 1, 60, rows, dtype=torch.float16, density=0.3)
    features, weight, _, *maps = problem
    for kept in (maps, [torch.full_like(m, -1) for m in maps]):
        exact = reference.sparse_conv(features.double(), weight.double(), None, *kept)
        actual = sparse_conv(
            *(t.to(backend.device) for t in (features, weight)), None, *(m.to(backend.device) for m in kept)
        )
        torch.testing.assert_close(actual.cpu().double(), exact, rtol=4e-3, atol=4e-2)


def test_pairs_of_the_weight_gradient(backend: Any) -> None:
    """More rows than are looked at together, and more than one piece of them."""
    problem = random_problem(8, 8, 2, inputs=9000, outputs=8500, dtype=torch.float16, density=0.3)
    features, weight, _, *maps = (t.to(backend.device) for t in problem)
    grad = random_values(8500, 8, seed=4, dtype=torch.float16).to(backend.device)
    actual = torch.ops.fastcv.sparse_conv_weight(features, grad, *maps, 1, 1, 2, 1).cpu()
    leaf = weight.cpu().double().requires_grad_()
    output = reference.sparse_conv(features.cpu().double(), leaf, None, *problem[3:])
    (expected,) = torch.autograd.grad(output, leaf, grad.cpu().double())
    torch.testing.assert_close(actual.double(), expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("channels", [(1, 4, 1), (4, 16, 1), (7, 33, 1), (16, 5, 1), (32, 12, 4)])
def test_few_channels(backend: Any, dtype: torch.dtype, channels: tuple[int, int, int]) -> None:
    in_channels, out_channels, groups = channels
    problem = random_problem(in_channels, out_channels, 40, groups, 260, 270, dtype=dtype, density=0.1)
    assert_close(run(sparse_conv, problem, groups, backend.device), problem, groups, TOLERANCE[dtype])


def rounded_to_tf32(values: Tensor) -> Tensor:
    mantissa, exponent = torch.frexp(values.double())
    return torch.ldexp((mantissa.abs() * 2**11 + 0.5).floor() * mantissa.sign(), exponent - 11)


def test_tf32(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(20, 72, dtype=torch.float32)
    for allowed in (True, False):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
        actual = run(sparse_conv, problem, 1, backend.device)
        assert_close(actual, problem, 1, 5e-3 if allowed else 1e-5)
        features, weight, bias, *maps = problem
        if allowed and backend.is_cuda:
            rounded = reference.sparse_conv(rounded_to_tf32(features), rounded_to_tf32(weight), bias.double(), *maps)
            torch.testing.assert_close(actual[0].double(), rounded, rtol=1e-5, atol=1e-5)
            with pytest.raises(AssertionError):
                assert_close(actual, problem, 1, 1e-5)


@pytest.mark.parametrize(("dtype", "channels"), [(torch.float16, (24, 40)), (torch.float32, (24, 40))])
def test_order_of_rows_changes_no_bit(backend: Any, dtype: torch.dtype, channels: tuple[int, int]) -> None:
    problem = random_problem(*channels, 9, inputs=150, outputs=140, dtype=dtype, density=0.2)
    plain = run(sparse_conv, problem, 1, backend.device)
    generator = torch.Generator().manual_seed(3)
    shuffled = [torch.randperm(n, generator=generator).int() for n in (140, 150)]
    for orders in (shuffled, [sparse_row_order(m) for m in problem[3:]]):
        ordered = run(sparse_conv, problem, 1, backend.device, *orders)
        assert all(torch.equal(one, other) for one, other in zip(plain, ordered, strict=True))


def test_an_order_with_rows_outside(backend: Any) -> None:
    """Not looked at where that costs a synchronisation, and never followed."""
    features, weight, bias, neighbours, reverse = (t.to(backend.device) for t in random_problem(24, 40))
    for value in (-1, 66, 2**31 - 1, -(2**31)):
        order = torch.full((66,), value, dtype=torch.int32, device=backend.device)
        assert sparse_conv(features.half(), weight.half(), bias.half(), neighbours, reverse, 1, order).shape == (66, 40)


@pytest.mark.parametrize("volume", [1, 8, 27, 31, 32, 125])
def test_row_order(volume: int) -> None:
    neighbours = random_problem(1, 1, volume, inputs=300, outputs=290, density=0.3)[3]
    neighbours[:, 100:200] = neighbours[:, :100]
    order = sparse_row_order(neighbours)
    assert order.dtype is torch.int32
    assert torch.equal(order.long().sort().values, torch.arange(290))
    if volume <= 31:
        rows = (neighbours >= 0).T[order.long()]
        changes = (rows[1:] != rows[:-1]).any(1).sum().item() + 1
        assert changes == len(rows.unique(dim=0))


def test_memory_that_is_not_aligned(backend: Any) -> None:
    problem = random_problem(24, 40, dtype=torch.float16)
    features, weight, bias, *maps = (t.to(backend.device) for t in problem)
    buffer = torch.zeros(features.numel() + 1, dtype=torch.float16, device=backend.device)
    buffer[1:] = features.reshape(-1)
    moved = buffer[1:].view(features.shape)
    for few in (False, True):
        if few:
            moved, weight = moved[:, :4].contiguous(), weight[..., :4]
            buffer = torch.zeros(moved.numel() + 1, dtype=torch.float16, device=backend.device)
            buffer[1:] = moved.reshape(-1)
            moved = buffer[1:].view(moved.shape)
        actual = sparse_conv(moved, weight, bias, *maps).cpu()
        exact = reference.sparse_conv(moved.cpu().double(), weight.cpu().double(), problem[2].double(), *problem[3:])
        torch.testing.assert_close(actual.double(), exact, rtol=4e-3, atol=4e-3 * exact.abs().max().item())


@pytest.mark.parametrize("channels", [(8, 16), (24, 40)])
def test_nan_and_infinity_stay_in_their_rows(backend: Any, channels: tuple[int, int]) -> None:
    features, weight, _, *maps = random_problem(*channels, dtype=torch.float16)
    features[7], features[9, 2] = float("nan"), float("inf")
    output = sparse_conv(
        features.to(backend.device), weight.to(backend.device), None, *(m.to(backend.device) for m in maps)
    )
    touched = ((maps[0] == 7) | (maps[0] == 9)).any(0)
    assert not torch.isfinite(output.cpu()[touched]).all(1).any()
    assert torch.isfinite(output.cpu()[~touched]).all()


def test_same_bits_twice(backend: Any) -> None:
    problem = random_problem(40, 24, inputs=700, outputs=650, dtype=torch.bfloat16)
    first, second = (run(sparse_conv, problem, 1, backend.device) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))

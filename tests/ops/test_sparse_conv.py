"""sparse_conv against the reference and a dense oracle in float64, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sparse_problems import random_map, random_values
from torch import Tensor
from torch.nn import functional

from fastcv import reference
from fastcv.ops import sparse_conv

HAS_BF16_PAIRS = True
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
Problem = tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]


def random_sites(count: int, shape: tuple[int, int, int], batch: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randperm(batch * shape[0] * shape[1] * shape[2], generator=generator)[:count]
    parts = []
    for size in reversed(shape):
        parts.append(flat % size)
        flat = flat // size
    return torch.stack([flat, *reversed(parts)], dim=1).int()


def random_problem(
    in_channels: int,
    out_channels: int,
    kernel: tuple[int, int, int] = (1, 2, 3),
    groups: int = 1,
    inputs: int = 50,
    outputs: int = 45,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Problem:
    neighbours, reverse = random_map(kernel[0] * kernel[1] * kernel[2], inputs, outputs, seed)
    return (
        random_values(inputs, in_channels, seed=seed + 1, dtype=dtype),
        random_values(out_channels, *kernel, in_channels // groups, seed=seed + 2, dtype=dtype),
        random_values(out_channels, seed=seed + 3, dtype=dtype),
        neighbours,
        reverse,
    )


def run(function: Any, problem: Problem, groups: int, device: str = "cpu") -> list[Tensor]:
    """The result and the gradients to features, weight and bias, all on the CPU."""
    features, weight, bias, *maps = problem
    leaves = [t.detach().to(device).requires_grad_() for t in (features, weight, bias) if t is not None]
    output = function(*leaves, *([None] * (3 - len(leaves))), *(m.to(device) for m in maps), groups)
    grad = random_values(*output.shape, seed=9, dtype=output.dtype).to(device)
    return [output.detach().cpu(), *(g.cpu() for g in torch.autograd.grad(output, leaves, grad))]


def assert_equals_reference(problem: Problem, groups: int, device: str, tolerance: float = 1e-12) -> None:
    exact = tuple(t.double() if t is not None and t.is_floating_point() else t for t in problem)
    expected = run(reference.sparse_conv, exact, groups)  # type: ignore[arg-type]
    actual = run(sparse_conv, problem, groups, device)
    for name, one, other in zip(("output", "features", "weight", "bias"), actual, expected, strict=False):
        assert one.dtype is problem[0].dtype
        scale = max(other.abs().max().item(), 1.0) if other.numel() else 1.0
        torch.testing.assert_close(
            one.double(), other, rtol=tolerance, atol=tolerance * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("out_channels", [1, 16, 33, 64, 70])
@pytest.mark.parametrize("in_channels", [1, 3, 8, 17, 64])
def test_channel_counts(backend: Any, in_channels: int, out_channels: int) -> None:
    assert_equals_reference(random_problem(in_channels, out_channels), 1, backend.device)


@pytest.mark.parametrize("channels", [(2, 2, 2), (6, 9, 3), (8, 40, 4), (32, 64, 2), (5, 5, 5)])
def test_groups(backend: Any, channels: tuple[int, int, int]) -> None:
    in_channels, out_channels, groups = channels
    assert_equals_reference(random_problem(in_channels, out_channels, groups=groups), groups, backend.device)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_dtypes(backend: Any, dtype: torch.dtype) -> None:
    for channels in ((4, 16), (20, 33)):
        problem = random_problem(*channels, dtype=dtype)
        assert_equals_reference(problem, 1, backend.device, TOLERANCE[dtype])
    assert_equals_reference(random_problem(8, 12, groups=4, dtype=dtype), 4, backend.device, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.bfloat16], ids=["bfloat16"])
@pytest.mark.parametrize(
    "channels", [(1, 1, 1), (2, 16, 1), (17, 32, 1), (31, 33, 1), (64, 70, 1), (33, 48, 1), (20, 8, 4), (21, 198, 3)]
)
def test_products_of_bfloat16_are_exact(backend: Any, dtype: torch.dtype, channels: tuple[int, int, int]) -> None:
    """Small integers, whose sums are exact in any order: a factor that is misplaced or left out shows."""
    in_channels, out_channels, groups = channels
    generator = torch.Generator().manual_seed(0)
    features, weight, bias, *maps = random_problem(in_channels, out_channels, groups=groups)
    values = [torch.randint(-2, 3, t.shape, generator=generator).to(dtype) for t in (features, weight, bias)]  # type: ignore[union-attr]
    grad = torch.randint(-2, 3, (maps[0].shape[1], out_channels), generator=generator).to(dtype)
    results = []
    for function, device, kind in ((reference.sparse_conv, "cpu", torch.float64), (sparse_conv, backend.device, dtype)):
        leaves = [t.to(device, kind).requires_grad_() for t in values]
        output = function(*leaves, *(m.to(device) for m in maps), groups)
        gradients = torch.autograd.grad(output, leaves, grad.to(device, kind))
        results.append([t.detach().cpu().to(dtype) for t in (output, *gradients)])
    for expected, actual in zip(*results, strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("outputs", [1, 15, 16, 17, 63, 64, 65, 191, 192, 193, 400])
def test_sizes_around_the_edges_of_blocks(backend: Any, outputs: int) -> None:
    assert_equals_reference(random_problem(5, 7, (1, 1, 2), inputs=120, outputs=outputs), 1, backend.device)
    assert_equals_reference(random_problem(5, 7, (1, 1, 2), inputs=outputs, outputs=60), 1, backend.device)


def test_pieces_of_the_weight_gradient(backend: Any) -> None:
    """More output rows than one piece has."""
    assert_equals_reference(random_problem(3, 5, (1, 1, 2), inputs=9000, outputs=17000), 1, backend.device, 1e-10)


def test_kernel_of_125_elements(backend: Any) -> None:
    assert_equals_reference(random_problem(4, 6, (5, 5, 5), inputs=30, outputs=20), 1, backend.device)


def test_without_bias_and_with_few_gradients(backend: Any) -> None:
    features, weight, bias, neighbours, reverse = random_problem(4, 6)
    assert_equals_reference((features, weight, None, neighbours, reverse), 1, backend.device)
    maps = (neighbours.to(backend.device), reverse.to(backend.device))
    assert bias is not None
    expected = run(reference.sparse_conv, (features, weight, bias, neighbours, reverse), 1)
    for chosen in range(3):
        leaves = [t.to(backend.device) for t in (features, weight, bias)]
        leaves[chosen].requires_grad_()
        output = sparse_conv(*leaves, *maps)  # type: ignore[call-arg,arg-type]
        grad = random_values(*output.shape, seed=9).to(backend.device)
        (gradient,) = torch.autograd.grad(output, leaves[chosen], grad)
        torch.testing.assert_close(gradient.cpu(), expected[1 + chosen], rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        assert not sparse_conv(*leaves, *maps).requires_grad  # type: ignore[call-arg,arg-type]


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_equals_a_dense_convolution(backend: Any, kernel: int, stride: int, groups: int) -> None:
    """Scatter to a dense float64 grid, convolve, look at the active sites; gradients through both."""
    shape, batch, padding, dilation = (5, 6, 7), 2, 1, 1
    indices = random_sites(60, shape, batch)
    out, neighbours, reverse = reference.sparse_kernel_map(indices, shape, batch, kernel, stride, padding, dilation)
    features, bias = random_values(60, 4), random_values(6, seed=2)
    weight = random_values(6, kernel, kernel, kernel, 4 // groups, seed=1)

    def dense(f: Tensor, w: Tensor, b: Tensor, *_: Any) -> Tensor:
        grid = f.new_zeros(batch, *shape, f.shape[1]).index_put(tuple(indices.long().T), f)
        result = functional.conv3d(
            grid.permute(0, 4, 1, 2, 3), w.permute(0, 4, 1, 2, 3), b, stride, padding, dilation, groups
        )
        return result.permute(0, 2, 3, 4, 1)[tuple(out.long().T)]

    problem = (features, weight, bias, neighbours, reverse)
    expected, actual = run(dense, problem, groups), run(sparse_conv, problem, groups, backend.device)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("inputs", "channels"), [(0, (3, 5)), (4, (0, 5)), (1, (3, 5))])
def test_without_pairs_the_bias_remains(backend: Any, inputs: int, channels: tuple[int, int]) -> None:
    neighbours, reverse = (torch.full((6, rows), -1, dtype=torch.int32) for rows in (4, inputs))
    features, weight = random_values(inputs, channels[0]), random_values(channels[1], 1, 2, 3, channels[0])
    bias = random_values(channels[1], seed=3)
    output, *gradients = run(sparse_conv, (features, weight, bias, neighbours, reverse), 1, backend.device)
    assert torch.equal(output, bias.expand(4, -1))
    assert not gradients[0].any()
    assert not gradients[1].any()


def test_strided_arguments(backend: Any) -> None:
    features, weight, bias, neighbours, reverse = (t.to(backend.device) for t in random_problem(6, 8) if t is not None)
    expected = sparse_conv(features, weight, bias, neighbours, reverse)
    reversed_axes = weight.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0)
    cases = {
        "features": (features.T.contiguous().T, weight, bias, neighbours, reverse),
        "weight": (features, reversed_axes, bias, neighbours, reverse),
        "every second": (features, torch.stack([weight, weight], dim=4)[:, :, :, :, 0], bias, neighbours, reverse),
        "bias": (features, weight, torch.stack([bias, bias], dim=1)[:, 0], neighbours, reverse),
        "map": (features, weight, bias, neighbours.T.contiguous().T, reverse.T.contiguous().T),
    }
    for name, arguments in cases.items():
        torch.testing.assert_close(sparse_conv(*arguments), expected, rtol=1e-12, atol=1e-12, msg=name)
    for axis in (1, 2, 3, 4):  # strides of 0
        repeated = weight.narrow(axis, 0, 1).expand(weight.shape)
        expected = sparse_conv(features, repeated.contiguous(), bias, neighbours, reverse)
        torch.testing.assert_close(sparse_conv(features, repeated, bias, neighbours, reverse), expected, msg=str(axis))


def test_nan_and_infinity_stay_in_their_rows(backend: Any) -> None:
    features, weight, _, neighbours, reverse = random_problem(4, 20, dtype=torch.float32)
    features[7], features[9, 2] = float("nan"), float("inf")
    moved = [t.to(backend.device) for t in (features, weight, neighbours, reverse)]
    output = sparse_conv(moved[0], moved[1], None, *moved[2:])
    touched = ((neighbours == 7) | (neighbours == 9)).any(0)
    assert not torch.isfinite(output.cpu()[touched]).all()
    assert torch.isfinite(output.cpu()[~touched]).all()


def test_permuted_rows_give_permuted_rows(backend: Any) -> None:
    features, weight, _, neighbours, reverse = random_problem(8, 24, dtype=torch.float32, inputs=300, outputs=280)
    order = torch.randperm(280, generator=torch.Generator().manual_seed(1))
    device = backend.device
    one = sparse_conv(features.to(device), weight.to(device), None, neighbours.to(device), reverse.to(device))
    place = order.argsort().int()
    moved = torch.where(reverse >= 0, place[reverse.clamp(min=0).long()], -1)
    other = sparse_conv(
        features.to(device), weight.to(device), None, neighbours[:, order].contiguous().to(device), moved.to(device)
    )
    assert torch.equal(one[order.to(device)], other)


def test_forward_mode(backend: Any) -> None:
    features, weight, bias, *maps = random_problem(4, 6, (1, 1, 2), groups=2, inputs=6, outputs=5)
    leaves = [t.to(backend.device).requires_grad_() for t in (features, weight, bias) if t is not None]
    maps = [m.to(backend.device) for m in maps]  # type: ignore[union-attr]

    def function(*arguments: Tensor) -> Tensor:
        return sparse_conv(*arguments, *maps, 2)  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True, fast_mode=True)


def test_a_mirrored_map_needs_no_reverse(backend: Any) -> None:
    """As of a submanifold convolution with an odd number of kernel elements, twice differentiable all the same."""
    sites = random_sites(20, (3, 4, 5), 1)
    _, *maps = reference.sparse_kernel_map(sites, (3, 4, 5), 1, (1, 3, 3), subm=True)
    neighbours, reverse = (m.to(backend.device) for m in maps)
    leaves = [random_values(20, 3), random_values(4, 1, 3, 3, 3, seed=1), random_values(4, seed=2)]
    leaves = [t.to(backend.device).requires_grad_() for t in leaves]
    results = []
    for back in (None, reverse):
        output = sparse_conv(*leaves, neighbours, back)
        first = torch.autograd.grad(output.square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
        results.append((output, *first, *second))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    features = leaves[0].detach()
    (gradient,) = torch.autograd.grad(sparse_conv(*leaves, neighbours, None).sum(), leaves[0])
    transformed = torch.func.grad(lambda f: sparse_conv(f, *leaves[1:], neighbours, None).sum())(features)
    torch.testing.assert_close(transformed, gradient)


def test_function_transforms(backend: Any) -> None:
    features, weight, bias, *maps = (t.to(backend.device) for t in random_problem(3, 4) if t is not None)
    stacked = torch.stack([features, 2 * features])
    expected = torch.stack([sparse_conv(f, weight, bias, *maps) for f in stacked])  # type: ignore[call-arg,arg-type]
    assert torch.equal(torch.vmap(lambda f: sparse_conv(f, weight, bias, *maps))(stacked), expected)  # type: ignore[call-arg,arg-type]
    leaf = weight.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(sparse_conv(features, leaf, bias, *maps).square().sum(), leaf)  # type: ignore[call-arg,arg-type]
    functional_gradient = torch.func.grad(lambda w: sparse_conv(features, w, bias, *maps).square().sum())(weight)  # type: ignore[call-arg,arg-type]
    torch.testing.assert_close(functional_gradient, gradient, rtol=1e-12, atol=1e-12)


def test_neighbours_outside_the_features(backend: Any) -> None:
    features, weight, bias, neighbours, reverse = (t.to(backend.device) for t in random_problem(4, 6) if t is not None)
    wrong = neighbours.clone()
    wrong[2, 7], wrong[1, 3] = 50, -(2**31)
    if not backend.is_cuda:
        with pytest.raises(ValueError, match="neighbours must be rows of the features, below 50"):
            sparse_conv(features, weight, bias, wrong, reverse)
        return
    right = neighbours.clone()
    right[2, 7] = right[1, 3] = -1
    assert torch.equal(
        sparse_conv(features, weight, bias, wrong, reverse), sparse_conv(features, weight, bias, right, reverse)
    )


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_shape_equals_the_reference(backend: Any, data: st.DataObject) -> None:
    draw = data.draw
    groups = draw(st.integers(1, 3))
    problem = random_problem(
        groups * draw(st.integers(1, 20)),
        groups * draw(st.integers(1, 40)),
        (draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 4))),
        groups,
        draw(st.integers(1, 100)),
        draw(st.integers(1, 100)),
        seed=draw(st.integers(0, 100)),
    )
    assert_equals_reference(problem, groups, backend.device)


def test_gradients_that_need_the_reverse(backend: Any) -> None:
    """Without its rows there is the output and the gradient of the weight, and an error in place of a wrong one."""
    sites = torch.tensor([[0, 0, 0, i] for i in range(6)], dtype=torch.int32)
    _, neighbours, reverse = reference.sparse_kernel_map(sites, (1, 1, 6), 1, (1, 1, 3), 2, (0, 0, 1))
    features, weight = torch.rand(6, 4), torch.rand(5, 1, 1, 3, 4)
    features, weight, neighbours, reverse = (t.to(backend.device) for t in (features, weight, neighbours, reverse))
    weight.requires_grad_()
    output, expected = (sparse_conv(features, weight, None, neighbours, r) for r in (reverse[:0], reverse))
    assert torch.equal(output, expected)
    assert torch.equal(*(torch.autograd.grad(y.square().sum(), weight)[0] for y in (output, expected)))
    features.requires_grad_()
    output = sparse_conv(features, weight, None, neighbours, reverse[:0])
    with pytest.raises(ValueError, match=r"reverse must be the map seen from the input .*, got \(0, 6\)"):
        output.sum().backward()
    with pytest.raises(ValueError, match=r"reverse must have shape \(0, N\) = \(0, 6\), got \(0, 5\)"):
        sparse_conv(features, weight, None, neighbours, reverse[:0, :5])

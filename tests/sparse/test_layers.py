"""The sparse layers against dense convolution and pooling in float64.

The oracle knows nothing of fastcv: it scatters the sites into a grid, lets torch convolve or pool that, and masks.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from fastcv import sparse

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}

quick = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)


def random_sites(shape: tuple[int, ...], batch: int, fill: float, seed: int) -> Tensor:
    """Distinct sites in random order: (N, 1 + D)."""
    generator = torch.Generator().manual_seed(seed)
    sites = (torch.rand(batch, *shape, generator=generator) < fill).nonzero().int()
    return sites[torch.randperm(len(sites), generator=generator)]


def random_values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scatter(values: Tensor, indices: Tensor, shape: Any, batch: int, fill: float = 0.0) -> Tensor:
    """Write rows (N, C) into a grid (B, C, *shape)."""
    grid = torch.full((batch, values.shape[1], *shape), fill, dtype=values.dtype)
    index = indices.long().unbind(1)
    return grid.movedim(1, -1).index_put(index, values).movedim(-1, 1)


def gather(grid: Tensor, indices: Tensor) -> Tensor:
    return grid.movedim(1, -1)[indices.long().unbind(1)]


def meant(layer: Any) -> Tensor:
    """The weight as the layer reads it: with one kernel element, the numbers of each group are (C_in, C_out)."""
    weight: Tensor = layer.weight
    if not layer.conv1x1:
        return weight
    groups = weight.reshape(layer.groups, weight.shape[-1], -1).transpose(1, 2)
    return groups.reshape(weight.shape)


def first_channel_last(weight: Tensor) -> Tensor:
    """(C_out, *kernel, C_in) as torch wants it: (C_out, C_in, *kernel)."""
    return weight.movedim(-1, 1)


def transposed_weight(weight: Tensor, groups: int) -> Tensor:
    """(C_out, *kernel, C_in / groups) as torch wants it: (C_in, C_out / groups, *kernel)."""
    split = weight.unflatten(0, (groups, -1))  # group, C_out, *kernel, C_in
    return split.movedim(-1, 1).flatten(0, 1)


def reached(indices: Tensor, shape: Any, batch: int, convolve: Any) -> Tensor:
    """The sorted sites that ones of the kernel's shape reach."""
    occupied = scatter(torch.ones(len(indices), 1, dtype=torch.float64), indices, shape, batch)
    return (convolve(occupied)[:, 0] > 0.5).nonzero().int()


def compare(layer: Any, sites: Tensor, shape: Any, batch: int, oracle: Any, expected_sites: Tensor) -> None:
    """Values, sites and gradients of a layer against ``oracle(grid) -> grid``."""
    channels = layer.in_channels if hasattr(layer, "in_channels") else 3
    features = random_values(len(sites), channels, seed=5).requires_grad_()
    x = sparse.SparseConvTensor(features, sites, shape, batch)
    y = layer(x)
    expected = gather(oracle(scatter(features, sites, shape, batch)), expected_sites)
    assert torch.equal(y.indices, expected_sites)
    torch.testing.assert_close(y.features, expected, rtol=1e-10, atol=1e-10)
    leaves = [features, *layer.parameters()]
    upstream = random_values(*expected.shape, seed=6)
    actual_grads = torch.autograd.grad(y.features, leaves, upstream)
    expected_grads = torch.autograd.grad(expected, leaves, upstream)
    for actual, wanted in zip(actual_grads, expected_grads, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-9, atol=1e-9)


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    ndim = draw(st.integers(1, 3))
    longest = {1: 20, 2: 9, 3: 7}[ndim]

    def axes(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(ndim))

    groups = draw(st.sampled_from([1, 1, 2, 3]))
    problem = {
        "ndim": ndim,
        "shape": axes(1, longest),
        "kernel": axes(1, 5 if ndim < 3 else 4),
        "stride": axes(1, 3),
        "padding": axes(0, 2),
        "dilation": axes(1, 3 if ndim < 3 else 2),
        "groups": groups,
        "channels": (groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 3))),
        "bias": draw(st.booleans()),
        "batch": draw(st.integers(1, 3)),
    }
    fill = draw(st.sampled_from([0.0, 0.1, 0.4, 1.0]))
    problem["sites"] = random_sites(problem["shape"], problem["batch"], fill, draw(st.integers(0, 99)))
    return problem


def build(kind: str, problem: dict[str, Any], **options: Any) -> Any:
    return getattr(sparse, f"{kind}{problem['ndim']}d")(
        *problem["channels"],
        problem["kernel"],
        dilation=problem["dilation"],
        groups=problem["groups"],
        bias=problem["bias"],
        dtype=torch.float64,
        **options,
    )


@given(problem=problems())
@quick
def test_strided(backend: Any, problem: dict[str, Any]) -> None:
    layer = build("SparseConv", problem, stride=problem["stride"], padding=problem["padding"])
    shape, options = problem["shape"], (problem["stride"], problem["padding"], problem["dilation"])
    reach = [d * (k - 1) + 1 for d, k in zip(problem["dilation"], problem["kernel"], strict=True)]
    assume(all(i + 2 * p >= r for i, p, r in zip(shape, problem["padding"], reach, strict=True)))
    convolve = CONV[problem["ndim"]]
    ones = torch.ones(1, 1, *problem["kernel"], dtype=torch.float64)
    sites = reached(problem["sites"], shape, problem["batch"], lambda grid: convolve(grid, ones, None, *options))
    if layer.conv1x1:
        sites = problem["sites"]  # nothing moves: the caller's order stays
    compare(
        layer,
        problem["sites"],
        shape,
        problem["batch"],
        lambda grid: convolve(grid, first_channel_last(meant(layer)), layer.bias, *options, problem["groups"]),
        sites,
    )


@given(problem=problems(), extra=st.integers(0, 2))
@quick
def test_transposed(backend: Any, problem: dict[str, Any], extra: int) -> None:
    ndim, stride, dilation = problem["ndim"], problem["stride"], problem["dilation"]
    output_padding = tuple(min(extra, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True))
    options = (stride, problem["padding"], output_padding)
    layer = build(
        "SparseConvTranspose", problem, stride=stride, padding=problem["padding"], output_padding=output_padding
    )
    sizes = zip(problem["shape"], stride, problem["padding"], dilation, problem["kernel"], output_padding, strict=True)
    assume(all((i - 1) * s - 2 * p + d * (k - 1) + e + 1 >= 1 for i, s, p, d, k, e in sizes))
    convolve = CONV_TRANSPOSE[ndim]
    ones = torch.ones(1, 1, *problem["kernel"], dtype=torch.float64)
    sites = reached(
        problem["sites"],
        problem["shape"],
        problem["batch"],
        lambda grid: convolve(grid, ones, None, *options, 1, dilation),
    )
    if layer.conv1x1:
        sites = problem["sites"]
    compare(
        layer,
        problem["sites"],
        problem["shape"],
        problem["batch"],
        lambda grid: convolve(
            grid, transposed_weight(meant(layer), problem["groups"]), layer.bias, *options, problem["groups"], dilation
        ),
        sites,
    )


@given(problem=problems())
@quick
def test_submanifold(backend: Any, problem: dict[str, Any]) -> None:
    layer = build("SubMConv", problem, stride=problem["stride"], padding=problem["padding"])  # these do not count
    centred = tuple(k // 2 * d for k, d in zip(problem["kernel"], problem["dilation"], strict=True))
    compare(
        layer,
        problem["sites"],
        problem["shape"],
        problem["batch"],
        lambda grid: CONV[problem["ndim"]](
            grid, first_channel_last(meant(layer)), layer.bias, 1, centred, problem["dilation"], problem["groups"]
        ),
        problem["sites"],
    )


@given(problem=problems())
@quick
def test_inverse(backend: Any, problem: dict[str, Any]) -> None:
    """Back on the sites of before: the transposed convolution, seen there."""
    ndim, shape, batch = problem["ndim"], problem["shape"], problem["batch"]
    geometry = (problem["stride"], problem["padding"])
    reach = [d * (k - 1) + 1 for d, k in zip(problem["dilation"], problem["kernel"], strict=True)]
    assume(all(i + 2 * p >= r for i, p, r in zip(shape, problem["padding"], reach, strict=True)))
    down = build("SparseConv", problem, stride=geometry[0], padding=geometry[1], indice_key="down")
    up = getattr(sparse, f"SparseInverseConv{ndim}d")(
        problem["channels"][1],
        problem["channels"][0],
        problem["kernel"],
        "down",
        groups=problem["groups"],
        dtype=torch.float64,
    )
    assume(not up.conv1x1)  # which undoes nothing
    features = random_values(len(problem["sites"]), problem["channels"][0])
    middle = down(sparse.SparseConvTensor(features, problem["sites"], shape, batch))
    leaf = random_values(*middle.features.shape, seed=2).requires_grad_()
    output = up(middle.replace_feature(leaf))
    assert output.indices is problem["sites"]
    assert output.spatial_shape == list(shape)
    grid = scatter(leaf, middle.indices, middle.spatial_shape, batch)
    # A transposed convolution leaves out the last input sites that no output site reads.
    grid = CONV_TRANSPOSE[ndim](
        grid,
        transposed_weight(up.weight, problem["groups"]),
        up.bias,
        problem["stride"],
        0,
        0,
        problem["groups"],
        problem["dilation"],
    )
    wide = [p + i for p, i in zip(problem["padding"], shape, strict=True)]
    missing = [max(w - g, 0) for w, g in zip(wide, grid.shape[2:], strict=True)]
    pads = [pad for size in reversed(missing) for pad in (0, size)]
    beyond = torch.ones_like(grid[:1, :1])
    grid, beyond = F.pad(grid, pads), F.pad(beyond, pads)
    grid = torch.where(beyond > 0, grid, up.bias.reshape(1, -1, *(1,) * ndim))
    shifted = problem["sites"] + torch.tensor([0, *problem["padding"]], dtype=torch.int32)
    expected = gather(grid, shifted)
    torch.testing.assert_close(output.features, expected, rtol=1e-10, atol=1e-10)
    upstream = random_values(*expected.shape, seed=6)
    for actual, wanted in zip(
        torch.autograd.grad(output.features, [leaf, up.weight, up.bias], upstream),
        torch.autograd.grad(expected, [leaf, up.weight, up.bias], upstream),
        strict=True,
    ):
        torch.testing.assert_close(actual, wanted, rtol=1e-9, atol=1e-9)


@given(problem=problems(), average=st.booleans())
@quick
def test_pooling(backend: Any, problem: dict[str, Any], average: bool) -> None:
    ndim, shape, batch, sites = problem["ndim"], problem["shape"], problem["batch"], problem["sites"]
    kernel, stride, dilation = problem["kernel"], problem["stride"], problem["dilation"]
    padding = tuple(min(p, k // 2) for p, k in zip(problem["padding"], kernel, strict=True))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    assume(all(i + 2 * p >= r for i, p, r in zip(shape, padding, reach, strict=True)))
    ones = torch.ones(1, 1, *kernel, dtype=torch.float64)

    def count(grid: Tensor) -> Tensor:
        channels = grid.shape[1]
        weight = ones.expand(channels, -1, *(-1,) * ndim)
        return CONV[ndim](grid, weight, None, stride, padding, dilation, channels)

    expected_sites = reached(sites, shape, batch, count)
    if math.prod(kernel) == 1 and set(stride) == {1} and not any(padding):
        expected_sites = sites
    kind = "Avg" if average else "Max"
    layer = getattr(sparse, f"Sparse{kind}Pool{ndim}d")(kernel, stride, padding, dilation)
    features = random_values(len(sites), 3, seed=5).sub(9).requires_grad_()  # all negative: no site is a zero
    y = layer(sparse.SparseConvTensor(features, sites, shape, batch))
    if average:
        occupied = scatter(torch.ones_like(features), sites, shape, batch)
        expected = count(scatter(features, sites, shape, batch)) / count(occupied).clamp(min=1)
    else:
        grid = scatter(features, sites, shape, batch, -math.inf)
        expected = MAX_POOL[ndim](grid, kernel, stride, padding, dilation)
    expected = gather(expected, expected_sites)
    assert torch.equal(y.indices, expected_sites)
    torch.testing.assert_close(y.features, expected, rtol=1e-12, atol=1e-12)
    upstream = random_values(*expected.shape, seed=6)
    torch.testing.assert_close(
        torch.autograd.grad(y.features, features, upstream)[0],
        torch.autograd.grad(expected, features, upstream)[0],
        rtol=1e-12,
        atol=1e-12,
    )


@pytest.mark.parametrize("kind", ["Max", "Avg"])
@pytest.mark.parametrize("count", [0, 1, 300, 2000])
def test_global_pooling(backend: Any, kind: str, count: int) -> None:
    sites = random_sites((20, 15, 12), 3, 1.0, 1)
    sites = sites[sites[:, 0] != 1][:count]  # the second grid is empty
    features = random_values(count, 5, seed=3).sub(9).requires_grad_()
    pooled = getattr(sparse, f"SparseGlobal{kind}Pool")()(sparse.SparseConvTensor(features, sites, (20, 15, 12), 3))
    rows = [features[sites[:, 0] == b] for b in range(3)]
    reduce = (lambda r: r.amax(0)) if kind == "Max" else (lambda r: r.mean(0))
    expected = torch.stack([reduce(r) if len(r) else r.sum(0) for r in rows])
    torch.testing.assert_close(pooled, expected, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(pooled.square().sum(), features)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.square().sum(), features)[0])

"""Transposed convolution against the reference and torch.nn.functional, on every backend."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conv_problems import OPS, TOLERANCE, TORCH, check, distance, random
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import reference
from fastcv.ops import conv_transpose1d, conv_transpose2d, conv_transpose_matrix

HAS_BF16_PAIRS = True
CONVOLUTION = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_values_and_gradients_equal_the_reference(backend: Any, dims: int, activation: str | None) -> None:
    input, weight, bias = random(2, 6, *(5, 4, 3)[:dims]), random(6, 2, *(3, 4, 2)[:dims], seed=1), random(4, seed=2)
    for stride, padding, extra, dilation in itertools.product((1, 2), (0, 1), (0, 1), (1, 2)):
        if extra >= max(stride, dilation) or (padding == 1 and dims == 3 and stride == 1):
            continue
        if backend.is_emulated and (stride, padding, extra) != (2, 1, 1):
            continue  # it is slow
        options = {"stride": stride, "padding": padding, "output_padding": extra, "groups": 2, "dilation": dilation}
        options["activation"] = activation
        check(backend, input, weight, bias, options, reference.conv_transpose)


def check_any_geometry(backend: Any, draw: Any) -> None:
    dims = draw(st.integers(1, 3))
    axis = st.integers(1, (30, 12, 5)[dims - 1])
    sizes = [draw(axis) for _ in range(dims)]
    kernel = [draw(st.integers(1, 4)) for _ in range(dims)]
    stride = [draw(st.integers(1, 4)) for _ in range(dims)]
    dilation = [draw(st.integers(1, 3)) for _ in range(dims)]
    extra = [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)]
    full = [(sizes[i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + extra[i] + 1 for i in range(dims)]
    padding = [draw(st.integers(0, min(3, (size - 1) // 2))) for size in full]
    groups = draw(st.integers(1, 3))
    in_channels, out_channels = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    input = random(draw(st.integers(1, 3)), groups * in_channels, *sizes)
    weight = random(groups * in_channels, out_channels, *kernel, seed=1)
    bias = random(groups * out_channels, seed=2) if draw(st.booleans()) else None
    options = {
        "stride": stride, "padding": padding, "output_padding": extra, "groups": groups, "dilation": dilation,
    }  # fmt: skip
    check(backend, input, weight, bias, options, TORCH[dims])


def examples(count: int) -> settings:
    return settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@examples(50)
@given(data=st.data())
def test_any_geometry_equals_torch(backend: Any, data: st.DataObject) -> None:
    if backend.is_emulated:
        pytest.skip("fewer examples in the emulator, below")
    check_any_geometry(backend, data.draw)


@examples(6)
@given(data=st.data())
def test_a_few_geometries_equal_torch(backend: Any, data: st.DataObject) -> None:
    check_any_geometry(backend, data.draw)


CHANNELS = [(1, 1), (3, 5), (16, 16), (31, 33), (32, 65), (65, 31), (130, 8)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", CHANNELS)
def test_dtypes_layouts_and_channel_counts(
    backend: Any, dtype: torch.dtype, channels_last: bool, channels: tuple[int, int]
) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    if backend.is_emulated and channels not in ((3, 5), (16, 16), (32, 65)):
        pytest.skip("slow in the emulator")
    for kernel, stride, padding, width in ((2, 2, 0, 17), (4, 2, 1, 6)):
        input = random(2, channels[0], 5, width, dtype=dtype)
        weight = random(channels[0], channels[1], kernel, kernel, seed=1, dtype=dtype)
        bias = random(channels[1], seed=2, dtype=dtype)
        leaves = [t.double().requires_grad_() for t in (input, weight, bias)]
        expected = TORCH[2](*leaves, stride=stride, padding=padding).relu()
        moved = [t.to(backend.device).requires_grad_() for t in (input.to(memory_format=layout), weight, bias)]
        actual = conv_transpose2d(*moved, stride=stride, padding=padding, activation="relu")
        assert actual.dtype is dtype
        assert actual.is_contiguous(memory_format=layout)
        assert distance(actual.detach(), expected.detach()) <= TOLERANCE[dtype]
        # The mask of the ReLU is taken from the rounded result, so that no gradient hangs on the last bit.
        seed = random(*expected.shape, seed=3, dtype=dtype).to(memory_format=layout)
        masked = seed.double() * (actual.cpu() > 0)
        linear = TORCH[2](*leaves, stride=stride, padding=padding)
        expected_gradients = torch.autograd.grad(linear, leaves, masked)
        gradients = torch.autograd.grad(actual, moved, seed.to(backend.device))
        for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
            assert gradient.dtype is dtype
            assert distance(gradient, expected_gradient) <= 2 * TOLERANCE[dtype]


# Sizes around the tiles of the CPU kernels, (input, weight, stride, padding, output padding): panels of pixels that
# cross rows and images, more products than one pass takes, kernels of 1 and 3, and phases in pairs, with the first or
# the last pixel of a pair beyond the border.
TILES: dict[str, tuple[tuple[int, ...], tuple[int, ...], int, int | tuple[int, int], int | tuple[int, int]]] = {
    "pixels": ((5, 20, 7, 7), (20, 70, 2, 2), 2, 0, 0),
    "passes": ((1, 530, 3, 9), (530, 9, 2, 2), 2, 0, 0),
    "pointwise": ((2, 6, 5, 50), (6, 65, 1, 1), 1, 0, 0),
    "threes": ((2, 6, 5, 17), (6, 5, 3, 3), 3, 0, 0),
    "one pixel": ((3, 4, 1, 1), (4, 1, 2, 2), 2, 0, 0),
    "pairs": ((2, 16, 3, 131), (16, 32, 4, 4), 2, 1, 0),
    "pairs, one more": ((1, 16, 3, 40), (16, 32, 4, 4), 2, 1, 1),
    "even pairs": ((1, 16, 3, 40), (16, 32, 3, 6), 2, (0, 2), (0, 1)),
    "pairs in passes": ((1, 300, 2, 30), (300, 32, 4, 4), 2, (0, 3), 0),
    "narrow pairs": ((1, 16, 3, 40), (16, 8, 4, 4), 2, 1, 0),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tile", TILES)
def test_sizes_around_tiles(backend: Any, tile: str, dtype: torch.dtype) -> None:
    if backend.is_emulated and tile not in ("threes", "one pixel"):
        pytest.skip("tiles of the CPU kernels, slow in the emulator")
    shape, kernel, stride, padding, extra = TILES[tile]
    input, weight = random(*shape, dtype=dtype), random(*kernel, seed=1, dtype=dtype)
    bias = random(kernel[1], seed=2, dtype=dtype)
    for used in (bias, None):
        wide = None if used is None else used.double()
        expected = F.conv_transpose2d(input.double(), weight.double(), wide, stride, padding, extra)
        moved = None if used is None else used.to(backend.device)
        results = []
        for layout in (torch.contiguous_format, torch.channels_last):
            arguments = (input.to(backend.device, memory_format=layout), weight.to(backend.device), moved)
            results.append(conv_transpose2d(*arguments, stride, padding, extra))
            assert distance(results[-1], expected) <= TOLERANCE[dtype]
            rectified = conv_transpose2d(*arguments, stride, padding, extra, activation="relu")
            assert torch.equal(rectified, results[-1].relu())
        if results[0].is_cpu and not backend.is_emulated:
            assert torch.equal(*results)  # sums have one order, whatever the layout


def test_float32_error_grows_with_the_reduction_only(backend: Any) -> None:
    input, weight = random(1, 600, 3, 4, dtype=torch.float32), random(600, 8, 3, 3, seed=1, dtype=torch.float32)
    expected = TORCH[2](input.double(), weight.double(), stride=1, padding=1)
    bound = TORCH[2](input.double().abs(), weight.double().abs(), stride=1, padding=1)
    actual = conv_transpose2d(input.to(backend.device), weight.to(backend.device), stride=1, padding=1)
    assert ((actual.cpu().double() - expected).abs() <= 1e-4 / 600 * bound * 10).all()


@pytest.mark.parametrize("size", [1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 95, 96, 97, 200])
def test_sizes_around_the_edges_of_tiles(backend: Any, size: int) -> None:
    if backend.is_emulated and size not in (1, 63, 65):
        pytest.skip("slow in the emulator")
    options = {"stride": (2, 3), "padding": (0, 1)}
    channels = (7, 9) if backend.is_emulated else (5, min(size, 80))
    input, weight = random(1, channels[0], 2, size), random(channels[0], channels[1], 2, 4, seed=1)
    check(backend, input, weight, None, options, TORCH[2])
    input, weight = random(2, size, 2, 3), random(size, 3, 1, 2, seed=1)
    check(backend, input, weight, random(3, seed=2), {"stride": 2}, TORCH[2])


def test_strides_and_kernels_larger_than_the_output(backend: Any) -> None:
    for options, kernel in (
        ({"stride": 50, "output_padding": 49}, 2),
        ({"stride": 7, "padding": 3}, 9),
        ({"dilation": 20, "padding": 9}, 3),
        ({"stride": 5}, 1),  # phases without taps are bias only
        ({"stride": 1, "padding": 4}, 9),
    ):
        check(backend, random(2, 3, 2, 1), random(3, 4, kernel, kernel, seed=1), random(4, seed=2), options, TORCH[2])


def test_strides_far_beyond_the_kernel(backend: Any) -> None:
    """The last site of the input has few of its phases in the output; nothing may be written behind them."""
    stride = 2_000 if backend.is_emulated else 196_615
    check(backend, random(1, 1, 3), random(1, 1, 4, seed=1), None, {"stride": stride}, TORCH[1])


def test_many_taps(backend: Any) -> None:
    """More taps than one pass of the matrix kernel takes."""
    check(backend, random(1, 1, 3), random(1, 2, 1100, seed=1), None, {"padding": 540}, TORCH[1])


def test_strided_arguments(backend: Any) -> None:
    wide = random(4, 24, 20, 22).to(backend.device)
    weight = random(6, 7, 3, 2, seed=1).to(backend.device)
    views = {
        "sliced": wide[1:3, 2:8, 3:15, 5:20],
        "every second": wide[::2, :12:2, ::2, ::2],
        "transposed": wide.transpose(2, 3)[:2, :6],
        "expanded": wide[:1, :1].expand(2, 6, 20, 22),
        "channels_last slice": wide.to(memory_format=torch.channels_last)[:2, 3:9],
    }
    for name, view in views.items():
        expected = conv_transpose2d(view.contiguous(), weight, stride=2)
        assert torch.equal(conv_transpose2d(view, weight, stride=2), expected), name
    kernel = random(2, 3, 7, 6, seed=1).to(backend.device).permute(3, 2, 1, 0)  # (6, 7, 3, 2)
    view = wide[:2, :6]
    expected = conv_transpose2d(view.contiguous(), kernel.contiguous(), random(14).to(backend.device)[::2])
    assert torch.equal(conv_transpose2d(view, kernel, random(14).to(backend.device)[::2]), expected)
    output = conv_transpose2d(view.detach().requires_grad_(), weight)
    assert output.grad_fn is not None


def test_strided_gradient(backend: Any) -> None:
    input, weight = random(2, 3, 4, 5).to(backend.device), random(3, 4, 2, 2, seed=1).to(backend.device)
    input.requires_grad_()
    weight.requires_grad_()
    output = conv_transpose2d(input, weight, stride=2)
    for seed in (torch.ones((), device=backend.device).double().expand(output.shape), output.detach().mT.clone().mT):
        actual = torch.autograd.grad(output, (input, weight), seed, retain_graph=True)
        expected = torch.autograd.grad(output, (input, weight), seed.contiguous(), retain_graph=True)
        for a, e in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, e, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "kernel"),
    [
        ((0, 3, 4, 5), (3, 2, 2, 2)),
        ((2, 3, 0, 5), (3, 2, 3, 2)),
        ((2, 0, 4, 5), (0, 2, 2, 2)),
        ((2, 3, 4, 5), (3, 0, 2, 2)),
    ],
)
def test_empty(backend: Any, shape: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    input = torch.zeros(shape, device=backend.device, requires_grad=True)
    weight = torch.zeros(kernel, device=backend.device, requires_grad=True)
    bias = torch.ones(kernel[1], device=backend.device, requires_grad=True)
    output = conv_transpose2d(input, weight, bias)
    assert output.shape == (shape[0], kernel[1], shape[2] + kernel[2] - 1, shape[3] + kernel[3] - 1)
    assert torch.equal(output, torch.ones_like(output))
    gradients = torch.autograd.grad(output.sum(), (input, weight, bias))
    for gradient, leaf in zip(gradients, (input, weight, bias), strict=True):
        assert gradient.shape == leaf.shape
    assert not gradients[1].any()


def test_without_a_batch(backend: Any) -> None:
    for dims, op in OPS.items():
        input, weight = random(1, 2, *[3] * dims).to(backend.device), random(2, 3, *[2] * dims, seed=1)
        weight = weight.to(backend.device)
        assert torch.equal(op(input[0], weight, stride=2), op(input, weight, stride=2)[0])


def test_not_finite(backend: Any) -> None:
    input = random(1, 2, 3, 4).to(backend.device)
    input[0, 1, 1, 2] = float("nan")
    output = conv_transpose2d(input, random(2, 3, 2, 2, seed=1).to(backend.device), stride=2, activation="relu")
    bad = output.isnan()
    assert bad[:, :, 2:4, 4:6].all()
    assert bad.sum() == 3 * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_on_every_run_and_thread_count(backend: Any, dtype: torch.dtype) -> None:
    leaves = [
        random(*shape, dtype=dtype, seed=seed).to(backend.device).requires_grad_()
        for seed, shape in enumerate([(3, 40, 6, 7), (40, 24, 3, 3), (24,)])
    ]

    def run() -> list[Tensor]:
        output = conv_transpose2d(*leaves, stride=2, padding=1, activation="relu")
        return [output, *torch.autograd.grad(output.sum(), leaves)]

    threads = torch.get_num_threads()
    first = run()
    for count in (threads, 1, 2, 5):
        torch.set_num_threads(count)
        try:
            for again, once in zip(run(), first, strict=True):
                assert torch.equal(again, once)
        finally:
            torch.set_num_threads(threads)


@pytest.mark.parametrize("activation", [None, "relu"])
def test_gradcheck_twice(backend: Any, activation: str | None) -> None:
    leaves = [random(1, 2, 2, 3), random(2, 1, 2, 1, seed=1), random(2, seed=2)]
    leaves = [t.to(backend.device).requires_grad_() for t in leaves]

    def function(*tensors: Tensor) -> Tensor:
        return conv_transpose2d(*tensors, stride=(2, 1), padding=(1, 0), groups=2, activation=activation)

    assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


def test_third_derivative(backend: Any) -> None:
    leaves = [random(1, 2, 3), random(2, 2, 2, seed=1)]
    ours = [t.to(backend.device).requires_grad_() for t in leaves]
    theirs = [t.requires_grad_() for t in leaves]

    def chain(op: Any, input: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(op(input, weight, stride=2).pow(3).sum(), (input, weight), create_graph=True)
        second = torch.autograd.grad(sum(t.square().sum() for t in first), (input, weight), create_graph=True)
        return torch.autograd.grad(sum(t.square().sum() for t in second), (input, weight))

    for actual, expected in zip(chain(conv_transpose1d, *ours), chain(F.conv_transpose1d, *theirs), strict=True):
        torch.testing.assert_close(actual.cpu(), expected, rtol=1e-9, atol=1e-9)


def test_the_matrix_of_the_lecture(backend: Any) -> None:
    for stride, padding, size, n in itertools.product((1, 2, 3), (0, 1), (2, 3, 4), (1, 2, 5)):
        if (n - 1) * stride - 2 * padding + size < 1:
            continue
        weight = random(size, seed=size)
        matrix = conv_transpose_matrix(weight, stride, padding, n)
        signal = random(n, seed=5)
        spread = conv_transpose1d(
            signal[None, None].to(backend.device), weight[None, None].to(backend.device), stride=stride, padding=padding
        )
        torch.testing.assert_close(spread[0, 0].cpu(), matrix @ signal, rtol=1e-12, atol=1e-12)
        longer = random(matrix.shape[0], seed=6)
        convolved = F.conv1d(longer[None, None], weight[None, None], stride=stride, padding=padding)[0, 0]
        torch.testing.assert_close(matrix.T @ longer, convolved[:n], rtol=1e-12, atol=1e-12)


def test_the_transpose_of_the_convolution(backend: Any) -> None:
    """<conv_transpose(x), y> = <x, conv(y)> for all x and y."""
    for dims in (1, 2, 3):
        input, weight = random(2, 4, *[4] * dims), random(4, 3, *[3] * dims, seed=1)
        output = OPS[dims](input.to(backend.device), weight.to(backend.device), stride=2, padding=1).cpu()
        other = random(*output.shape, seed=2)
        folded = CONVOLUTION[dims](other, weight, stride=2, padding=1)
        torch.testing.assert_close((output * other).sum(), (input * folded).sum(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dims", [1, 3])
def test_channels_last_in_other_dimensions(backend: Any, dims: int) -> None:
    input, weight = random(2, 5, *[3] * dims), random(5, 4, *[2] * dims, seed=1).to(backend.device)
    inner = input.movedim(1, -1).contiguous().movedim(-1, 1).to(backend.device)
    output = OPS[dims](inner, weight, stride=2)
    assert output.stride(1) == 1
    torch.testing.assert_close(output, OPS[dims](input.to(backend.device), weight, stride=2), rtol=1e-13, atol=1e-13)


def test_compile_and_vmap(backend: Any) -> None:
    weight, bias = random(3, 4, 3, 3, dtype=torch.float32), random(4, dtype=torch.float32)
    weight, bias = weight.to(backend.device), bias.to(backend.device)

    def function(input: Tensor) -> Tensor:
        return conv_transpose2d(input, weight, bias, stride=2, padding=1, output_padding=1, activation="relu")

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    for size in (5, 7):
        input = random(2, 3, size, 6, dtype=torch.float32).to(backend.device)
        leaf, eager = input.clone().requires_grad_(), input.clone().requires_grad_()
        output, expected = compiled(leaf), function(eager)
        assert torch.equal(output, expected)
        (gradient,) = torch.autograd.grad(output.square().sum(), leaf)
        (expected_gradient,) = torch.autograd.grad(expected.square().sum(), eager)
        torch.testing.assert_close(gradient, expected_gradient)
    stacked = random(3, 2, 3, 4, 5, dtype=torch.float32).to(backend.device)
    torch.testing.assert_close(torch.vmap(function)(stacked), torch.stack([function(x) for x in stacked]))
    assert function(torch.zeros(2, 3, 4, 5, device=backend.device)).shape == (2, 4, 8, 10)
    meta = conv_transpose2d(torch.zeros(2, 3, 4, 5, device="meta"), weight.to("meta"), stride=3)
    assert meta.shape == (2, 4, 12, 15)


def test_bad_matrices() -> None:
    with pytest.raises(ValueError, match=r"weight must have shape \(k,\), got \(2, 2\)"):
        conv_transpose_matrix(torch.zeros(2, 2), 1, 0, 3)
    with pytest.raises(ValueError, match="padding must leave an output"):
        conv_transpose_matrix(torch.zeros(2), 1, 5, 3)

"""conv2d against torch's in float64, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from fastcv import reference
from fastcv.nn import Conv2d
from fastcv.ops import conv2d

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)
HAS_BF16_PAIRS = True
# Of the largest result.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 6e-4, torch.bfloat16: 4e-3}
TILES = (2, 4, 6, 22)  # 22: of stride 2
TOLERANCE_OF_TILES = 3e-5
NAN, INF = float("nan"), float("inf")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(n: int, c: int, o: int, size: Any, kernel: Any, groups: int = 1, dtype: Any = torch.float32) -> Any:
    """Input, weight and bias, such that results are about as large as inputs."""
    height, width = size
    scale = (c // groups * kernel[0] * kernel[1]) ** -0.5
    weight = random(o, c // groups, *kernel, seed=1) * scale
    return [t.to(dtype) for t in (random(n, c, height, width), weight, random(o, seed=2))]


def assert_near(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """The largest error, of the largest result."""
    assert actual.shape == expected.shape
    if expected.numel() == 0:
        return
    error = (actual.double() - expected).abs().max().item()
    assert error <= tolerance * max(expected.abs().max().item(), 1e-3), error


def check(backend: Any, tensors: Any, tolerance: float, layout: Any = torch.contiguous_format, **options: Any) -> None:
    expected = reference.conv2d(*(t.double() for t in tensors), **options)
    input, weight, bias = (t.to(backend.device) for t in tensors)
    input = input.contiguous(memory_format=layout)
    # Where torch computes, without oneDNN: torch 2.14 crashes in it where a row of results sees nothing but padding.
    with torch.backends.mkldnn.flags(enabled=not backend.is_emulated):
        actual = conv2d(input, weight, bias, **options)
    assert actual.dtype == input.dtype
    if not (input.is_contiguous() and input.is_contiguous(memory_format=torch.channels_last)):  # it could be either
        assert actual.is_contiguous(memory_format=layout)
    assert_near(actual.cpu(), expected, tolerance)


GEOMETRIES = {
    "1x1": ((1, 1), {}),
    "1x1 s2": ((1, 1), {"stride": 2}),
    "3x3 p1": ((3, 3), {"padding": 1}),
    "3x3 s2 p1": ((3, 3), {"stride": 2, "padding": 1}),
    "3x3 d2 p2": ((3, 3), {"dilation": 2, "padding": 2}),
    "3x3 d(2,1) s(1,2)": ((3, 3), {"dilation": (2, 1), "stride": (1, 2)}),
    "7x7 s2 p3": ((7, 7), {"stride": 2, "padding": 3}),
    "2x4 same": ((2, 4), {"padding": "same"}),
    "4x3 same d2": ((4, 3), {"padding": "same", "dilation": (2, 3)}),
    "1x5 valid": ((1, 5), {"padding": "valid"}),
    "5x1 p(7,0)": ((5, 1), {"padding": (7, 0)}),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_geometries(backend: Any, geometry: str, dtype: torch.dtype) -> None:
    kernel, options = GEOMETRIES[geometry]
    for layout, (n, c, o, groups) in zip(
        LAYOUTS * 3,
        [(2, 3, 5, 1), (1, 19, 70, 1), (1, 6, 6, 6), (2, 37, 37, 37), (1, 12, 8, 4), (1, 5, 10, 5)],
        strict=True,
    ):
        tensors = problem(n, c, o, (9, 11), kernel, groups, dtype)
        check(backend, tensors, TOLERANCE[dtype], layout, groups=groups, exact=True, **options)


@pytest.mark.parametrize("channels", [(1, 1), (600, 3), (513, 96), (130, 130)])
def test_many_channels(backend: Any, channels: tuple[int, int]) -> None:
    """Sums in several pieces, panels of every width."""
    for kernel, options in (((1, 1), {}), ((3, 3), {"padding": 1}), ((2, 2), {"stride": 2})):
        check(backend, problem(1, *channels, (6, 8), kernel), 6e-6, exact=True, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu", "silu"])
def test_what_follows_the_sums(backend: Any, activation: str | None, layout: Any) -> None:
    shapes = [
        (problem(2, 24, 41, (9, 10), (3, 3)), {"padding": 1}),
        (problem(1, 18, 18, (7, 5), (3, 3), 18), {"groups": 18}),
    ]
    shapes.append((problem(1, 24, 20, (9, 10), (1, 1)), {}))
    for (input, weight, bias), options in shapes:
        expected = F.conv2d(input.double(), weight.double(), bias.double(), **options)
        residual = random(*expected.shape, seed=4).float()
        expected = reference.conv2d(
            torch.zeros(1, 1, 1, 1),
            torch.zeros(1, 1, 1, 1),
            residual=expected + residual,
            activation=activation,
            negative_slope=0.2,
        )
        given = [t.to(backend.device) for t in (input.contiguous(memory_format=layout), weight, bias, residual)]
        for exact in (True, False):
            actual = conv2d(
                *given[:3], residual=given[3], activation=activation, negative_slope=0.2, exact=exact, **options
            )
            assert_near(actual.cpu(), expected, TOLERANCE[torch.float32] if exact else TOLERANCE_OF_TILES)


def test_activations_of_all_sizes(backend: Any) -> None:
    """Also where the exponential of SiLU overflows, and of what is no number."""
    values = torch.cat(
        [torch.linspace(-120, 120, 4001), torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1e30, -1e30, INF, NAN])]
    )
    input = values.view(1, 1, 1, -1).to(backend.device)
    weight = torch.ones(1, 1, 1, 1, device=backend.device)
    for name in ("relu", "leaky_relu", "silu"):
        expected = reference.conv2d(input.double(), weight.double(), activation=name)
        actual = conv2d(input, weight, activation=name)
        torch.testing.assert_close(actual.double(), expected, rtol=1e-6, atol=1e-36, equal_nan=True)


@pytest.mark.parametrize("tile", TILES)
def test_tiles(backend: Any, tile: int) -> None:
    """Winograd on maps of all sizes around the borders of tiles, channels around those of vectors and panels."""
    if backend.is_cuda:
        pytest.skip("torch computes it")
    for i, size in enumerate(
        [(1, 1), (1, 9), (2, 3), (3, 4), (4, 4), (5, 8), (6, 7), (8, 9), (9, 5), (13, 13), (33, 17), (12, 6), (19, 18)]
    ):
        c, o = [(1, 1), (3, 16), (16, 33), (17, 48), (40, 65), (64, 100)][i % 6]
        for padding in (0, 1, 2):
            if min(size) + 2 * padding < 3:
                continue
            for n in (1, 3):
                tensors = problem(n, c, o, size, (3, 3))
                options = {"stride": stride_of(tile), "padding": padding, "activation": "relu"}
                expected = reference.conv2d(*(t.double() for t in tensors), **options)
                assert_near(tiled(tile, *tensors, padding), expected, TOLERANCE_OF_TILES)


def stride_of(tile: int) -> int:
    return 2 if tile == 22 else 1


def tiled(
    tile: int, input: Tensor, weight: Tensor, bias: Tensor, padding: int, activation: str | None = "relu"
) -> Tensor:
    """The convolution by tiles of that size, whatever the model of costs would take."""
    from fastcv.ops._call import COMPILED
    from fastcv.ops.conv2d import _conv2d

    packed = COMPILED["_C"].conv2d_pack(weight, 1, tile)
    around, ones, stride = (padding,) * 4, (1, 1), (stride_of(tile),) * 2
    result: Tensor = _conv2d(input, weight, bias, stride, around, ones, 1, None, activation, 0.0, False, packed)
    return result


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tiles_of_halves(backend: Any, dtype: torch.dtype) -> None:
    """They are summed in float32 and rounded once."""
    for layout in LAYOUTS:
        check(backend, problem(1, 64, 48, (21, 22), (3, 3), 1, dtype), TOLERANCE[dtype], layout, padding=1)


@pytest.mark.parametrize("tile", TILES)
def test_accuracy_of_tiles(backend: Any, tile: int) -> None:
    """The promise of the documentation: 1e-4 of the largest result at most; measured 1e-5, and 2e-5 of 6 x 6."""
    if backend.is_cuda:
        pytest.skip("torch computes it")
    for c, size in ((64, (40, 44)), (512, (13, 13))):
        input, weight, bias = problem(1, c, 64, size, (3, 3))
        expected = F.conv2d(input.double(), weight.double(), bias.double(), stride_of(tile), 1)
        input = input.contiguous(memory_format=torch.channels_last)
        assert_near(tiled(tile, input, weight, bias, 1, None), expected, TOLERANCE_OF_TILES * (1 + (tile == 6)))


@pytest.mark.parametrize("size", [(31, 50), (92, 100)])
@pytest.mark.parametrize("tile", TILES)
def test_tiles_on_any_number_of_threads(backend: Any, tile: int, size: tuple[int, int]) -> None:
    """Few tiles, whose panels threads share, and many."""
    if backend.is_cuda:
        pytest.skip("torch computes it")
    tensors, before, results = problem(1, 20, 70, size, (3, 3)), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(tiled(tile, *tensors, 1))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("tile", TILES)
def test_results_that_go_past_the_caches(backend: Any, tile: int) -> None:
    """Of 32 MiB and more, also where the last tiles are cut off and something is added."""
    if backend.is_cuda:
        pytest.skip("torch computes it")
    stride = stride_of(tile)
    input, weight, bias = problem(1, 3, 32, (515 * stride, 513 * stride), (3, 3))
    input = input.contiguous(memory_format=torch.channels_last)
    expected = F.conv2d(input.double(), weight.double(), bias.double(), stride, 1)
    assert_near(tiled(tile, input, weight, bias, 1, None), expected, TOLERANCE_OF_TILES)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("value", [INF, NAN])
def test_how_far_what_is_no_number_spreads(backend: Any, value: float, tile: int) -> None:
    """Directly to the results whose kernel covers it; with tiles to those that read it."""
    input, weight, bias = problem(1, 64, 64, (24, 28), (3, 3))
    given = [t.to(backend.device) for t in (input, weight, bias)]
    place = (9, 14)
    if not backend.is_cuda:
        clean = tiled(tile, *given, 1, None)
        given[0][0, 5, place[0], place[1]] = value
        actual = tiled(tile, *given, 1, None)
        touched = ~actual.isfinite().all(dim=1)[0]
        results, side, step = (2, 5, 4) if tile == 22 else (tile, tile + 2, tile)
        covered, allowed = (  # by the kernel; by what the tile reads
            [
                [first - 1 <= at < first - 1 + width for first in starts]
                for at, starts in zip(place, firsts, strict=True)
            ]
            for width, firsts in (
                (3, [[i * stride_of(tile) for i in range(count)] for count in clean.shape[2:]]),
                (side, [[i // results * step for i in range(count)] for count in clean.shape[2:]]),
            )
        )
        covered, allowed = (torch.tensor(rows)[:, None] & torch.tensor(columns) for rows, columns in (covered, allowed))
        assert touched[covered].all()
        assert not (touched & ~allowed).any()
        assert torch.equal(actual[:, :, ~allowed], clean[:, :, ~allowed])
    given[0][0, 5, place[0], place[1]] = value
    exactly = conv2d(*given, padding=1, exact=True).cpu()
    touched = ~exactly.isfinite().all(dim=1)[0]
    expected = torch.zeros_like(touched)
    expected[8:11, 13:16] = True
    assert torch.equal(touched, expected)


def test_views_of_any_strides(backend: Any) -> None:
    input, weight, bias = (t.to(backend.device) for t in problem(2, 32, 40, (10, 12), (3, 3)))
    expected = conv2d(input, weight, bias, padding=1)
    padded = torch.zeros(2, 64, 10, 30, device=backend.device)
    padded[:, ::2, :, 3:27:2] = input
    spread = torch.zeros(3, 3, 40, 64, device=backend.device)
    spread[..., ::2] = weight.permute(2, 3, 0, 1)
    wide = torch.stack([bias, bias], 1)[:, 0]
    view, kernel = padded[:, ::2, :, 3:27:2], spread[..., ::2].permute(2, 3, 0, 1)
    actual = conv2d(
        view, kernel, wide, padding=1, residual=torch.zeros(1, 1, 1, 1, device=backend.device).expand(2, 40, 10, 12)
    )
    assert torch.equal(actual, expected)
    assert torch.equal(conv2d(input.flip(3).flip(3), weight, bias, padding=1), expected)


def test_without_a_batch(backend: Any) -> None:
    input, weight, bias = (t.to(backend.device) for t in problem(1, 20, 24, (9, 9), (3, 3)))
    expected = conv2d(input, weight, bias, residual=torch.ones(1, 24, 7, 7, device=backend.device))
    actual = conv2d(input[0], weight, bias, residual=torch.ones(24, 7, 7, device=backend.device))
    assert torch.equal(actual, expected[0])


def test_a_batch_is_its_images(backend: Any) -> None:
    """To the bit: the blocks of the work do not show."""
    input, weight, bias = (t.to(backend.device) for t in problem(5, 33, 70, (11, 14), (3, 3)))
    for exact in (True, False):
        whole = conv2d(input, weight, bias, padding=1, exact=exact)
        single = torch.cat([conv2d(image[None], weight, bias, padding=1, exact=exact) for image in input])
        if not backend.is_cuda:
            assert torch.equal(whole, single)


def test_a_gradient_is_refused(backend: Any) -> None:
    input, weight, bias = (t.to(backend.device).requires_grad_() for t in problem(1, 4, 4, (5, 5), (3, 3)))
    result = conv2d(input, weight, bias)
    with pytest.raises(NotImplementedError, match="conv2d is for inference and has no gradient"):
        result.sum().backward()
    with torch.no_grad():
        assert torch.equal(conv2d(input, weight, bias), result)


def test_scratch_that_is_not_there(backend: Any) -> None:
    """Want of memory is a MemoryError, on whichever thread."""
    from fastcv.ops._call import COMPILED

    if backend.is_cuda:
        pytest.skip("torch allocates")
    input, weight, bias = problem(2, 64, 64, (24, 24), (3, 3))
    expected = conv2d(input, weight, bias, padding=1)
    for exact in (False, True):
        for count in range(3):
            COMPILED["_C"].fail_allocation_after(count)
            with pytest.raises(MemoryError, match="scratch"):
                conv2d(input, weight, bias, padding=1, exact=exact)
            COMPILED["_C"].fail_allocation_after(-1)
    assert torch.equal(conv2d(input, weight, bias, padding=1), expected)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_geometry(backend: Any, data: Any) -> None:
    draw = data.draw
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    c, o = (groups * draw(st.integers(1, 20)) for _ in range(2))
    kernel, stride, dilation, padding = (
        tuple(draw(st.integers(low, high)) for _ in range(2)) for low, high in ((1, 4), (1, 3), (1, 3), (0, 3))
    )
    size = tuple(
        draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), 14)) if d * (k - 1) + 1 - 2 * p <= 14 else 14
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    )
    tensors = problem(draw(st.integers(1, 3)), c, o, size, kernel, groups)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    check(backend, tensors, TOLERANCE_OF_TILES, draw(st.sampled_from(LAYOUTS)), **options)


def test_the_module_keeps_what_it_packs(backend: Any) -> None:
    input, *_ = problem(1, 32, 1, (20, 20), (1, 1))
    torch.manual_seed(0)
    module = Conv2d(32, 48, 3, padding=1, activation="relu").to(backend.device)
    input = input.to(backend.device)
    with torch.no_grad():
        plain = module(input)
    module.optimize()
    assert torch.equal(module(input), plain)
    assert torch.equal(module(input), plain)
    module.weight.data = module.weight.data  # the same tensor
    module.weight.mul_(2)
    module.bias.mul_(2)
    torch.testing.assert_close(module(input), 2 * plain)
    with pytest.raises(RuntimeError, match="an optimized convolution cannot be trained"):
        module.train()

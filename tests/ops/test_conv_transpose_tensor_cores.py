"""What conv_transpose computes on tensor cores: halves, and float32 where torch allows tf32.

The CPU kernels pass through the same tests: there tf32 must change nothing.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastcv.ops import conv_transpose1d, conv_transpose2d, conv_transpose3d

HAS_BF16_PAIRS = True
OPS = {1: conv_transpose1d, 2: conv_transpose2d, 3: conv_transpose3d}
TORCH = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
# Of the norm of the result: one rounding of the result, sums are kept in float32.
TOLERANCE = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 2e-6, torch.float64: 1e-14}


@pytest.fixture
def tf32(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def distance(actual: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    assert actual.shape == expected.shape
    return float((actual.double().cpu() - expected.double()).norm() / expected.double().norm().clamp(min=1e-30))


def rounded_to_tf32(values: Tensor) -> Tensor:
    """To 10 bits of mantissa, ties away from zero; float64 to add and to scale in without another rounding."""
    mantissa, exponent = torch.frexp(values.double())
    return torch.ldexp((mantissa.abs() * 2**11 + 0.5).floor() * mantissa.sign(), exponent - 11)


def run(op: Any, tensors: list[Tensor], grad: Tensor, options: dict[str, Any]) -> list[Tensor]:
    """The output, and the gradients to input and weight (and to the bias)."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    output = op(*leaves, **options)
    return [output.detach(), *torch.autograd.grad(output, leaves, grad)]


def problem(dims: int, channels: tuple[int, int, int], sizes: tuple[int, ...], kernel: int) -> tuple[Tensor, Tensor]:
    in_channels, out_channels, groups = channels
    return random(2, in_channels, *sizes), random(in_channels, out_channels // groups, *[kernel] * dims, seed=1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("channels", "geometry"), [((16, 16, 1), (2, 2, 0)), ((40, 72, 1), (3, 2, 1)), ((64, 32, 2), (3, 1, 1))]
)
def test_halves(
    backend: Any,
    dtype: torch.dtype,
    channels_last: bool,
    channels: tuple[int, int, int],
    geometry: tuple[int, int, int],
) -> None:
    kernel, stride, padding = geometry
    input, weight = (t.to(dtype) for t in problem(2, channels, (3, 12), kernel))
    if channels_last:
        input = input.to(memory_format=torch.channels_last)
    options = {"stride": stride, "padding": padding, "groups": channels[2]}
    grad = random(*TORCH[2](input.double(), weight.double(), **options).shape, seed=3, dtype=dtype)
    wanted = run(TORCH[2], [input.double(), weight.double()], grad.double(), options)
    moved = [t.to(backend.device) for t in (input, weight)]
    got = run(OPS[2], moved, grad.to(backend.device), options)
    assert got[0].is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    for one, other in zip(got, wanted, strict=True):
        assert one.dtype is dtype
        assert distance(one, other) <= TOLERANCE[dtype]


# Channels (in, out, groups), sizes, kernel: rows of 24, 28 and 26 pixels have packs of 8, 4 and 2.
SPREAD = {
    "packs of 8": ((40, 40, 1), (7, 12), (2, 2)),
    "packs of 4": ((72, 32, 1), (6, 14), (2, 2)),
    "packs of 2, groups": ((32, 96, 2), (7, 13), (2, 2)),
    "three by two": ((24, 24, 1), (9, 8), (3, 2)),
    "two by three": ((24, 24, 1), (9, 8), (2, 3)),
    "one dimension": ((16, 64, 1), (90,), (2,)),
    "three dimensions": ((16, 24, 1), (3, 4, 6), (2, 1, 2)),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("case", list(SPREAD))
def test_kernels_as_large_as_their_stride(
    backend: Any, tf32: None, case: str, channels_last: bool, dtype: torch.dtype
) -> None:
    """At least 128 pixels and 128 results for each have a kernel of their own, which gives the bits of the other."""
    if backend.is_emulated and dtype is torch.bfloat16 and case != "packs of 4":
        pytest.skip("float16 has the same code")
    (in_channels, out_channels, groups), sizes, kernel = SPREAD[case]
    dims = len(kernel)
    input = random(2, in_channels, *sizes, dtype=dtype)
    weight = random(in_channels, out_channels // groups, *kernel, seed=1, dtype=dtype)
    bias = random(out_channels, seed=2, dtype=dtype)
    if channels_last:
        input = input.movedim(1, -1).contiguous().movedim(-1, 1)
    options = {"stride": kernel, "groups": groups}
    near = [rounded_to_tf32(t) if dtype is torch.float32 and backend.is_cuda else t.double() for t in (input, weight)]
    wanted = TORCH[dims](*near, bias.double(), **options).relu()
    tensors = [t.to(backend.device) for t in (input, weight, bias)]
    got = OPS[dims](*tensors, activation="relu", **options)
    assert distance(got, wanted) <= TOLERANCE[dtype]
    apart = [OPS[dims](tensors[0][i : i + 1], *tensors[1:], activation="relu", **options) for i in range(2)]
    assert torch.equal(got, torch.cat(apart))


@pytest.mark.parametrize("dims", [1, 3])
def test_halves_in_one_and_three_dimensions(backend: Any, dims: int) -> None:
    input, weight = (t.half() for t in problem(dims, (16, 24, 1), (5, 4, 3)[:dims], 3))
    for layout in ("contiguous", "channels innermost"):
        if layout == "channels innermost":
            input = input.movedim(1, -1).contiguous().movedim(-1, 1)
        options = {"stride": 2, "padding": 1}
        grad = random(*TORCH[dims](input.double(), weight.double(), **options).shape, seed=3, dtype=torch.float16)
        wanted = run(TORCH[dims], [input.double(), weight.double()], grad.double(), options)
        moved = [t.to(backend.device) for t in (input, weight)]
        for one, other in zip(run(OPS[dims], moved, grad.to(backend.device), options), wanted, strict=True):
            assert distance(one, other) <= TOLERANCE[torch.float16]


@pytest.mark.parametrize(("channels", "kernel"), [((4, 4, 1), 4), ((36, 72, 1), 2), ((24, 16, 2), 3)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_tf32(backend: Any, tf32: None, channels_last: bool, channels: tuple[int, int, int], kernel: int) -> None:
    """Exactly the products of rounded operands, float32 sums; on the CPU those of the operands themselves."""
    input, weight = problem(2, channels, (3, 12), kernel)
    if channels_last:
        input = input.to(memory_format=torch.channels_last)
    options = {"stride": 2, "padding": (kernel - 1) // 2, "groups": channels[2]}
    grad = random(*TORCH[2](input, weight, **options).shape, seed=3)
    exact = run(TORCH[2], [input.double(), weight.double()], grad.double(), options)
    near = [rounded_to_tf32(t) for t in (input, weight, grad)] if backend.is_cuda else [input, weight, grad]
    wanted = run(TORCH[2], [t.double() for t in near[:2]], near[2].double(), options)
    got = run(OPS[2], [t.to(backend.device) for t in (input, weight)], grad.to(backend.device), options)
    for one, other, truth in zip(got, wanted, exact, strict=True):
        assert distance(one, other) <= TOLERANCE[torch.float32]
        assert distance(one, truth) <= 1e-3


def test_tf32_only_where_torch_allows_it(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    input, weight = random(1, 16, 2, 3).to(backend.device), random(16, 8, 1, 2, seed=1).to(backend.device)
    exact = TORCH[2](input.double().cpu(), weight.double().cpu())
    compiled = torch.compile(conv_transpose2d, fullgraph=True, backend="aot_eager")
    for op in (conv_transpose2d, compiled):
        for allowed in (True, False, True):  # read at each call, by compiled models too
            monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
            error = distance(op(input, weight), exact)
            assert (error > 1e-5) == (allowed and backend.is_cuda)
            assert error <= (1e-3 if allowed else 1e-6)
            assert distance(op(input.double(), weight.double()), exact) <= 1e-14
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    five = conv_transpose2d(input[:, :5], weight[:5])  # too few channels for copies of 16 bytes
    assert distance(five, TORCH[2](input[:, :5].double().cpu(), weight[:5].double().cpu())) <= 1e-6


def test_rounding_to_tf32(backend: Any, tf32: None) -> None:
    """Ties away from zero; overflow, infinities and NaN as they are."""
    step = 2.0**-10
    below = torch.nextafter(torch.tensor(1 + step / 2), torch.tensor(0.0)).item()
    values = [1 + step / 2, -1 - step / 2, below, 1 + step * 1.5, 1e-40, 0.0, 3.4028e38, float("inf"), float("nan")]
    expected = [1 + step, -1 - step, 1.0, 1 + 2 * step, 0.0, 0.0, float("inf"), float("inf"), float("nan")]
    input = torch.zeros(1, 4, 1, len(values))
    input[0, 0, 0] = torch.tensor(values)
    weight = torch.zeros(4, 4, 1, 1)
    weight[0, 0] = 1
    output = conv_transpose2d(input.to(backend.device), weight.to(backend.device))[0, 0, 0].cpu()
    wanted = torch.tensor(expected if backend.is_cuda else values)
    torch.testing.assert_close(output, wanted, rtol=0, atol=1e-39, equal_nan=True)


@pytest.mark.parametrize(("dtype", "channels"), [(torch.float64, 3), (torch.float16, 8), (torch.float16, 5)])
def test_pieces_of_the_weight_gradient(backend: Any, dtype: torch.dtype, channels: int) -> None:
    """Few channels and many pixels: cut into pieces, added in their order."""
    input, weight = random(1, channels, 23, 45, dtype=dtype), random(channels, 8, 1, 2, seed=1, dtype=dtype)
    options = {"stride": 1, "padding": (0, 1)}
    grad = random(*TORCH[2](input.double(), weight.double(), **options).shape, seed=3, dtype=dtype)
    wanted = run(TORCH[2], [input.double(), weight.double()], grad.double(), options)
    moved = [t.to(backend.device) for t in (input, weight)]
    got = run(OPS[2], moved, grad.to(backend.device), options)
    again = run(OPS[2], moved, grad.to(backend.device), options)
    assert distance(got[2], wanted[2]) <= TOLERANCE[dtype]
    assert all(torch.equal(one, other) for one, other in zip(got, again, strict=True))


def test_taps_that_reach_nothing(backend: Any) -> None:
    """A tap that falls outside everywhere has no pixels: its gradient is zero."""
    for channels, dtype in ((8, torch.float16), (3, torch.float64)):
        input, weight = random(1, channels, 1, 2, dtype=dtype), random(channels, 8, 5, 5, seed=1, dtype=dtype)
        options = {"stride": 1, "padding": 2}
        grad = random(1, 8, 1, 2, seed=3, dtype=dtype)
        wanted = run(TORCH[2], [input.double(), weight.double()], grad.double(), options)
        got = run(OPS[2], [t.to(backend.device) for t in (input, weight)], grad.to(backend.device), options)
        for one, other in zip(got, wanted, strict=True):
            assert distance(one, other) <= TOLERANCE[dtype]


def test_memory_that_is_not_aligned(backend: Any) -> None:
    input, weight = random(1, 16, 4, 5, dtype=torch.float16), random(16, 8, 2, 2, seed=1, dtype=torch.float16)
    buffer = torch.zeros(input.numel() + 1, dtype=torch.float16, device=backend.device)
    buffer[1:] = input.permute(0, 2, 3, 1).reshape(-1).to(backend.device)
    moved = buffer[1:].view(1, 4, 5, 16).permute(0, 3, 1, 2)
    grad = random(1, 8, 8, 10, seed=3, dtype=torch.float16)
    wanted = run(TORCH[2], [input.double(), weight.double()], grad.double(), {"stride": 2})
    got = run(OPS[2], [moved, weight.to(backend.device)], grad.to(backend.device), {"stride": 2})
    for one, other in zip(got, wanted, strict=True):
        assert distance(one, other) <= TOLERANCE[torch.float16]

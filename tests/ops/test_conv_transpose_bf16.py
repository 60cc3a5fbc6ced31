"""Transposed convolution of bfloat16: products in pairs (AVX512-BF16, or its twin), and in float32 everywhere else."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import nn
from fastcv.ops import build_info, conv_transpose1d, conv_transpose2d, conv_transpose3d

HAS_BF16_PAIRS = True
OPS = {1: conv_transpose1d, 2: conv_transpose2d, 3: conv_transpose3d}
TORCH = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
BF16 = pytest.mark.parametrize("dtype", [torch.bfloat16], ids=["bfloat16"])
CSRC = Path(__file__).resolve().parents[2] / "csrc"


def small_integers(*shape: int, seed: int = 0) -> Tensor:
    """-2 ... 2: their products and the sums of some thousands of them are exact in float32, in any order."""
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def run(op: Any, input: Tensor, weight: Tensor, bias: Tensor | None, options: dict[str, Any]) -> list[Tensor]:
    """The output and all gradients."""
    leaves = [t.detach().requires_grad_() for t in (input, weight, bias) if t is not None]
    output = op(*leaves[:2], leaves[2] if bias is not None else None, **options)
    seed = small_integers(*output.shape, seed=3).to(output)
    return [output.detach(), *torch.autograd.grad(output, leaves, seed)]


def check_exactly(backend: Any, input: Tensor, weight: Tensor, bias: Tensor | None, options: dict[str, Any]) -> None:
    """Bit by bit, in every layout: a factor that is misplaced, left out or taken twice shows."""
    dims = input.dim() - 2
    wide = [t.double() if t is not None else None for t in (input, weight, bias)]
    expected = [t.bfloat16() for t in run(TORCH[dims], *wide, options)]  # type: ignore[arg-type]
    moved = [t.to(backend.device) if t is not None else None for t in (input, weight, bias)]
    for channels_last in (False, True):
        source = moved[0]
        assert source is not None
        if channels_last:
            source = source.movedim(1, -1).contiguous().movedim(-1, 1)
        actual = run(OPS[dims], source, *moved[1:], options)  # type: ignore[arg-type]
        for one, other in zip(actual, expected, strict=True):
            assert torch.equal(one.cpu(), other)


@BF16
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_geometry_is_exact(backend: Any, dtype: torch.dtype, data: st.DataObject) -> None:
    if backend.is_cuda:
        pytest.skip("this is about the CPU kernels")
    draw = data.draw
    dims = draw(st.integers(1, 3))
    sizes = [draw(st.integers(1, (40, 12, 4)[dims - 1])) for _ in range(dims)]
    kernel = [draw(st.integers(1, 4)) for _ in range(dims)]
    stride = [draw(st.integers(1, 3)) for _ in range(dims)]
    padding = [draw(st.integers(0, (size - 1) // 2)) for size in kernel]
    groups = draw(st.integers(1, 3))
    in_channels, out_channels = draw(st.integers(1, 35)), draw(st.integers(1, 70))
    input = small_integers(draw(st.integers(1, 3)), groups * in_channels, *sizes)
    weight = small_integers(groups * in_channels, out_channels, *kernel, seed=1)
    bias = small_integers(groups * out_channels, seed=2) if draw(st.booleans()) else None
    if all((n - 1) * s - 2 * p + k >= 1 for n, s, p, k in zip(sizes, stride, padding, kernel, strict=True)):
        check_exactly(backend, input, weight, bias, {"stride": stride, "padding": padding, "groups": groups})


# (input, weight, stride, padding): every width of tile, odd depths, more pairs than one pass, evenly spaced rows,
# phases in pairs, and rows of pixels that cross images.
CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], int, int]] = {
    "one channel": ((2, 1, 3, 5), (1, 1, 2, 2), 2, 0),
    "tiles of two": ((1, 33, 2, 60), (33, 32, 3, 3), 1, 1),
    "tiles of three": ((1, 6, 3, 20), (6, 48, 3, 3), 2, 1),
    "tiles of four": ((1, 31, 3, 20), (31, 130, 3, 3), 2, 1),
    "phases in pairs": ((1, 17, 3, 61), (17, 32, 4, 4), 2, 1),
    "passes": ((1, 1101, 2, 9), (1101, 9, 3, 3), 2, 1),
    "pixels": ((5, 21, 7, 7), (21, 70, 2, 2), 2, 0),
    "pixels in passes": ((1, 1031, 3, 9), (1031, 9, 2, 2), 2, 0),
    "pixels, threes": ((2, 7, 5, 17), (7, 5, 3, 3), 3, 0),
}


@BF16
@pytest.mark.parametrize("case", CASES)
def test_tiles_are_exact(backend: Any, dtype: torch.dtype, case: str) -> None:
    if backend.is_cuda:
        pytest.skip("this is about the CPU kernels")
    shape, kernel, stride, padding = CASES[case]
    options = {"stride": stride, "padding": padding}
    check_exactly(backend, small_integers(*shape), small_integers(*kernel, seed=1), None, options)


@BF16
def test_order_of_the_sum(backend: Any, dtype: torch.dtype) -> None:
    """Channels ascending; within a pair the odd one comes first. 2^24 + 1 is 2^24 in float32."""
    if backend.is_cuda:
        pytest.skip("this is about the CPU kernels")
    large = 2.0**24
    input = torch.tensor([large, 0, -large, 1], dtype=dtype).view(1, 4, 1, 1)
    weight = torch.ones(4, 1, 2, 2, dtype=dtype)
    expected = 0.0 if backend.name == "cpu-avx512_bf16" else 1.0
    for layout in (torch.contiguous_format, torch.channels_last):
        output = conv_transpose2d(input.to(memory_format=layout), weight, stride=2)
        assert (output == expected).all()


@BF16
def test_subnormal_factors(backend: Any, dtype: torch.dtype) -> None:
    """Pairs take them for zeros of their sign; elsewhere they count."""
    if backend.is_cuda:
        pytest.skip("this is about the CPU kernels")
    tiny, huge = 2.0**-130, 2.0**120
    input = torch.tensor([tiny, 1.0, 3.0], dtype=dtype).view(1, 3, 1, 1)
    weight = torch.tensor([huge, 2.0, 1.0], dtype=dtype).view(3, 1, 1, 1)
    flushed = backend.name == "cpu-avx512_bf16"
    assert conv_transpose2d(input, weight).item() == 5.0  # 2^-10 is beyond the last bit
    assert conv_transpose2d(input[:, :1], weight[:1]).item() == (0.0 if flushed else 2.0**-10)
    small = torch.full((1, 2, 1, 1), 2.0**-65, dtype=dtype)
    assert conv_transpose2d(small, small.view(2, 1, 1, 1)).item() == (0.0 if flushed else 2.0**-129)


@BF16
def test_not_finite(backend: Any, dtype: torch.dtype) -> None:
    """What is not finite stays in its pixels, past the zeros that odd numbers of channels are paired with."""
    for value in (float("inf"), float("nan")):
        for channels in (3, 4):
            input = torch.ones(1, channels, 3, 40, dtype=dtype)
            input[0, channels - 1, 1, 2] = value
            weight = torch.ones(channels, 3, 2, 2, dtype=dtype)
            for layout in (torch.contiguous_format, torch.channels_last):
                moved = input.to(backend.device, memory_format=layout)
                output = conv_transpose2d(moved, weight.to(backend.device), stride=2).cpu()
                assert not output[:, :, 2:4, 4:6].isfinite().any()
                assert output.isfinite().sum() == output.numel() - 3 * 4


@BF16
def test_packed_weight_of_a_module(backend: Any, dtype: torch.dtype) -> None:
    module = nn.ConvTranspose2d(7, 33, 2, 2, dtype=dtype).eval().to(backend.device)
    input = small_integers(2, 7, 5, 9).to(backend.device)
    for layout in (torch.contiguous_format, torch.channels_last):
        source = input.to(memory_format=layout)
        expected = conv_transpose2d(source, module.weight, module.bias, stride=2)
        with torch.no_grad():
            assert torch.equal(module(source), expected)  # packs
            assert torch.equal(module(source), expected)  # finds it packed


@BF16
@pytest.mark.parametrize("empty", [(0, 3, 4, 5), (2, 3, 0, 5), (2, 0, 4, 5)])
def test_empty(backend: Any, dtype: torch.dtype, empty: tuple[int, ...]) -> None:
    input = torch.zeros(empty, dtype=dtype, device=backend.device, requires_grad=True)
    weight = torch.zeros(empty[1], 4, 3, 3, dtype=dtype, device=backend.device, requires_grad=True)
    output = conv_transpose2d(input, weight, torch.ones(4, dtype=dtype, device=backend.device), stride=2)
    assert torch.equal(output, torch.ones_like(output))
    assert not any(gradient.any() for gradient in torch.autograd.grad(output.sum(), (input, weight)))


# Random pairs and sums, with everything that is special among them; counts the lanes in which the twin differs from the
# manual's definition, taken literally, or from the instruction.
TWIN = r"""
#include <cmath>
#include <cstdio>
#include <random>
#include "core/bf16_pair_cpu.h"
using namespace fastcv::FASTCV_VARIANT;

float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
float fma_flushed(uint32_t a, uint32_t b, float c) {  // of the high halves
  const float x = bit_cast<float>(a & 0xffff0000u), y = bit_cast<float>(b & 0xffff0000u);
  return flushed(std::fma(flushed(x), flushed(y), flushed(c)));
}

int main(int count, char**) {
  std::mt19937 random(1);
  const uint32_t special[] = {0x0000, 0x8000, 0x7f80, 0xff80, 0x7fc0, 0x0001, 0x8001, 0x007f, 0x0080, 0x3f80, 0xbf80};
  long wrong = 0;
  for (int round = 0; round < 500000; ++round) {
    uint32_t a[16], b[16], c[16];
    for (int i = 0; i < 16; ++i) {
      const auto half = [&]() -> uint32_t {
        const uint32_t pick = random() % 8;
        if (pick == 0) return special[random() % 11];
        return uint32_t((random() & 0x807fu) | (pick < 3 ? 60 + random() % 10 : 127 + random() % 8) << 7);
      };
      a[i] = half() << 16 | half();
      b[i] = half() << 16 | half();
      c[i] = uint32_t((random() & 0x807fffffu) | (random() % 4 == 0 ? random() % 4 : 120 + random() % 20) << 23);
    }
    const Vector<float> sum = load(reinterpret_cast<const float*>(c));
    const __m512i left = _mm512_loadu_si512(a), right = _mm512_loadu_si512(b);
    float twin[16], expected[16];
    store(twin, multiply_add(PairVector<true>{left}, PairVector<true>{right}, sum));
    if (count > 1) {
      store(expected, multiply_add(PairVector<false>{left}, PairVector<false>{right}, sum));
    } else {
      for (int i = 0; i < 16; ++i) {
        expected[i] = fma_flushed(a[i] << 16, b[i] << 16, fma_flushed(a[i], b[i], bit_cast<float>(c[i])));
      }
    }
    for (int i = 0; i < 16; ++i) {
      const bool nan = twin[i] != twin[i] && expected[i] != expected[i];
      const bool edge = std::fabs(twin[i]) <= 0x1p-126f && std::fabs(expected[i]) <= 0x1p-126f;
      if (nan || (edge && count > 1) || bit_cast<uint32_t>(twin[i]) == bit_cast<uint32_t>(expected[i])) continue;
      if (++wrong < 9) std::printf("%08x * %08x + %08x: %a, not %a\n", a[i], b[i], c[i], twin[i], expected[i]);
    }
  }
  std::printf("%ld differ\n", wrong);
  return wrong != 0;
}
"""


@pytest.mark.parametrize("judge", ["definition", "instruction"])
def test_the_twin_of_the_instruction(tmp_path: Path, judge: str) -> None:
    needed = "avx512_bf16" if judge == "instruction" else "avx512"
    if shutil.which("g++") is None or needed not in build_info()["cpu_variants"]:
        pytest.skip(f"needs g++ and a processor with {needed}")
    source, program = tmp_path / "twin.cpp", tmp_path / "twin"
    source.write_text(TWIN)
    flags = "-std=c++17 -O2 -ffp-contract=off -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c"
    command = ["g++", *flags.split(), "-DFASTCV_VARIANT=avx512", f"-I{CSRC}", str(source), "-o", str(program)]
    subprocess.run(command, check=True)
    arguments = [str(program), *([judge] if judge == "instruction" else [])]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout

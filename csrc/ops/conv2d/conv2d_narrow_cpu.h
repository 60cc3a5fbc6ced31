// Convolution of few channels, as in the first layer of a network: rows of the matrix product are neighbouring pixels of
// one row of the output, and so lie evenly spaced in the lines of the input that they read; at borders in copies with
// zeros. Pointers to each would take longer than the products, and so would a second pass for the activation. CPU translation units only.
//
// Napkin maths, 3 x 3, 3 to 16 channels at 416 x 416, float32: 150 MFLOP, 2 MB in, 11 MB out. A pixel is 27 FMAs of one
// vector: 1.3 ms at one per cycle and 3.6 GHz.
#pragma once

#include "ops/conv2d/conv2d_problem_cpu.h"

namespace fastcv::FASTCV_VARIANT {

constexpr int64_t kNarrowPixels = 48;
constexpr int64_t kNarrowDepth = 64, kNarrowKernel = 16;

// Whether a row of the kernel is few floats side by side.
template <class S>
bool is_narrow(const Conv2dProblem<S>& p) {
  const Conv2dAxis& x = p.axes[1];
  return p.groups == 1 && x.dilation == 1 && x.kernel * p.channels <= kNarrowDepth && x.stride <= 4 &&
         p.axes[0].kernel <= kNarrowKernel;
}

// Pixels x ... of line y of an input image to `target`, `count` of them, zero where they lie outside.
template <class S>
void copy_line(const Conv2dProblem<S>& p, const S* image, int64_t y, int64_t x, int64_t count, S* target) {
  const Conv2dAxis &ys = p.axes[0], &xs = p.axes[1];
  const int64_t first = least(greatest(x, int64_t{0}), xs.input);
  const int64_t end = y < 0 || y >= ys.input ? first : greatest(least(x + count, xs.input), first);
  const int64_t before = (first - x) * p.channels, inside = (end - first) * p.channels;
  if (end == first) {
    __builtin_memset(target, 0, count * p.channels * sizeof(S));
    return;
  }
  __builtin_memset(target, 0, before * sizeof(S));
  __builtin_memcpy(target + before, image + (y * xs.input + first) * p.channels, inside * sizeof(S));
  __builtin_memset(target + before + inside, 0, (count * p.channels - before - inside) * sizeof(S));
}

// What the sums of a tile become: everything but SiLU, which needs the registers that sums lie in.
template <Activation kActivation, int kRows, int kVectors, class S>
FASTCV_INLINE void put_narrow_tile(const Vector<S> (&sum)[kRows][kVectors], S* target, int64_t columns, S slope) {
  const Vector<S> slopes = broadcast(slope);
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) {
      store(target + i * columns + j * kLanes<S>, activate<kActivation, S>(sum[i][j], slopes));
    }
  }
}

// kRows neighbouring pixels by kVectors vectors of columns. Row i of the product begins `step` elements after the one
// before it; where kStep is not 0 it is known, and so are all offsets from one pointer.
template <int kRows, int kVectors, int64_t kStep, class S>
__attribute__((noinline)) void convolve_narrow_tile(const S* const* lines, int64_t runtime_step, const S* panel,
                                                    int64_t count, int64_t depth, const S* bias, S* target,
                                                    int64_t columns, Epilogue<S> epilogue) {
  using V = Vector<S>;
  const int64_t step = kStep != 0 ? kStep : runtime_step;
  V sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int j = 0; j < kVectors; ++j) {
    const V start = bias == nullptr ? V{} : load(bias + j * kLanes<S>);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) sum[i][j] = start;
  }
  for (int64_t line = 0; line < count; ++line) {
    constexpr int kFourths = (kRows + 3) / 4;
    const S* fourth[kFourths];
#pragma GCC unroll 4
    for (int i = 0; i < kFourths; ++i) fourth[i] = lines[line] + 4 * i * step;
    for (int64_t k = 0; k < depth; ++k, panel += kVectors * kLanes<S>) {
      V column[kVectors];
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) column[j] = load(panel + j * kLanes<S>);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        const V element = broadcast(fourth[i / 4][i % 4 * step]);
#pragma GCC unroll 8
        for (int j = 0; j < kVectors; ++j) sum[i][j] = multiply_add(element, column[j], sum[i][j]);
      }
#pragma GCC unroll 4
      for (int i = 0; i < kFourths; ++i) ++fourth[i];
    }
  }
  switch (epilogue.activation) {
    case Activation::kRelu:
      return put_narrow_tile<Activation::kRelu, kRows, kVectors, S>(sum, target, columns, epilogue.slope);
    case Activation::kLeakyRelu:
      return put_narrow_tile<Activation::kLeakyRelu, kRows, kVectors, S>(sum, target, columns, epilogue.slope);
    default:
      return put_narrow_tile<Activation::kNone, kRows, kVectors, S>(sum, target, columns, epilogue.slope);
  }
}

// One panel of columns for `count` pixels; lines[i] is what the first of them reads of line i.
template <int kVectors, class S>
void convolve_narrow_panel(const Conv2dProblem<S>& p, const S* const* lines, int64_t first_pixel, int64_t count,
                           int64_t first) {
  constexpr int64_t kWidth = kVectors * kLanes<S>;
  constexpr int kRows = gemm_rows_of(kVectors);
  const Conv2dAxis &ys = p.axes[0], &xs = p.axes[1];
  const int64_t depth = xs.kernel * p.channels, step = xs.stride * p.channels;
  const S* panel = p.packed + first * ys.kernel * depth;
  const S* bias = p.bias == nullptr ? nullptr : p.bias + first;
  S* target = p.target + first_pixel * p.columns + first;
  const int64_t columns = least(p.columns - first, kWidth);
  const S *a[kNarrowKernel], *b[kNarrowKernel];
  for (int64_t i = 0; i < ys.kernel; ++i) b[i] = panel + i * depth * kWidth;
  const bool at_once = p.residual == nullptr && p.epilogue.activation != Activation::kSilu && columns == kWidth;
  int64_t done = 0;  // pixels that are finished
  for (int64_t m = 0; m < count; m += kRows) {
    for (int64_t i = 0; i < ys.kernel; ++i) a[i] = lines[i] + m * step;
    S* tile = target + m * p.columns;
    if (at_once && m + kRows <= count) {
      done = m + kRows;
      if (step == 3) {
        convolve_narrow_tile<kRows, kVectors, 3, S>(a, 3, panel, ys.kernel, depth, bias, tile, p.columns, p.epilogue);
      } else {
        convolve_narrow_tile<kRows, kVectors, 0, S>(a, step, panel, ys.kernel, depth, bias, tile, p.columns,
                                                    p.epilogue);
      }
      continue;
    }
    gemm_tile<S, kRows, kVectors, GemmA::kSpaced>(a, step, b, kWidth, ys.kernel, depth, tile, p.columns, count - m,
                                                  columns, bias == nullptr ? GemmStart::kZero : GemmStart::kColumns,
                                                  bias);
  }
  target += done * p.columns;
  const int64_t place = (first_pixel + done) * p.columns + first;
  finish_rows(target, p.columns, p.residual == nullptr ? nullptr : p.residual + place, target, p.columns, count - done,
              columns, p.epilogue);
}

template <class S>
void convolve_narrow(const Conv2dProblem<S>& p) {
  const Conv2dAxis &ys = p.axes[0], &xs = p.axes[1];
  const int64_t blocks = ceil_div(xs.output, kNarrowPixels);
  const int64_t read = (kNarrowPixels - 1 + kRowsPadding) * xs.stride + xs.kernel;  // pixels of a line
  parallel_for(p.batch * ys.output * blocks, 4, [&](int64_t begin, int64_t end) {
    const Scratch copies(bytes_of<S>(ys.kernel, read, p.channels));
    const S* lines[kNarrowKernel];
    for (int64_t i = begin; i < end; ++i) {
      const int64_t x = i % blocks * kNarrowPixels, row = i / blocks, y = row % ys.output;
      const int64_t count = least(xs.output - x, kNarrowPixels);
      const S* image = p.source + row / ys.output * ys.input * xs.input * p.channels;
      for (int64_t k = 0; k < ys.kernel; ++k) {
        S* line = copies.template as<S>() + k * read * p.channels;
        const int64_t from_y = y * ys.stride - ys.padding + k * ys.dilation, from_x = x * xs.stride - xs.padding;
        if (from_y >= 0 && from_y < ys.input && from_x >= 0 && from_x + read <= xs.input) {
          lines[k] = image + (from_y * xs.input + from_x) * p.channels;  // in the middle of a line: no copy
          continue;
        }
        copy_line(p, image, from_y, from_x, (count - 1) * xs.stride + xs.kernel, line);
        lines[k] = line;
      }
      for (int64_t first = 0; first < p.columns; first += kPanelColumns<S>) {
        dispatch_panel<S>(first, p.columns, [&](auto vectors) {
          convolve_narrow_panel<decltype(vectors)::value>(p, lines, row * xs.output + x, count, first);
        });
      }
    }
  });
}

}  // namespace fastcv::FASTCV_VARIANT

// The gradient of the weight on the CPU: for each tap k the product, over all pixels i of the input,
//
//   weight[c, o, k] = sum_i  input[i, c] * output[i * stride - padding + k * dilation, o]
//
// with both sides channels innermost, read where they lie: rows of pixels are the segments of gemm_tile. One task is a
// tap and a panel of output channels; it walks the pixels in chunks that fit the second-level cache, and within one
// chunk all blocks of input channels, adding to a [C, panel] block of sums. Every sum is taken over the pixels in
// order, by one thread, so the result does not depend on the number of threads.
#pragma once

#include "core/gemm_cpu.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "ops/conv_transpose/conv_geometry.h"

namespace fastcv::FASTCV_VARIANT {

constexpr int64_t kPixelsPerChunk = 256;

template <class S, class T>
void weight_task(const ConvTransposeParams& p, const S* input, const S* output, T* weight, int64_t group, int64_t tap,
                 int64_t first) {
  const ConvAxis &az = p.axes[0], &ay = p.axes[1], &ax = p.axes[2];
  const int64_t taps = az.kernel * ay.kernel * ax.kernel;
  const TapRange z = tap_range(az, tap / (ay.kernel * ax.kernel)), y = tap_range(ay, tap / ax.kernel % ay.kernel);
  const TapRange x = tap_range(ax, tap % ax.kernel);
  const int64_t in_width = p.groups * p.in_channels, out_width = p.groups * p.out_channels;
  const int64_t left = p.out_channels - first;
  const int64_t columns = left < kPanelPixels<S> ? left : kPanelPixels<S>;

  const Scratch sum_memory(p.in_channels * kPanelPixels<S> * sizeof(S));
  S* sums = sum_memory.as<S>();
  constexpr int64_t kMostSegments = kPixelsPerChunk;
  const Scratch pointer_memory(3 * kMostSegments * sizeof(S*));
  const S** a = pointer_memory.as<const S*>();
  const S** b = a + kMostSegments;
  const S** shifted = b + kMostSegments;
  int64_t segments = 0;
  bool fresh = true;

  const auto flush = [&](int64_t depth) {
    for (int64_t c = 0; c < p.in_channels; c += kPixelRows) {
      for (int64_t s = 0; s < segments; ++s) shifted[s] = a[s] + c;
      const int64_t rows = p.in_channels - c < kPixelRows ? p.in_channels - c : kPixelRows;
      const GemmStart from = fresh ? GemmStart::kZero : GemmStart::kTile;
      gemm_pixels_strided<S>(shifted, in_width, b, ax.stride * out_width, segments, depth, sums + c * kPanelPixels<S>,
                             kPanelPixels<S>, rows, columns, from);
    }
    segments = 0;
    fresh = false;
  };
  // Runs of pixels of equal length, then what is left of each row.
  const int64_t length = x.end - x.begin;
  const int64_t piece = length < kPixelsPerChunk ? length : kPixelsPerChunk;
  const int64_t most = piece == 0 ? 1 : kPixelsPerChunk / piece;
  for (int64_t start = 0; start < length; start += piece) {
    const int64_t depth = length - start < piece ? length - start : piece;
    for (int64_t n = 0; n < p.batch; ++n) {
      for (int64_t i = z.begin; i < z.end; ++i) {
        for (int64_t j = y.begin; j < y.end; ++j) {
          const int64_t from = ((n * az.input + i) * ay.input + j) * ax.input + x.begin + start;
          const int64_t to =
              ((n * az.output + i * az.stride + z.offset) * ay.output + j * ay.stride + y.offset) * ax.output +
              (x.begin + start) * ax.stride + x.offset;
          a[segments] = input + from * in_width + group * p.in_channels;
          b[segments] = output + to * out_width + group * p.out_channels + first;
          if (++segments == most) flush(depth);
        }
      }
    }
    if (segments > 0) flush(depth);
  }
  if (fresh) flush(0);
  for (int64_t c = 0; c < p.in_channels; ++c) {
    T* target = weight + ((group * p.in_channels + c) * p.out_channels + first) * taps + tap;
    for (int64_t o = 0; o < columns; ++o) target[o * taps] = from_float<T>(sums[c * kPanelPixels<S> + o]);
  }
}

template <class S, class T>
void accumulate_weight(const ConvTransposeParams& p, const S* input, const S* output, T* weight) {
  const int64_t taps = p.axes[0].kernel * p.axes[1].kernel * p.axes[2].kernel;
  const int64_t panels = (p.out_channels + kPanelPixels<S> - 1) / kPanelPixels<S>;
  parallel_for(p.groups * taps * panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      weight_task<S, T>(p, input, output, weight, i / taps / panels, i / panels % taps, i % panels * kPanelPixels<S>);
    }
  });
}

}  // namespace fastcv::FASTCV_VARIANT

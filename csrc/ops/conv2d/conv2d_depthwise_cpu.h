// Convolution of each channel by itself (as many groups as channels, one column each): vectors along channels. CPU
// translation units only.
//
// Napkin maths, 3 x 3 on 144 channels at 120 x 160, float32: 50 MFLOP, 11 MB in, 11 MB out: 2 ms at 11 GB/s. Each
// vector of a tap's weight meets kPixels pixels, so that there are 5 loads for 4 FMAs.
#pragma once

#include "ops/conv2d/conv2d_problem_cpu.h"

namespace fastcv::FASTCV_VARIANT {

// kPixels neighbours of a row of the output, one vector of channels from c on. `lanes` of it exist.
template <int kPixels, bool kWhole, class S>
FASTCV_INLINE void convolve_channels(const Conv2dProblem<S>& p, const S* image, int64_t y, int64_t x, int64_t c,
                                     int64_t lanes, S* target) {
  const Conv2dAxis &ys = p.axes[0], &xs = p.axes[1];
  const auto fetch = [&](const S* source) {
    if constexpr (kWhole) return load(source);
    return load_lanes(source, lanes);
  };
  Vector<S> sum[kPixels];
  const Vector<S> start = p.bias == nullptr ? Vector<S>{} : fetch(p.bias + c);
  for (int i = 0; i < kPixels; ++i) sum[i] = start;
  const int64_t top = y * ys.stride - ys.padding, left = x * xs.stride - xs.padding;
  for (int64_t ky = 0; ky < ys.kernel; ++ky) {
    const int64_t from_y = top + ky * ys.dilation;
    if (from_y < 0 || from_y >= ys.input) continue;
    for (int64_t kx = 0; kx < xs.kernel; ++kx) {
      const Vector<S> weight = fetch(p.packed + (ky * xs.kernel + kx) * p.groups + c);
      const int64_t from_x = left + kx * xs.dilation;
      const S* source = image + (from_y * xs.input + from_x) * p.groups + c;
      const bool inside = from_x >= 0 && from_x + (kPixels - 1) * xs.stride < xs.input;
#pragma GCC unroll 4
      for (int i = 0; i < kPixels; ++i) {
        const int64_t step = i * xs.stride;
        if (!inside && (from_x + step < 0 || from_x + step >= xs.input)) continue;
        sum[i] = multiply_add(fetch(source + step * p.groups), weight, sum[i]);
      }
    }
  }
  for (int i = 0; i < kPixels; ++i) {
    if constexpr (kWhole) {
      store(target + i * p.groups + c, sum[i]);
    } else {
      store_lanes(target + i * p.groups + c, sum[i], lanes);
    }
  }
}

template <int kPixels, class S>
void convolve_depthwise(const Conv2dProblem<S>& p, const S* image, int64_t y, int64_t x, S* target) {
  int64_t c = 0;
  for (; c + kLanes<S> <= p.groups; c += kLanes<S>) {
    convolve_channels<kPixels, true>(p, image, y, x, c, kLanes<S>, target);
  }
  if (c < p.groups) convolve_channels<kPixels, false>(p, image, y, x, c, p.groups - c, target);
}

template <class S>
void convolve_depthwise(const Conv2dProblem<S>& p) {
  const Conv2dAxis &ys = p.axes[0], &xs = p.axes[1];
  const int64_t row = xs.output * p.groups;
  parallel_for(p.batch * ys.output, greatest(int64_t{1}, 8192 / greatest(row, int64_t{1})),
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i) {
                   const S* image = p.source + i / ys.output * ys.input * xs.input * p.groups;
                   S* target = p.target + i * row;
                   int64_t x = 0;
                   for (; x + 4 <= xs.output; x += 4) {
                     convolve_depthwise<4>(p, image, i % ys.output, x, target + x * p.groups);
                   }
                   for (; x < xs.output; ++x) {
                     convolve_depthwise<1>(p, image, i % ys.output, x, target + x * p.groups);
                   }
                   finish_rows(target, row, p.residual == nullptr ? nullptr : p.residual + i * row, target, row, 1, row,
                               p.epilogue);
                 }
               });
}

}  // namespace fastcv::FASTCV_VARIANT

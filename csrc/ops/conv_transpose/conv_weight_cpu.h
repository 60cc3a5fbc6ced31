// The gradient of the weight on the CPU: for each tap k the product, over all pixels i of the input,
//
//   weight[c, o, k] = sum_i  input[i, c] * output[i * stride - padding + k * dilation, o]
//
// with both sides channels innermost, read where they lie: rows of pixels are the segments of gemm_tile. One task is a
// tap and a panel of output channels; it walks the pixels in chunks that fit the second-level cache, and within one
// chunk all blocks of input channels, adding to a [C, panel] block of sums. Every sum is taken over the pixels in
// order, by one thread, so the result does not depend on the number of threads.
//
// With pairs of bfloat16 a pair is two pixels, not two channels: each chunk is put together in panels of pairs first,
// by every task for itself. For C input channels that takes about 48 C instructions of 384 C products, and 5 % of the
// time.
#pragma once

#include "core/gemm_cpu.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "ops/conv_transpose/conv_geometry.h"

namespace fastcv::FASTCV_VARIANT {

constexpr int64_t kPixelsPerChunk = 256, kPairsPerChunk = ceil_div(kPixelsPerChunk, 2);

// The pixels of a chunk in pairs, both factors.
template <class E>
struct PixelPairs {
  E* left;   // [pair][left_step], input channels
  E* right;  // [pair][kPanelPixels], output channels
  int64_t left_step;

  // Of `segments` rows of `depth` pixels; returns how many pairs they make.
  int64_t pack(const Factor<E>* const* a, int64_t a_step, int64_t rows, const Factor<E>* const* b, int64_t b_step,
               int64_t columns, int64_t segments, int64_t depth) const {
    int64_t pairs = 0;
    const Factor<E>* even_a = nullptr;
    const Factor<E>* even_b = nullptr;
    const auto put = [&](const Factor<E>* odd_a, const Factor<E>* odd_b) {
      pair_rows(even_a, odd_a, rows, left + pairs * left_step);
      pair_rows(even_b, odd_b, columns, right + pairs * kPanelPixels<E>);
      ++pairs;
      even_a = nullptr;
    };
    for (int64_t s = 0; s < segments; ++s) {
      for (int64_t k = 0; k < depth; ++k) {
        if (even_a != nullptr) {
          put(a[s] + k * a_step, b[s] + k * b_step);
        } else {
          even_a = a[s] + k * a_step;
          even_b = b[s] + k * b_step;
        }
      }
    }
    if (even_a != nullptr) put(nullptr, nullptr);
    return pairs;
  }
};

// Input and output with channels innermost, and how many factors they have from pixel to pixel and from group to group.
// E is the type of the factors as they are multiplied: that of the sums, or pairs of bfloat16.
template <class E>
struct WeightSources {
  const Factor<E>* input;
  const Factor<E>* output;
  int64_t in_width, in_group, out_width, out_group;
};

template <class E, class T>
void weight_task(const ConvTransposeParams& p, const WeightSources<E>& sources, T* weight, int64_t group, int64_t tap,
                 int64_t first) {
  using S = Accumulate<E>;
  using P = Factor<E>;
  const ConvAxis &az = p.axes[0], &ay = p.axes[1], &ax = p.axes[2];
  const int64_t taps = az.kernel * ay.kernel * ax.kernel;
  const TapRange z = tap_range(az, tap / (ay.kernel * ax.kernel)), y = tap_range(ay, tap / ax.kernel % ay.kernel);
  const TapRange x = tap_range(ax, tap % ax.kernel);
  const int64_t in_width = sources.in_width, out_width = sources.out_width;
  const int64_t left = p.out_channels - first;
  const int64_t columns = least(left, kPanelPixels<S>);

  const Scratch sum_memory(bytes_of<S>(p.in_channels, kPanelPixels<S>));
  S* sums = sum_memory.as<S>();
  constexpr int64_t kMostSegments = kPixelsPerChunk;
  const Scratch pointer_memory(bytes_of<P*>(3, kMostSegments));
  const P** a = pointer_memory.as<const P*>();
  const P** b = a + kMostSegments;
  [[maybe_unused]] const P** shifted = b + kMostSegments;
  const int64_t left_step = round_up(p.in_channels, kPixelRows);
  const Scratch pair_memory(kIsPair<E> ? bytes_of<E>(kPairsPerChunk, left_step + kPanelPixels<E>) : 0);
  const PixelPairs<E> chunk{pair_memory.as<E>() + kPairsPerChunk * kPanelPixels<E>, pair_memory.as<E>(), left_step};
  int64_t segments = 0;
  bool fresh = true;

  const auto flush = [&](int64_t depth) {
    [[maybe_unused]] int64_t pairs = 0;
    if constexpr (kIsPair<E>) {
      pairs = chunk.pack(a, in_width, p.in_channels, b, ax.stride * out_width, columns, segments, depth);
    }
    for (int64_t c = 0; c < p.in_channels; c += kPixelRows) {
      const int64_t rows = least(p.in_channels - c, kPixelRows);
      const GemmStart from = fresh ? GemmStart::kZero : GemmStart::kTile;
      S* target = sums + c * kPanelPixels<S>;
      if constexpr (kIsPair<E>) {
        const E* left_block = chunk.left + c;
        const E* right_block = chunk.right;
        gemm_pixels<E>(&left_block, left_step, &right_block, kPanelPixels<E>, 1, pairs, target, kPanelPixels<S>, rows,
                       columns, from);
      } else {
        for (int64_t s = 0; s < segments; ++s) shifted[s] = a[s] + c;
        gemm_pixels<E>(shifted, in_width, b, ax.stride * out_width, segments, depth, target, kPanelPixels<S>, rows,
                       columns, from);
      }
    }
    segments = 0;
    fresh = false;
  };
  // Runs of pixels of equal length, then what is left of each row.
  const int64_t length = x.end - x.begin;
  const int64_t piece = least(length, kPixelsPerChunk);
  const int64_t most = piece == 0 ? 1 : kPixelsPerChunk / piece;
  for (int64_t start = 0; start < length; start += piece) {
    const int64_t depth = least(length - start, piece);
    for (int64_t n = 0; n < p.batch; ++n) {
      for (int64_t i = z.begin; i < z.end; ++i) {
        for (int64_t j = y.begin; j < y.end; ++j) {
          const int64_t from = ((n * az.input + i) * ay.input + j) * ax.input + x.begin + start;
          const int64_t to =
              ((n * az.output + i * az.stride + z.offset) * ay.output + j * ay.stride + y.offset) * ax.output +
              (x.begin + start) * ax.stride + x.offset;
          a[segments] = sources.input + from * in_width + group * sources.in_group;
          b[segments] = sources.output + to * out_width + group * sources.out_group + first;
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

template <class E, class T>
void accumulate_weight(const ConvTransposeParams& p, const WeightSources<E>& sources, T* weight) {
  const int64_t taps = p.axes[0].kernel * p.axes[1].kernel * p.axes[2].kernel;
  const int64_t panels = ceil_div(p.out_channels, kPanelPixels<E>);
  parallel_for(p.groups * taps * panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      weight_task(p, sources, weight, i / taps / panels, i / panels % taps, i % panels * kPanelPixels<E>);
    }
  });
}

}  // namespace fastcv::FASTCV_VARIANT

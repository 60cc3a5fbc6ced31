// Source and weight of a transposed convolution on the CPU, as its matrix products read them. E is the type of their
// factors: that of the sums, to which halves are converted on the way, or pairs of bfloat16 (bf16_pair_cpu.h), of
// neighbouring channels of one group; the last one of an odd number is paired with zero.
#pragma once

#include "core/gemm_cpu.h"
#include "core/layout_cpu.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "ops/conv_transpose/conv_transpose.h"

namespace fastcv::FASTCV_VARIANT {

// ---- source ----

// Pixels of `groups` groups of `channels` channels, already innermost, to target[pixel][group][E].
template <class E, class T>
void copy_pixels(const T* source, int64_t groups, int64_t channels, int64_t pixels, E* target) {
  if constexpr (kIsPair<E>) {  // an odd number of channels
    const int64_t pairs = factors_to_elements<E>(channels);
    for (int64_t i = 0; i < pixels * groups; ++i) {
      target[(i + 1) * pairs - 1] = E{};
      __builtin_memcpy(target + i * pairs, source + i * channels, channels * sizeof(T));
    }
  } else {
    convert_run(source, pixels * groups * channels, target);
  }
}

// Pieces of planes, `plane` elements from one to the next, to target[pixel][group][E].
template <class E, class T>
void copy_planes(const T* source, int64_t plane, int64_t groups, int64_t channels, int64_t pixels, E* target) {
  if constexpr (kIsPair<E>) {
    const int64_t pairs = factors_to_elements<E>(channels);
    const Scratch line_memory(bytes_of<E>(groups, pairs, pixels));
    E* lines = line_memory.as<E>();  // [group][pair][pixel]
    for (int64_t i = 0; i < groups * pairs; ++i) {
      const int64_t channel = i % pairs * 2;
      const T* even = source + (i / pairs * channels + channel) * plane;
      pair_rows(even, channel + 1 < channels ? even + plane : nullptr, pixels, lines + i * pixels);
    }
    // A pair is moved as the float of the same bits.
    transpose(line_memory.as<float>(), pixels, static_cast<float*>(static_cast<void*>(target)), groups * pairs,
              groups * pairs, pixels);
  } else {
    transpose(source, plane, target, groups * channels, groups * channels, pixels);
  }
}

// One side of the product with channels innermost, [n][pixel][group][E]: the tensor itself where it is that already,
// else a copy. Where the channels of one group are read in whole vectors, reading must be allowed to go a little past
// the end.
template <class E, class T>
class ChannelsLast {
  static constexpr int64_t kSlack = 64;

 public:
  ChannelsLast(const void* data, int64_t batch, int64_t groups, int64_t channels, int64_t pixels, bool channels_last,
               bool in_vectors)
      : copied_(!channels_last || !is_stored_so(channels) || (in_vectors && channels % 16 != 0)),
        row_(groups * factors_to_elements<E>(channels)),
        memory_(copied_ ? bytes_of<E>(batch, pixels, row_) + bytes_of<E>(kSlack) : 0),
        data_(copied_ ? memory_.template as<E>() : static_cast<const E*>(data)) {
    if (!copied_) return;
    E* target = memory_.template as<E>();
    constexpr int64_t kPiece = 256;
    const int64_t pieces = ceil_div(pixels, kPiece);
    parallel_for(batch * pieces, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / pieces, first = i % pieces * kPiece;
        const int64_t count = least(pixels - first, kPiece);
        E* out = target + (n * pixels + first) * row_;
        const T* image = static_cast<const T*>(data) + n * groups * channels * pixels;
        if (channels_last) {
          copy_pixels(image + first * groups * channels, groups, channels, count, out);
        } else {
          copy_planes(image + first, pixels, groups, channels, count, out);
        }
      }
    });
    for (int64_t i = 0; i < kSlack; ++i) target[batch * pixels * row_ + i] = E{};
  }

  const E* data() const { return data_; }

 private:
  static bool is_stored_so(int64_t channels) { return kIsPair<E> ? channels % 2 == 0 : sizeof(T) == sizeof(E); }

  bool copied_;
  int64_t row_;  // elements of a pixel
  Scratch memory_;
  const E* data_;
};

// ---- weight ----

// What channel `k`, or the pair k of `depth` channels, takes in the panel of each tap: target[tap][n], n < width, from
// source[k][n][tap]. Steps are in elements.
template <class E, class T>
void pack_row(const T* source, int64_t k_stride, int64_t n_stride, int64_t k, int64_t depth, int64_t count,
              int64_t width, int64_t taps, E* target, int64_t tap_step) {
  if constexpr (kIsPair<E>) {
    const T* even = source + 2 * k * k_stride;
    const bool odd = 2 * k + 1 < depth;
    const Scratch memory(bytes_of<T>(2, taps, width));
    T* rows = memory.as<T>();  // [even, odd][tap][width]
    transpose(even, n_stride, rows, width, count, taps);
    if (odd) transpose(even + k_stride, n_stride, rows + taps * width, width, count, taps);
    for (int64_t tap = 0; tap < taps; ++tap) {
      const T* row = rows + tap * width;
      pair_rows(row, odd ? row + taps * width : nullptr, count, target + tap * tap_step);
    }
  } else {
    transpose(source + k * k_stride, n_stride, target, tap_step, count, taps);
  }
  for (int64_t tap = 0; tap < taps; ++tap) {
    for (int64_t n = count; n < width; ++n) target[tap * tap_step + n] = E{};
  }
}

// How many E the packed weight has.
template <class E>
int64_t packed_elements(const ConvTransposeParams& p, bool forward) {
  const int64_t taps = p.axes[0].kernel * p.axes[1].kernel * p.axes[2].kernel;
  const int64_t depth = factors_to_elements<E>(forward ? p.in_channels : p.out_channels);
  return p.groups * packed_size<E>(taps * depth, forward ? p.out_channels : p.in_channels);
}

// Packs the weight of each group as a [tap][depth] x columns matrix: output channels are the columns forward, input
// channels for the gradient of the input.
template <class E, class T>
void pack_weight(const ConvTransposeParams& p, bool forward, E* packed) {
  const int64_t taps = p.axes[0].kernel * p.axes[1].kernel * p.axes[2].kernel;
  const int64_t channels = forward ? p.in_channels : p.out_channels, depth = factors_to_elements<E>(channels);
  const int64_t columns = forward ? p.out_channels : p.in_channels;
  const int64_t stride_in = p.out_channels * taps;
  const int64_t k_stride = forward ? stride_in : taps, n_stride = forward ? taps : stride_in;
  const int64_t size = packed_size<E>(taps * depth, columns);
  const int64_t panels = ceil_div(columns, kPanelColumns<E>);
  const T* weight = static_cast<const T*>(p.weight);
  constexpr int64_t kPiece = 16;
  const int64_t pieces = ceil_div(depth, kPiece);
  parallel_for(p.groups * panels * pieces, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t piece = i % pieces, panel = i / pieces % panels, group = i / pieces / panels;
      const int64_t first = panel * kPanelColumns<E>, width = panel_width<E>(first, columns);
      const int64_t count = least(columns - first, width);
      const int64_t end_k = least(piece * kPiece + kPiece, depth);
      const T* source = weight + group * p.in_channels * stride_in + first * n_stride;
      E* target = packed + group * size + first * taps * depth;
      for (int64_t k = piece * kPiece; k < end_k; ++k) {
        pack_row(source, k_stride, n_stride, k, channels, count, width, taps, target + k * width, depth * width);
      }
    }
  });
}

}  // namespace fastcv::FASTCV_VARIANT

// How the CPU kernels see a feature map: channels innermost, in blocks of a few vectors. CPU translation units only.
#pragma once

#include "core/transpose_cpu.h"

namespace fastcv::FASTCV_VARIANT {

// Channels that one pass keeps in registers: eight vectors.
template <class A>
constexpr int64_t kBlockChannels = 8 * kLanes<A>;

// Calls body(TypeTag-like integral constant, channel) so that the vectors cover `channels` (a multiple of the lanes) in
// runs of 8, 4, 2 and 1 vectors.
template <int kVectors>
struct VectorCount {
  static constexpr int value = kVectors;
};

template <class A, class Body>
inline void for_each_run(int64_t channels, const Body& body) {
  int64_t c = 0;
  for (; c + 8 * kLanes<A> <= channels; c += 8 * kLanes<A>) body(VectorCount<8>{}, c);
  if (c + 4 * kLanes<A> <= channels) body(VectorCount<4>{}, c), c += 4 * kLanes<A>;
  if (c + 2 * kLanes<A> <= channels) body(VectorCount<2>{}, c), c += 2 * kLanes<A>;
  if (c + kLanes<A> <= channels) body(VectorCount<1>{}, c);
}

template <class A>
inline int64_t round_up_to_lanes(int64_t channels) {
  return round_up(channels, kLanes<A>);
}

// Channels per pixel of a packed map: whole vectors, at most a block.
template <class A>
inline int64_t block_width(int64_t channels) {
  const int64_t all = round_up_to_lanes<A>(channels);
  return least(all, kBlockChannels<A>);
}

// Halves a block of channels, in whole vectors.
template <class A>
inline int64_t half_block(int64_t width) {
  return round_up_to_lanes<A>(width / 2);
}

// Copies the window [y, y + rows) x [x, x + columns) of `channels` planes to target[row][column][channel], with
// `width` >= channels elements per pixel; the lanes beyond `channels` are zero. Strides are in elements.
template <class T, class A>
void pack_channels_last(const T* plane, int64_t stride_c, int64_t stride_y, int64_t stride_x, int64_t rows,
                        int64_t columns, int64_t channels, A* target, int64_t width) {
  if (stride_y == columns * stride_x) {
    columns *= rows;
    rows = 1;
  }
  for (int64_t y = 0; y < rows; ++y) {
    const T* row = plane + y * stride_y;
    A* out = target + y * columns * width;
    if (stride_x == 1) {
      transpose(row, stride_c, out, width, channels, columns);
    } else {
      for (int64_t x = 0; x < columns; ++x) {
        for (int64_t c = 0; c < channels; ++c) out[x * width + c] = to_float(row[x * stride_x + c * stride_c]);
      }
    }
    for (int64_t x = 0; channels < width && x < columns; ++x) {
      for (int64_t c = channels; c < width; ++c) out[x * width + c] = A(0);
    }
  }
}

// The way back: source[pixel][channel], `width` elements per pixel, to a map whose channels or whose pixels lie next to
// each other.
template <class T, class A>
void unpack_channels_last(const A* source, int64_t width, T* target, int64_t stride_c, int64_t stride_pixel,
                          int64_t pixels, int64_t channels) {
  if (stride_c != 1) return transpose(source, width, target, stride_c, pixels, channels);
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    convert_run(source + pixel * width, channels, target + pixel * stride_pixel);
  }
}

}  // namespace fastcv::FASTCV_VARIANT

// Where a sample of a deformable convolution lies, and what it reads, on CUDA.
#pragma once

#include "core/cuda/launch.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "ops/deform_conv2d/deform_conv2d.h"

namespace fastcv::FASTCV_VARIANT {

// One place in the map of one image: its row and column rounded down, and how far it lies beyond them.
template <class A>
struct Place {
  int row, column;
  A fy, fx;
  bool inside;
  A mask;

  // Of the corner (i, j), 0 or 1 below and to the right.
  __device__ A weight(int i, int j) const { return (i != 0 ? fy : A(1) - fy) * (j != 0 ? fx : A(1) - fx); }
  __device__ bool has(int i, int j, const DeformGeometry& g) const {
    return inside && row + i >= 0 && row + i < g.y.input && column + j >= 0 && column + j < g.x.input;
  }
};

// Of image n, offset group d, kernel element `tap` and output position p. For the gradient to the offset a place at -1
// counts as inside.
template <class T, bool kGradient>
__device__ Place<Accumulate<T>> find_place(const DeformGeometry& g, int64_t n, int64_t d, int64_t tap, int64_t p) {
  using A = Accumulate<T>;
  const int64_t positions = g.positions(), index = (n * g.offset_groups + d) * g.taps() + tap;
  const T* const offset = static_cast<const T*>(g.offset) + 2 * index * positions + p;
  // The binding has refused 2^31 positions and more.
  const uint32_t position = static_cast<uint32_t>(p), across = static_cast<uint32_t>(g.x.output);
  const uint32_t element = static_cast<uint32_t>(tap), kernel_x = static_cast<uint32_t>(g.x.kernel);
  const int64_t base_y = position / across * g.y.stride - g.y.padding;
  const int64_t base_x = position % across * g.x.stride - g.x.padding;
  // In the order of the CPU kernels, for the same places.
  const A y = static_cast<A>(base_y) + static_cast<A>(element / kernel_x * g.y.dilation) + to_float(offset[0]);
  const A x = static_cast<A>(base_x) + static_cast<A>(element % kernel_x * g.x.dilation) + to_float(offset[positions]);
  Place<A> place;
  const bool after = kGradient ? y >= A(-1) && x >= A(-1) : y > A(-1) && x > A(-1);  // false for a NaN
  place.inside = after && y < static_cast<A>(g.y.input) && x < static_cast<A>(g.x.input);
  const A from_y = place.inside ? y : A(0), from_x = place.inside ? x : A(0);
  place.row = static_cast<int>(from_y);
  place.column = static_cast<int>(from_x);
  if (static_cast<A>(place.row) > from_y) --place.row;
  if (static_cast<A>(place.column) > from_x) --place.column;
  place.fy = from_y - static_cast<A>(place.row);
  place.fx = from_x - static_cast<A>(place.column);
  place.mask = g.mask == nullptr ? A(1) : to_float(static_cast<const T*>(g.mask)[index * positions + p]);
  return place;
}

// The four pixels around a place, at the channel that `channel` points to in pixel (0, 0); zeros outside.
template <class T>
__device__ void read_corners(const DeformGeometry& g, const Place<Accumulate<T>>& place, const T* channel,
                             Accumulate<T> (&corner)[2][2]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int64_t pixel = static_cast<int64_t>(place.row + i) * g.x.input + (place.column + j);
      corner[i][j] = place.has(i, j, g) ? to_float(channel[pixel * g.in_channels]) : Accumulate<T>(0);
    }
  }
}

// mask * sample: one element of a column, of channel c.
template <class T>
__device__ Accumulate<T> column_of(const DeformGeometry& g, int64_t n, int64_t tap, int64_t p, int64_t c) {
  using A = Accumulate<T>;
  const Place<A> place = find_place<T, false>(g, n, c / (g.in_channels / g.offset_groups), tap, p);
  A corner[2][2];
  const int64_t pixels = g.y.input * g.x.input;
  read_corners(g, place, static_cast<const T*>(g.input) + n * pixels * g.in_channels + c, corner);
  A value = place.weight(0, 0) * corner[0][0];
  value = multiply_add(place.weight(0, 1), corner[0][1], value);
  value = multiply_add(place.weight(1, 0), corner[1][0], value);
  value = multiply_add(place.weight(1, 1), corner[1][1], value);
  return value * place.mask;
}

// ---- products -------------------------------------------------------------------------------------------------------

// A tile of 64 x 64 sums, of 256 threads with 4 x 4 each: a thread has the rows tx + 16 i and the columns 4 ty + j. Both
// factors lie in shared memory, kTileDepth products at a time.
constexpr int kTileSide = 64, kTileDepth = 32, kTileThreads = 256, kTilePitch = kTileDepth + 1;

template <class A>
struct ProductTile {
  A sum[4][4] = {};

  __device__ static int row(int i) { return static_cast<int>(threadIdx.x) % 16 + 16 * i; }
  __device__ static int column(int j) { return static_cast<int>(threadIdx.x) / 16 * 4 + j; }

  // rows [kTileSide][kTilePitch], columns [kTileDepth][kTileSide]
  __device__ void add(const A* rows, const A* columns) {
#pragma unroll(sizeof(A) == 8 ? 1 : 4)
    for (int k = 0; k < kTileDepth; ++k) {
      A a[4], b[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] = rows[row(i) * kTilePitch + k];
#pragma unroll
      for (int j = 0; j < 4; ++j) b[j] = columns[k * kTileSide + column(j)];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] = multiply_add(a[i], b[j], sum[i][j]);
      }
    }
  }

  template <class Body>
  __device__ void for_each(const Body& body) const {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) body(row(i), column(j), sum[i][j]);
    }
  }
};

// An element of the gradient of the output, or of the output.
__device__ __forceinline__ int64_t output_index(const DeformGeometry& g, int64_t n, int64_t channel, int64_t p) {
  const int64_t positions = g.y.output * g.x.output;
  return g.output_channels_last ? (n * positions + p) * g.out_channels + channel
                                : (n * g.out_channels + channel) * positions + p;
}

}  // namespace fastcv::FASTCV_VARIANT

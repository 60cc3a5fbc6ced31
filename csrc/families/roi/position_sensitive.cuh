// Position-sensitive pooling on CUDA. See families/roi/position_sensitive.h. An op gives Bins<A>, the geometry of one
// RoI:
//
//   Bins(const A* box, const RoiParams&)
//   bool empty                                                                   contributes nothing
//   A sum(const T* plane, const RoiParams&, int bin_y, int bin_x)  value of a bin from its plane
//   PixelBox pixels(const RoiParams&, int bin_y, int bin_x)        all pixels that it touches
//   A weight(const RoiParams&, int bin_y, int bin_x, int64_t y, int64_t x)   of one of those
#pragma once

#include "core/cuda/block_rank.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "families/roi/position_sensitive.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kBlockSize = 256;

struct PixelBox {
  int64_t y_low, y_high, x_low, x_high;  // the high ends are not in it
};

// ---- forward ----
//
// A block makes results of one RoI, one per thread at a time: thread after thread takes bin after bin (NCHW) or channel
// after channel (channels_last), so that writes are contiguous.
//
// Napkin maths, 2 x 490 x 50 x 84, 4000 RoIs, 7 x 7, float32: 2 M results of 16 loads, each in a sector of its own at
// worst: 1 GB through L2, some 0.2 ms.

template <class T, template <class> class Bins, bool kChannelsLast>
__global__ void __launch_bounds__(kBlockSize, 2) position_sensitive_forward_kernel(const RoiParams p) {
  using A = Accumulate<T>;
  const int64_t k = blockIdx.x;
  const A* box = static_cast<const A*>(p.boxes) + 5 * k;
  const Bins<A> roi(box, p);
  const bool none = roi.empty || !roi_batch_is_valid(box[0], p.batch);
  const unsigned pooled_width = static_cast<unsigned>(p.sampling.pooled_width);
  const unsigned bins = static_cast<unsigned>(p.sampling.bins()), items = static_cast<unsigned>(p.channels);
  const unsigned channels = items / bins;
  const T* map = static_cast<const T*>(p.features) + (none ? 0 : static_cast<int64_t>(box[0])) * p.feature_strides[0];
  for (unsigned item = blockIdx.y * kBlockSize + threadIdx.x; item < items; item += gridDim.y * kBlockSize) {
    const unsigned bin = kChannelsLast ? item / channels : item % bins;
    const unsigned c = kChannelsLast ? item % channels : item / bins;
    const int bin_y = static_cast<int>(bin / pooled_width), bin_x = static_cast<int>(bin % pooled_width);
    const int64_t channel = static_cast<int64_t>(c) * bins + bin;
    const A value = none ? A(0) : roi.sum(map + channel * p.feature_strides[1], p, bin_y, bin_x);
    const int64_t target = k * p.pooled_strides[0] + c * p.pooled_strides[1] + bin * p.pooled_strides[3];
    static_cast<T*>(p.pooled)[target] = from_float<T>(value);
  }
}

template <class T, template <class> class Bins>
void position_sensitive_forward(const RoiParams& p, Stream stream) {
  const int64_t chunks = ceil_div<int64_t>(p.channels, kBlockSize);
  const LaunchShape shape({p.rois, least(chunks, 1024)}, {kBlockSize});
  if (p.pooled_strides[1] == 1) {
    launch(position_sensitive_forward_kernel<T, Bins, true>, shape, stream, p);
  } else {
    launch(position_sensitive_forward_kernel<T, Bins, false>, shape, stream, p);
  }
}

// ---- backward ----
//
// Without atomics: a block owns kTile x kTile pixels of one channel of grad_input, one per thread. That channel serves
// one bin. The block walks the RoIs in order, kBlockSize at a time; those whose bin touches the tile are listed in
// their order, and each thread adds what its pixel gets from them.

constexpr int kTile = 16;

template <class T, template <class> class Bins>
__global__ void __launch_bounds__(kBlockSize, 2) position_sensitive_backward_kernel(const RoiParams p) {
  using A = Accumulate<T>;
  FASTCV_SHARED(int64_t, members, kBlockSize);

  const int thread = static_cast<int>(threadIdx.x);
  const unsigned tiles_x = static_cast<unsigned>(ceil_div(p.width, kTile));  // the grid fits 31 bits, so all do
  const unsigned tiles_y = static_cast<unsigned>(ceil_div(p.height, kTile));
  const unsigned channels = static_cast<unsigned>(p.channels), plane = blockIdx.x / (tiles_x * tiles_y);
  const int64_t n = plane / channels, channel = plane % channels;
  const int64_t y0 = static_cast<int64_t>(blockIdx.x / tiles_x % tiles_y) * kTile;
  const int64_t x0 = static_cast<int64_t>(blockIdx.x % tiles_x) * kTile;
  const int64_t y = y0 + thread / kTile, x = x0 + thread % kTile;
  const unsigned bins = static_cast<unsigned>(p.sampling.bins()), bin = plane % channels % bins;
  const unsigned pooled_width = static_cast<unsigned>(p.sampling.pooled_width);
  const int bin_y = static_cast<int>(bin / pooled_width), bin_x = static_cast<int>(bin % pooled_width);
  const A* boxes = static_cast<const A*>(p.boxes);
  const T* gradient =
      static_cast<const T*>(p.pooled) + plane % channels / bins * p.pooled_strides[1] + bin * p.pooled_strides[3];

  A sum = 0;
  for (int64_t k0 = 0; k0 < p.rois; k0 += kBlockSize) {
    const int64_t candidate = k0 + thread;
    bool member = false;
    if (candidate < p.rois) {
      const A* box = boxes + 5 * candidate;
      if (roi_batch_is_valid(box[0], p.batch) && static_cast<int64_t>(box[0]) == n) {
        const Bins<A> roi(box, p);
        const PixelBox range = roi.empty ? PixelBox{0, 0, 0, 0} : roi.pixels(p, bin_y, bin_x);
        member = range.y_low < y0 + kTile && range.y_high > y0 && range.x_low < x0 + kTile && range.x_high > x0;
      }
    }
    int listed;
    const int place = block_rank<kBlockSize>(member, listed);
    if (member) members[place] = candidate;
    block_sync();
    for (int m = 0; m < listed; ++m) {
      const int64_t k = members[m];
      const Bins<A> roi(boxes + 5 * k, p);
      const PixelBox range = roi.pixels(p, bin_y, bin_x);
      if (y < range.y_low || y >= range.y_high || x < range.x_low || x >= range.x_high) continue;
      const A value = static_cast<A>(to_float(gradient[k * p.pooled_strides[0]]));
      sum = multiply_add(roi.weight(p, bin_y, bin_x, y, x), value, sum);
    }
    block_sync();  // before the list is overwritten
  }
  if (y >= p.height || x >= p.width) return;
  const int64_t offset =
      n * p.feature_strides[0] + channel * p.feature_strides[1] + y * p.feature_strides[2] + x * p.feature_strides[3];
  static_cast<T*>(p.features)[offset] = from_float<T>(sum);
}

template <class T, template <class> class Bins>
void position_sensitive_backward(const RoiParams& p, Stream stream) {
  const int64_t tiles = ceil_div<int64_t>(p.width, kTile) * ceil_div<int64_t>(p.height, kTile);
  const LaunchShape shape({p.batch * p.channels * tiles}, {kBlockSize});
  launch(position_sensitive_backward_kernel<T, Bins>, shape, stream, p);
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

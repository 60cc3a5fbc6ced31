// RoIPool on CUDA. See roi_pool.h for the meaning.
#include "core/cuda/block_rank.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "ops/roi_pool/roi_pool.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kBlockSize = 256;

// ---- forward ----
//
// A block pools kForwardChannels channels of one RoI, one output per thread at a time: thread after thread takes bin
// after bin (NCHW) or channel after channel (channels_last), so that writes are contiguous.
//
// Napkin maths, 2 x 256 x 50 x 84, 4000 RoIs, 7 x 7, float32: 200 MB of values and 200 MB of argmax are written, 93 us
// at 4.3 TB/s; the map stays in L2.

constexpr int kForwardChannels = 64;

template <class T, bool kChannelsLast>
__global__ void __launch_bounds__(kBlockSize, 2) roi_pool_forward_kernel(const RoiPoolParams p) {
  using A = Accumulate<T>;
  const int64_t k = blockIdx.x;
  const int64_t c0 = static_cast<int64_t>(blockIdx.y) * kForwardChannels;
  const int channels = static_cast<int>(least(p.channels - c0, kForwardChannels));
  const int pooled_width = static_cast<int>(p.pooled_width);
  const int bins = static_cast<int>(p.pooled_height) * pooled_width;
  const A* box = static_cast<const A*>(p.boxes) + 5 * k;
  const RoiPoolGeometry<A> roi = roi_pool_geometry(box, p);
  const bool none = roi.empty || !roi_batch_is_valid(box[0], p.batch);
  const int64_t n = none ? 0 : static_cast<int64_t>(box[0]);
  const T* map = static_cast<const T*>(p.features) + n * p.feature_strides[0];

  for (int item = static_cast<int>(threadIdx.x); item < bins * channels; item += kBlockSize) {
    const int bin = kChannelsLast ? item / channels : item % bins;
    const int64_t c = c0 + (kChannelsLast ? item % channels : item / bins);
    const PixelRange y = pixels_of_bin(roi.y, bin / pooled_width, p.height);
    const PixelRange x = pixels_of_bin(roi.x, bin % pooled_width, p.width);
    const bool empty = none || y.high <= y.low || x.high <= x.low;
    A largest = empty ? A(0) : static_cast<A>(kLowest);
    int64_t where = -1;
    if (!empty) {
      const T* plane = map + c * p.feature_strides[1];
      for (int64_t i = y.low; i < y.high; ++i) {
        for (int64_t j = x.low; j < x.high; ++j) {
          const A value = to_float(plane[i * p.feature_strides[2] + j * p.feature_strides[3]]);
          if (!(value > largest)) continue;
          largest = value;
          where = i * p.width + j;
        }
      }
    }
    const int64_t target = k * p.pooled_strides[0] + c * p.pooled_strides[1] + bin * p.pooled_strides[3];
    static_cast<T*>(p.pooled)[target] = from_float<T>(largest);
    if (p.argmax != nullptr) p.argmax[target] = static_cast<int32_t>(where);
  }
}

template <class T>
void forward(const RoiPoolParams& p, Stream stream) {
  const LaunchShape shape({p.rois, ceil_div<int64_t>(p.channels, kForwardChannels)}, {kBlockSize});
  if (p.pooled_strides[1] == 1) {
    launch(roi_pool_forward_kernel<T, true>, shape, stream, p);
  } else {
    launch(roi_pool_forward_kernel<T, false>, shape, stream, p);
  }
}

// ---- backward ----
//
// Without atomics: a block owns a tile of kTile x kTile pixels and kTileChannels channels, and walks the RoIs in order,
// kBlockSize at a time. Those that touch the tile are listed in their order; each thread owns a pixel and kPerThread
// channels of it, finds the bins that hold its pixel, and adds the gradient of those whose argmax it is.

constexpr int kTile = 8;
constexpr int kTileChannels = 16;
constexpr int kPerThread = kTile * kTile * kTileChannels / kBlockSize;

template <class A>
__device__ bool touches(const QuantisedAxis<A>& axis, int64_t bins, int64_t first, int64_t size) {
  const PixelRange low = pixels_of_bin(axis, 0, size), high = pixels_of_bin(axis, bins - 1, size);
  return low.low < first + kTile && high.high > first;
}

// The bins whose range holds the pixel: those from first up to last.
template <class A>
__device__ void bins_of_pixel(const QuantisedAxis<A>& axis, int64_t bins, int64_t pixel, int64_t size, int* first,
                              int* last) {
  *first = static_cast<int>(bins);
  *last = -1;
  for (int bin = 0; bin < bins; ++bin) {
    const PixelRange range = pixels_of_bin(axis, bin, size);
    if (pixel < range.low) break;
    if (pixel >= range.high) continue;
    if (*last < 0) *first = bin;
    *last = bin;
  }
}

template <class T>
__global__ void __launch_bounds__(kBlockSize, 2) roi_pool_backward_kernel(const RoiPoolParams p) {
  using A = Accumulate<T>;
  FASTCV_SHARED(int64_t, members, kBlockSize);

  const int thread = static_cast<int>(threadIdx.x);
  const unsigned tiles_x = static_cast<unsigned>(ceil_div(p.width, kTile));  // the grid fits 31 bits, so all do
  const unsigned tiles_y = static_cast<unsigned>(ceil_div(p.height, kTile));
  const int64_t n = blockIdx.x / (tiles_x * tiles_y);
  const int64_t y0 = static_cast<int64_t>(blockIdx.x / tiles_x % tiles_y) * kTile;
  const int64_t x0 = static_cast<int64_t>(blockIdx.x % tiles_x) * kTile;
  const int64_t c0 = static_cast<int64_t>(blockIdx.y) * kTileChannels + thread / (kTile * kTile) * kPerThread;
  const int64_t y = y0 + thread / kTile % kTile, x = x0 + thread % kTile;
  const bool mine = y < p.height && x < p.width && c0 < p.channels;
  const int channels = mine ? static_cast<int>(least(p.channels - c0, kPerThread)) : 0;
  const int here = static_cast<int>(y * p.width + x);
  const A* boxes = static_cast<const A*>(p.boxes);

  A sum[kPerThread] = {};
  for (int64_t k0 = 0; k0 < p.rois; k0 += kBlockSize) {
    const int64_t candidate = k0 + thread;
    bool member = false;
    if (candidate < p.rois) {
      const A* box = boxes + 5 * candidate;
      const RoiPoolGeometry<A> roi = roi_pool_geometry(box, p);
      member = !roi.empty && roi_batch_is_valid(box[0], p.batch) && static_cast<int64_t>(box[0]) == n &&
               touches(roi.y, p.pooled_height, y0, p.height) && touches(roi.x, p.pooled_width, x0, p.width);
    }
    int listed;
    const int place = block_rank<kBlockSize>(member, listed);
    if (member) members[place] = candidate;
    block_sync();

    for (int m = 0; mine && m < listed; ++m) {
      const int64_t k = members[m];
      const RoiPoolGeometry<A> roi = roi_pool_geometry(boxes + 5 * k, p);
      int first_y, last_y, first_x, last_x;
      bins_of_pixel(roi.y, p.pooled_height, y, p.height, &first_y, &last_y);
      if (last_y < 0) continue;
      bins_of_pixel(roi.x, p.pooled_width, x, p.width, &first_x, &last_x);
      for (int bin_y = first_y; bin_y <= last_y; ++bin_y) {
        for (int bin_x = first_x; bin_x <= last_x; ++bin_x) {
          const int64_t offset = k * p.pooled_strides[0] + c0 * p.pooled_strides[1] + bin_y * p.pooled_strides[2] +
                                 bin_x * p.pooled_strides[3];
#pragma unroll
          for (int i = 0; i < kPerThread; ++i) {
            if (i >= channels || p.argmax[offset + i * p.pooled_strides[1]] != here) continue;
            sum[i] += to_float(static_cast<const T*>(p.pooled)[offset + i * p.pooled_strides[1]]);
          }
        }
      }
    }
    block_sync();  // before the list is overwritten
  }

#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    if (i >= channels) continue;
    const int64_t offset = n * p.feature_strides[0] + (c0 + i) * p.feature_strides[1] + y * p.feature_strides[2] +
                           x * p.feature_strides[3];
    static_cast<T*>(p.features)[offset] = from_float<T>(sum[i]);
  }
}

template <class T>
void backward(const RoiPoolParams& p, Stream stream) {
  const int64_t tiles = ceil_div<int64_t>(p.width, kTile) * ceil_div<int64_t>(p.height, kTile);
  const LaunchShape shape({p.batch * tiles, ceil_div<int64_t>(p.channels, kTileChannels)}, {kBlockSize});
  launch(roi_pool_backward_kernel<T>, shape, stream, p);
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void roi_pool_forward_cuda(const RoiPoolParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) { forward<typename decltype(tag)::type>(params, stream); });
}

void roi_pool_backward_cuda(const RoiPoolParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) { backward<typename decltype(tag)::type>(params, stream); });
}

}  // namespace fastcv

// Pooling regions of interest by bilinear sampling, from one map or a pyramid of them, in one launch: the kernels of
// RoIAlign and MultiScaleRoIAlign.
#include "core/cuda/launch.cuh"
#include "core/cuda/pack.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "families/roi/roi_vector.cuh"
#include "ops/roi_align/roi_align.h"
#include "ops/roi_align/roi_scatter.cuh"

namespace fastcv::FASTCV_VARIANT {
namespace {

// A block pools some channels of one RoI. Its first threads work out the weights of the two axes, one thread per bin,
// into shared memory: for each bin the distinct pixels that its samples touch. Then, channels_last, every thread makes
// kVector channels of a bin at a time, thread after thread taking channel after channel. NCHW, a thread owns a bin,
// keeps weights and offsets of up to kBinTaps x kBinTaps pixels in registers and walks the channels. Either way writes
// are contiguous, and reads of neighbours fall into the same cache lines.
//
// Napkin maths, 2 x 256 x 50 x 84, 4000 RoIs, 7 x 7, float32: 200 MB are written and 8.6 MB read (they stay in L2), so
// 49 us at 4.3 TB/s. About six taps per output make 313 M loads, 9.8 M per warp; at some eight 32-byte sectors each
// NCHW needs 80 us of L1 time on 132 SMs, channels_last with 16-byte loads a quarter of that. Instructions, NCHW: five
// a tap and eight for the rest are 40 an output, 63 M per warp: 70 us of 132 x 4 issue slots.

constexpr int kForwardChannels = 64, kManyChannels = 256;
constexpr int kManyRois = 1024;  // from here on a block takes kManyChannels: its start is shared by more
constexpr int kBinTaps = 4;
constexpr int kTapCapacity = 512;  // entries per axis, divided evenly among the bins

template <class A>
struct BinTaps {
  int count;
  const int* pixel;
  const A* weight;
};

// One axis of a RoI in shared memory.
template <class A>
struct SharedTaps {
  int* count;   // [bins]
  int* pixel;   // [bins][per_bin]
  A* weight;    // [bins][per_bin]
  int per_bin;  // 0 when the bins do not fit
  int most;     // no bin has more pixels

  __device__ SharedTaps(int* count, int* pixel, A* weight, const RoiAxis<A>& axis, int64_t bins, int64_t size)
      : count(count), pixel(pixel), weight(weight) {
    const int64_t needed = least(2 * axis.grid, size);
    const int room = bins < kTapCapacity ? kTapCapacity / static_cast<int>(bins) : 1;
    per_bin = needed <= room && bins <= kTapCapacity ? room : 0;
    most = static_cast<int>(least(needed, int64_t{kTapCapacity}));
  }

  // The distinct pixels of a bin, ascending, with their weights; the mean over the samples is folded in.
  __device__ void fill(const RoiAxis<A>& axis, int bin, int64_t size) const {
    int* bin_pixel = pixel + bin * per_bin;
    A* bin_weight = weight + bin * per_bin;
    const A scale = A(1) / static_cast<A>(axis.grid > 0 ? axis.grid : 1);
    int n = 0;
    const auto add = [&](int64_t new_pixel, A new_weight) {
      for (int back = n - 1; back >= 0 && back >= n - 2; --back) {
        if (bin_pixel[back] == new_pixel) {
          bin_weight[back] += new_weight;
          return;
        }
      }
      bin_pixel[n] = static_cast<int>(new_pixel);
      bin_weight[n++] = new_weight;
    };
    for (int64_t i = 0; i < axis.grid; ++i) {
      const BilinearTap<A> tap = roi_sample(axis, bin, ascending_sample(axis, i), size);
      if (!tap.inside) continue;
      add(tap.low, tap.weight_low * scale);
      if (tap.high != tap.low) add(tap.high, tap.weight_high * scale);
    }
    count[bin] = n;
  }

  __device__ BinTaps<A> at(int bin) const { return {count[bin], pixel + bin * per_bin, weight + bin * per_bin}; }
};

// One bin sample by sample, for RoIs whose taps do not fit in shared memory.
template <class T, int kVector>
__device__ void pool_samples(const T* map, const RoiGeometry<Accumulate<T>>& roi, int bin_y, int bin_x,
                             const RoiLevel& level, Accumulate<T> (&sum)[kVector]) {
  using A = Accumulate<T>;
  const A scale = A(1) / (static_cast<A>(roi.y.grid) * static_cast<A>(roi.x.grid));
  const int64_t stride_y = level.strides[2], stride_x = level.strides[3];
  for (int64_t i = 0; i < roi.y.grid; ++i) {
    const BilinearTap<A> y = roi_sample(roi.y, bin_y, i, level.height);
    if (!y.inside) continue;
    for (int64_t j = 0; j < roi.x.grid; ++j) {
      const BilinearTap<A> x = roi_sample(roi.x, bin_x, j, level.width);
      if (!x.inside) continue;
      add_pixel(map + y.low * stride_y + x.low * stride_x, y.weight_low * x.weight_low * scale, sum);
      add_pixel(map + y.low * stride_y + x.high * stride_x, y.weight_low * x.weight_high * scale, sum);
      add_pixel(map + y.high * stride_y + x.low * stride_x, y.weight_high * x.weight_low * scale, sum);
      add_pixel(map + y.high * stride_y + x.high * stride_x, y.weight_high * x.weight_high * scale, sum);
    }
  }
}

// The channels first, first + step ... of a bin of at most kBinTaps x kBinTaps pixels.
template <class T>
__device__ __forceinline__ void pool_planes(const T* plane, int64_t plane_stride, const int (&strides)[2],
                                            const BinTaps<Accumulate<T>>& y, const BinTaps<Accumulate<T>>& x, int first,
                                            int step, int channels, T* pooled, int64_t pooled_stride) {
  using A = Accumulate<T>;
  int offset[kBinTaps][kBinTaps];
  A weight[kBinTaps][kBinTaps];
#pragma unroll
  for (int i = 0; i < kBinTaps; ++i) {
#pragma unroll
    for (int j = 0; j < kBinTaps; ++j) {
      const bool exists = i < y.count && j < x.count;
      offset[i][j] = exists ? y.pixel[i] * strides[0] + x.pixel[j] * strides[1] : 0;
      weight[i][j] = exists ? y.weight[i] * x.weight[j] : A(0);
    }
  }
  plane += first * plane_stride;
  pooled += first * pooled_stride;
  for (int c = first; c < channels; c += step) {
    A sum = 0;
#pragma unroll
    for (int i = 0; i < kBinTaps; ++i) {
      if (i >= y.count) break;
#pragma unroll
      for (int j = 0; j < kBinTaps; ++j) {
        if (j < x.count) sum = multiply_add(weight[i][j], static_cast<A>(to_float(plane[offset[i][j]])), sum);
      }
    }
    *pooled = from_float<T>(sum);
    plane += step * plane_stride;
    pooled += step * pooled_stride;
  }
}

template <class T, int kVector, bool kChannelsLast>
__global__ void __launch_bounds__(kBlockSize, 2) pool_rois_kernel(const RoiPyramid p, int channels_of_block) {
  using A = Accumulate<T>;
  FASTCV_SHARED(int, count_y, kTapCapacity);
  FASTCV_SHARED(int, count_x, kTapCapacity);
  FASTCV_SHARED(int, pixel_y, kTapCapacity);
  FASTCV_SHARED(int, pixel_x, kTapCapacity);
  FASTCV_SHARED(A, weight_y, kTapCapacity);
  FASTCV_SHARED(A, weight_x, kTapCapacity);

  const int64_t k = blockIdx.x;
  const int64_t c0 = static_cast<int64_t>(blockIdx.y) * channels_of_block;
  const int channels = static_cast<int>(least(p.channels - c0, channels_of_block));
  const int pooled_height = static_cast<int>(p.sampling.pooled_height);
  const int pooled_width = static_cast<int>(p.sampling.pooled_width);
  const int bins = pooled_height * pooled_width;
  const A* box = static_cast<const A*>(p.boxes) + 5 * k;
  const int index = roi_level(box, p);
  const RoiLevel level = p.levels[index < 0 ? 0 : index];
  const RoiGeometry<A> roi = roi_geometry(box, level.spatial_scale, p.sampling);
  const bool empty =
      index < 0 || roi.empty || !roi_batch_is_valid(box[0], p.batch) || level.height == 0 || level.width == 0;

  const SharedTaps<A> y(count_y, pixel_y, weight_y, roi.y, pooled_height, level.height);
  const SharedTaps<A> x(count_x, pixel_x, weight_x, roi.x, pooled_width, level.width);
  const bool fits = y.per_bin > 0 && x.per_bin > 0;
  if (fits && !empty) {
    const int thread = static_cast<int>(threadIdx.x);
    for (int bin = thread; bin < pooled_height + pooled_width; bin += kBlockSize) {
      if (bin < pooled_height) {
        y.fill(roi.y, bin, level.height);
      } else {
        x.fill(roi.x, bin - pooled_height, level.width);
      }
    }
  }
  block_sync();

  const int64_t n = empty ? 0 : static_cast<int64_t>(box[0]);
  const T* map = static_cast<const T*>(level.features) + n * level.strides[0] + c0 * level.strides[1];
  T* pooled = static_cast<T*>(p.pooled) + k * p.pooled_strides[0] + c0 * p.pooled_strides[1];
  if constexpr (!kChannelsLast) {
    const int64_t reach = level.height * level.strides[2] + level.width * level.strides[3];
    if (fits && !empty && y.most <= kBinTaps && x.most <= kBinTaps && reach < 0x7fffffff) {
      const int thread = static_cast<int>(threadIdx.x), at_once = greatest(kBlockSize / bins, 1);
      const int strides[2] = {static_cast<int>(level.strides[2]), static_cast<int>(level.strides[3])};
      if (at_once > 1 && thread >= at_once * bins) return;
      for (int bin = at_once > 1 ? thread % bins : thread; bin < bins; bin += kBlockSize) {
        const int bin_y = bin / pooled_width, bin_x = bin % pooled_width;
        T* const target = pooled + bin_y * p.pooled_strides[2] + bin_x * p.pooled_strides[3];
        pool_planes(map, level.strides[1], strides, y.at(bin_y), x.at(bin_x), at_once > 1 ? thread / bins : 0, at_once,
                    channels, target, p.pooled_strides[1]);
      }
      return;
    }
  }
  const int vectors = channels / kVector;
  for (int item = static_cast<int>(threadIdx.x); item < bins * vectors; item += kBlockSize) {
    const int bin = kChannelsLast ? item / vectors : item % bins;
    const int c = (kChannelsLast ? item % vectors : item / bins) * kVector;
    const int bin_y = bin / pooled_width, bin_x = bin % pooled_width;
    const T* plane = map + c * level.strides[1];
    A sum[kVector] = {};
    if (empty) {
    } else if (fits) {
      const BinTaps<A> taps_y = y.at(bin_y), taps_x = x.at(bin_x);
      for (int i = 0; i < taps_y.count; ++i) {
        const T* row = plane + taps_y.pixel[i] * level.strides[2];
        for (int j = 0; j < taps_x.count; ++j) {
          add_pixel(row + taps_x.pixel[j] * level.strides[3], taps_y.weight[i] * taps_x.weight[j], sum);
        }
      }
    } else {
      pool_samples(plane, roi, bin_y, bin_x, level, sum);
    }
    Pack<T, kVector> result;
    for (int v = 0; v < kVector; ++v) result.value[v] = from_float<T>(sum[v]);
    T* target = pooled + c * p.pooled_strides[1] + bin_y * p.pooled_strides[2] + bin_x * p.pooled_strides[3];
    store_pack(target, result);
  }
}

// Whether kVector channels can be moved as one, on both sides.
template <class T, int kVector>
bool can_vectorise(const RoiPyramid& p) {
  bool even = p.channels % kVector == 0 && moves_as_one<T, kVector>(p.pooled, p.pooled_strides);
  for (int l = 0; l < p.level_count; ++l) {
    even = even && moves_as_one<T, kVector>(p.levels[l].features, p.levels[l].strides);
  }
  return even;
}

template <class T>
void pool_rois(const RoiPyramid& p, Stream stream) {
  constexpr int kVector = 16 / sizeof(T);
  const int channels = p.rois >= kManyRois ? kManyChannels : kForwardChannels;
  const LaunchShape shape({p.rois, ceil_div<int64_t>(p.channels, channels)}, {kBlockSize});
  if (can_vectorise<T, kVector>(p)) {
    launch(pool_rois_kernel<T, kVector, true>, shape, stream, p, channels);
  } else if (p.pooled_strides[1] == 1) {
    launch(pool_rois_kernel<T, 1, true>, shape, stream, p, channels);
  } else {
    launch(pool_rois_kernel<T, 1, false>, shape, stream, p, channels);
  }
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void roi_align_forward_cuda(const RoiPyramid& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) { pool_rois<typename decltype(tag)::type>(params, stream); });
}

void roi_align_backward_cuda(const RoiPyramid& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) { scatter_rois<typename decltype(tag)::type>(params, stream); });
}

}  // namespace fastcv

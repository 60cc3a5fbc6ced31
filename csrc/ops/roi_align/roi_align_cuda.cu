// Pooling regions of interest by bilinear sampling, from one map or a pyramid of them, in one launch: the kernels of
// RoIAlign and MultiScaleRoIAlign.
#include "core/cuda/block_rank.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "families/roi/roi_vector.cuh"
#include "ops/roi_align/roi_align.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kBlockSize = 256;

// ---- forward ----
//
// A block pools kForwardChannels channels of one RoI. Its first threads work out the weights of the two axes, one
// thread per bin, into shared memory: for each bin the distinct pixels that its samples touch. Then every thread makes
// one output at a time: thread after thread takes bin after bin (NCHW) or channel after channel (channels_last, kVector
// channels at once), so that writes are contiguous, and reads of neighbours fall into the same cache lines.
//
// Napkin maths, 2 x 256 x 50 x 84, 4000 RoIs, 7 x 7, float32: 200 MB are written and 8.6 MB read (they stay in L2), so
// 49 us at 4.3 TB/s. About six taps per output make 313 M loads, 9.8 M per warp; at some eight 32-byte sectors each
// NCHW needs 80 us of L1 time on 132 SMs, channels_last with 16-byte loads a quarter of that.

constexpr int kForwardChannels = 64;
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

  __device__ SharedTaps(int* count, int* pixel, A* weight, const RoiAxis<A>& axis, int64_t bins, int64_t size)
      : count(count), pixel(pixel), weight(weight) {
    const int64_t needed = least(2 * axis.grid, size);
    const int room = bins < kTapCapacity ? kTapCapacity / static_cast<int>(bins) : 1;
    per_bin = needed <= room && bins <= kTapCapacity ? room : 0;
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

template <class T, int kVector, bool kChannelsLast>
__global__ void __launch_bounds__(kBlockSize, 2) pool_rois_kernel(const RoiPyramid p) {
  using A = Accumulate<T>;
  FASTCV_SHARED(int, count_y, kTapCapacity);
  FASTCV_SHARED(int, count_x, kTapCapacity);
  FASTCV_SHARED(int, pixel_y, kTapCapacity);
  FASTCV_SHARED(int, pixel_x, kTapCapacity);
  FASTCV_SHARED(A, weight_y, kTapCapacity);
  FASTCV_SHARED(A, weight_x, kTapCapacity);

  const int64_t k = blockIdx.x;
  const int64_t c0 = static_cast<int64_t>(blockIdx.y) * kForwardChannels;
  const int channels = static_cast<int>(least(p.channels - c0, kForwardChannels));
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
    *reinterpret_cast<Pack<T, kVector>*>(target) = result;
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
  const LaunchShape shape({p.rois, ceil_div<int64_t>(p.channels, kForwardChannels)}, {kBlockSize});
  if (can_vectorise<T, kVector>(p)) {
    launch(pool_rois_kernel<T, kVector, true>, shape, stream, p);
  } else if (p.pooled_strides[1] == 1) {
    launch(pool_rois_kernel<T, 1, true>, shape, stream, p);
  } else {
    launch(pool_rois_kernel<T, 1, false>, shape, stream, p);
  }
}

// ---- backward ----
//
// Without atomics: a block owns a tile of kTile x kTile pixels and kTileChannels channels of grad_input, and walks the
// RoIs in order, kBlockSize at a time. Each thread looks whether one RoI touches the tile; those that do are listed in
// their order. For each of them the block works out the weights of the tile's rows and columns in every bin (kBinChunk
// bins per axis at a time), and each thread adds what its own pixels get, in a fixed order, in registers. Nothing is
// written but the result, once. Lanes run over pixels (NCHW) or over channels (channels_last).

constexpr int kTile = 8;
constexpr int kTileChannels = 16;
constexpr int kBinChunk = 32;
constexpr int kPerThread = kTile * kTile * kTileChannels / kBlockSize;

// Whether samples of the axis can touch the pixels [first, first + kTile); errs on the side of yes.
template <class A>
FASTCV_HD bool touches(const RoiAxis<A>& axis, int64_t bins, int64_t first) {
  const A end = axis.start + axis.size * static_cast<A>(bins);
  const A low = least(axis.start, end), high = greatest(axis.start, end);
  return high + A(2) >= static_cast<A>(first) && low - A(2) <= static_cast<A>(first + kTile);
}

// weight[bin][pixel] of the tile for bins [bin0, bin0 + kBinChunk), and for each pixel the bins that have any.
template <class A>
__device__ void fill_tile_weights(A* weight, int* first_bin, int* last_bin, const RoiAxis<A>& axis, int64_t bins,
                                  int64_t bin0, int64_t pixel0, int64_t size) {
  const int count = static_cast<int>(least(bins - bin0, kBinChunk));
  for (int i = static_cast<int>(threadIdx.x); i < count * kTile; i += kBlockSize) {
    weight[i] = roi_axis_weight(axis, bin0 + i / kTile, pixel0 + i % kTile, size);
  }
  block_sync();
  if (threadIdx.x < kTile) {
    int first = count, last = -1;
    for (int bin = 0; bin < count; ++bin) {
      if (weight[bin * kTile + threadIdx.x] == A(0)) continue;
      if (first == count) first = bin;
      last = bin;
    }
    first_bin[threadIdx.x] = first;
    last_bin[threadIdx.x] = last;
  }
  block_sync();
}

// What a block owns: the tile at (y0, x0) of image n of a level.
struct PyramidTile {
  int level;
  int64_t n, y0, x0;
};

// The tiles of level 0 come first, image after image. The grid fits 31 bits, so all these numbers do.
inline __device__ PyramidTile tile_of_block(const RoiPyramid& p, unsigned tile) {
  int level = 0;
  unsigned tiles_x = 0, tiles_y = 0;
  for (; level < p.level_count; ++level) {
    tiles_x = static_cast<unsigned>(ceil_div(p.levels[level].width, kTile));
    tiles_y = static_cast<unsigned>(ceil_div(p.levels[level].height, kTile));
    const unsigned tiles = static_cast<unsigned>(p.batch) * tiles_x * tiles_y;
    if (tile < tiles) break;
    tile -= tiles;
  }
  return {level, tile / (tiles_x * tiles_y), static_cast<int64_t>(tile / tiles_x % tiles_y) * kTile,
          static_cast<int64_t>(tile % tiles_x) * kTile};
}

// Whether a RoI may give something to the tile.
template <class A>
__device__ bool touches(const A* box, const PyramidTile& tile, const RoiPyramid& p, double spatial_scale) {
  const RoiGeometry<A> roi = roi_geometry(box, spatial_scale, p.sampling);
  return !roi.empty && roi_batch_is_valid(box[0], p.batch) && static_cast<int64_t>(box[0]) == tile.n &&
         touches(roi.y, p.sampling.pooled_height, tile.y0) && touches(roi.x, p.sampling.pooled_width, tile.x0) &&
         roi_level(box, p) == tile.level;
}

template <class T, bool kChannelsLast>
__global__ void __launch_bounds__(kBlockSize, 2) scatter_rois_kernel(const RoiPyramid p) {
  using A = Accumulate<T>;
  FASTCV_SHARED(A, weight_y, kBinChunk * kTile);
  FASTCV_SHARED(A, weight_x, kBinChunk * kTile);
  FASTCV_SHARED(int, first_y, kTile);
  FASTCV_SHARED(int, last_y, kTile);
  FASTCV_SHARED(int, first_x, kTile);
  FASTCV_SHARED(int, last_x, kTile);
  FASTCV_SHARED(int64_t, members, kBlockSize);

  const int thread = static_cast<int>(threadIdx.x);
  const PyramidTile tile = tile_of_block(p, blockIdx.x);
  const RoiLevel level = p.levels[tile.level];
  const int64_t y0 = tile.y0, x0 = tile.x0, c0 = static_cast<int64_t>(blockIdx.y) * kTileChannels;
  const A* boxes = static_cast<const A*>(p.boxes);

  // The pixel and channel of this thread's i-th element.
  const auto pixel_of = [&](int i) {
    return kChannelsLast ? thread / kTileChannels * kPerThread + i : thread % (kTile * kTile);
  };
  const auto channel_of = [&](int i) {
    return kChannelsLast ? thread % kTileChannels : thread / (kTile * kTile) * kPerThread + i;
  };

  A sum[kPerThread] = {};
  for (int64_t k0 = 0; k0 < p.rois; k0 += kBlockSize) {
    // The RoIs of this round that touch the tile, in their order.
    const int64_t candidate = k0 + thread;
    const bool member = candidate < p.rois && touches(boxes + 5 * candidate, tile, p, level.spatial_scale);
    int listed;
    const int place = block_rank<kBlockSize>(member, listed);
    if (member) members[place] = candidate;
    block_sync();

    for (int m = 0; m < listed; ++m) {
      const int64_t k = members[m];
      const RoiGeometry<A> roi = roi_geometry(boxes + 5 * k, level.spatial_scale, p.sampling);
      const T* pooled = static_cast<const T*>(p.pooled) + k * p.pooled_strides[0] + c0 * p.pooled_strides[1];
      for (int64_t bin_y0 = 0; bin_y0 < p.sampling.pooled_height; bin_y0 += kBinChunk) {
        fill_tile_weights(weight_y, first_y, last_y, roi.y, p.sampling.pooled_height, bin_y0, y0, level.height);
        for (int64_t bin_x0 = 0; bin_x0 < p.sampling.pooled_width; bin_x0 += kBinChunk) {
          fill_tile_weights(weight_x, first_x, last_x, roi.x, p.sampling.pooled_width, bin_x0, x0, level.width);
          for (int i = 0; i < kPerThread; ++i) {
            if (c0 + channel_of(i) >= p.channels) continue;
            const int y = pixel_of(i) / kTile, x = pixel_of(i) % kTile;
            const T* gradient = pooled + channel_of(i) * p.pooled_strides[1];
            for (int bin_y = first_y[y]; bin_y <= last_y[y]; ++bin_y) {
              const T* row = gradient + (bin_y0 + bin_y) * p.pooled_strides[2] + bin_x0 * p.pooled_strides[3];
              for (int bin_x = first_x[x]; bin_x <= last_x[x]; ++bin_x) {
                const A weight = weight_y[bin_y * kTile + y] * weight_x[bin_x * kTile + x];
                sum[i] = multiply_add(weight, static_cast<A>(to_float(row[bin_x * p.pooled_strides[3]])), sum[i]);
              }
            }
          }
          block_sync();  // before the weights are overwritten
        }
      }
    }
    block_sync();  // before the list is
  }

  for (int i = 0; i < kPerThread; ++i) {
    const int64_t y = y0 + pixel_of(i) / kTile, x = x0 + pixel_of(i) % kTile, c = c0 + channel_of(i);
    if (y >= level.height || x >= level.width || c >= p.channels) continue;
    const int64_t offset =
        tile.n * level.strides[0] + c * level.strides[1] + y * level.strides[2] + x * level.strides[3];
    static_cast<T*>(level.features)[offset] = from_float<T>(sum[i]);
  }
}

template <class T>
void scatter_rois(const RoiPyramid& p, Stream stream) {
  int64_t tiles = 0;
  for (int l = 0; l < p.level_count; ++l) {
    tiles += ceil_div<int64_t>(p.levels[l].width, kTile) * ceil_div<int64_t>(p.levels[l].height, kTile);
  }
  const LaunchShape shape({p.batch * tiles, ceil_div<int64_t>(p.channels, kTileChannels)}, {kBlockSize});
  if (p.levels[0].strides[1] == 1) {
    launch(scatter_rois_kernel<T, true>, shape, stream, p);
  } else {
    launch(scatter_rois_kernel<T, false>, shape, stream, p);
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

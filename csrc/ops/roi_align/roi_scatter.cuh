// The gradient of RoIAlign on CUDA, without atomics: a block owns a tile of kTile x kTile pixels and kTileChannels
// channels of the gradient and adds to it, in registers, what the RoIs give that touch it, in their order. Nothing is
// written but the result, once.
//
// A first launch notes as bits which RoIs touch which tile, a warp for each 32 of them. The blocks of a tile list its
// RoIs from the bits, and take kMembers of the list at once: the weights of the tile's rows and columns in each of their
// bins go to shared memory (kBinChunk bins per axis at a time); then each thread adds for its own pixels, RoI after RoI.
// Lanes run over pixels (NCHW) or over channels (channels_last).
//
// Napkin maths, 2 x 256 x 50 x 84, 1000 RoIs, 7 x 7, float32: 50 MB of pooled gradients, 12 us at 4.3 TB/s, are read out
// of L2 as often as a RoI has tiles, some 9 times: 80 us at 5.5 TB/s. Six taps an output are 75 M multiply-adds with a
// load each: 2.4 M per warp of five instructions, 13 us of 132 x 4 issue slots. The bits: 154 tiles x 1000 RoIs of 150
// instructions, 1 us.
#pragma once

#include "core/cuda/launch.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "ops/roi_align/roi_align.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kBlockSize = 256;
constexpr int kTile = static_cast<int>(kRoiTile);
constexpr int kTileChannels = 64;
constexpr int kBinChunk = 32;
constexpr int kMembers = 8;
constexpr int kListed = 32 * static_cast<int>(kWarpSize);  // RoIs whose bits are looked at in one round
constexpr int kPerThread = kTile * kTile * kTileChannels / kBlockSize;

// Whether samples of the axis can touch the pixels [first, first + kTile); errs on the side of yes.
template <class A>
FASTCV_HD bool touches(const RoiAxis<A>& axis, int64_t bins, int64_t first) {
  const A end = axis.start + axis.size * static_cast<A>(bins);
  const A low = least(axis.start, end), high = greatest(axis.start, end);
  return high + A(2) >= static_cast<A>(first) && low - A(2) <= static_cast<A>(first + kTile);
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

// Bit i of touched[tile * words + word]: RoI 32 * word + i touches the tile. A warp for each word.
template <class A>
__global__ void __launch_bounds__(kBlockSize, 2)
    touched_tiles_kernel(const RoiPyramid p, int64_t tiles, int64_t words, uint32_t* touched) {
  const int64_t warp = (static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x) / kWarpSize;
  if (warp >= tiles * words) return;
  const PyramidTile tile = tile_of_block(p, static_cast<unsigned>(warp / words));
  const int64_t k = warp % words * 32 + lane_id();
  const bool touch =
      k < p.rois && touches(static_cast<const A*>(p.boxes) + 5 * k, tile, p, p.levels[tile.level].spatial_scale);
  const uint32_t bits = warp_ballot(kFullMask, touch);
  if (lane_id() == 0) touched[warp] = bits;
}

// One warp lists the RoIs of the words first, first + 1 ... first + 31, as far as there are any; returns their number.
__device__ inline int list_members(const uint32_t* touched, int64_t first, int64_t words, int64_t* members) {
  const int lane = static_cast<int>(lane_id());
  uint32_t bits = first + lane < words ? touched[first + lane] : 0;
  int before = count_lanes(bits);
  const int own = before;
  for (unsigned distance = 1; distance < kWarpSize; distance *= 2) {
    const int other = warp_shuffle_up(kFullMask, before, distance);
    if (lane >= static_cast<int>(distance)) before += other;
  }
  const int listed = warp_shuffle(kFullMask, before, static_cast<int>(kWarpSize) - 1);
  for (int place = before - own; bits != 0; bits &= bits - 1) {
    members[place++] = (first + lane) * 32 + first_lane(bits);
  }
  return listed;
}

// The weights of some RoIs in the rows or columns of the tile, in shared memory.
template <class A>
struct TileWeights {
  A* weight;          // [kMembers][kBinChunk][kTile]
  int *first, *last;  // [kMembers][kTile]: for each pixel the bins that have any

  // Of bins [bin0, bin0 + kBinChunk) of `count` RoIs; axis(m) is the axis of the m-th.
  template <class Axis>
  __device__ void fill(int count, const Axis& axis, int64_t bins, int64_t bin0, int64_t pixel0, int64_t size) const {
    const int chunk = static_cast<int>(least(bins - bin0, kBinChunk));
    for (int i = static_cast<int>(threadIdx.x); i < count * chunk * kTile; i += kBlockSize) {
      const int m = i / (chunk * kTile), bin = i / kTile % chunk, pixel = i % kTile;
      weight[(m * kBinChunk + bin) * kTile + pixel] = roi_axis_weight(axis(m), bin0 + bin, pixel0 + pixel, size);
    }
  }
  __device__ void find_ranges(int count, int64_t bins, int64_t bin0) const {
    const int chunk = static_cast<int>(least(bins - bin0, kBinChunk));
    for (int i = static_cast<int>(threadIdx.x); i < count * kTile; i += kBlockSize) {
      int low = chunk, high = -1;
      for (int bin = 0; bin < chunk; ++bin) {
        if (at(i / kTile, bin, i % kTile) == A(0)) continue;
        if (low == chunk) low = bin;
        high = bin;
      }
      first[i] = low;
      last[i] = high;
    }
  }
  __device__ A at(int m, int bin, int pixel) const { return weight[(m * kBinChunk + bin) * kTile + pixel]; }
};

// Which pixel and channel of the tile is the i-th of this thread.
template <bool kChannelsLast>
struct OwnElements {
  static __device__ int pixel(int i) {
    const int thread = static_cast<int>(threadIdx.x);
    return kChannelsLast ? thread / kTileChannels * kPerThread + i : thread % (kTile * kTile);
  }
  static __device__ int channel(int i) {
    const int thread = static_cast<int>(threadIdx.x);
    return kChannelsLast ? thread % kTileChannels : thread / (kTile * kTile) * kPerThread + i;
  }
};

// Adds to this thread's sums what one RoI gives: `gradient` is that of bin (0, 0) of the chunk and channel 0 of the tile.
template <class T, bool kChannelsLast>
__device__ __forceinline__ void add_member(const TileWeights<Accumulate<T>>& y, const TileWeights<Accumulate<T>>& x,
                                           int m, const T* gradient, const int64_t (&strides)[4], int channels,
                                           Accumulate<T> (&sum)[kPerThread]) {
  using A = Accumulate<T>;
  using Own = OwnElements<kChannelsLast>;
  const auto visit = [&](int pixel, const auto& add) {
    const int row = pixel / kTile, column = pixel % kTile;
    for (int bin_y = y.first[m * kTile + row]; bin_y <= y.last[m * kTile + row]; ++bin_y) {
      const A weight_y = y.at(m, bin_y, row);
      for (int bin_x = x.first[m * kTile + column]; bin_x <= x.last[m * kTile + column]; ++bin_x) {
        add(gradient + bin_y * strides[2] + bin_x * strides[3], weight_y * x.at(m, bin_x, column));
      }
    }
  };
  if constexpr (kChannelsLast) {
    if (Own::channel(0) >= channels) return;
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      visit(Own::pixel(i), [&](const T* bin, A weight) {
        sum[i] = multiply_add(weight, static_cast<A>(to_float(bin[Own::channel(0) * strides[1]])), sum[i]);
      });
    }
  } else {
    visit(Own::pixel(0), [&](const T* bin, A weight) {
      const T* value = bin + Own::channel(0) * strides[1];
#pragma unroll
      for (int i = 0; i < kPerThread; ++i, value += strides[1]) {
        if (Own::channel(i) < channels) sum[i] = multiply_add(weight, static_cast<A>(to_float(*value)), sum[i]);
      }
    });
  }
}

template <class T, bool kChannelsLast>
__global__ void __launch_bounds__(kBlockSize, 2)
    scatter_rois_kernel(const RoiPyramid p, int64_t words, const uint32_t* touched) {
  using A = Accumulate<T>;
  using Own = OwnElements<kChannelsLast>;
  FASTCV_SHARED(A, weight_y, kMembers * kBinChunk * kTile);
  FASTCV_SHARED(A, weight_x, kMembers * kBinChunk * kTile);
  FASTCV_SHARED(int, ranges, 4 * kMembers * kTile);
  FASTCV_SHARED(int64_t, members, kListed);
  FASTCV_SHARED(int, listed, 1);
  const TileWeights<A> of_y{weight_y, ranges, ranges + kMembers * kTile};
  const TileWeights<A> of_x{weight_x, ranges + 2 * kMembers * kTile, ranges + 3 * kMembers * kTile};
  const PyramidTile tile = tile_of_block(p, blockIdx.x);
  const RoiLevel level = p.levels[tile.level];
  const int64_t c0 = static_cast<int64_t>(blockIdx.y) * kTileChannels;
  const int channels = static_cast<int>(least(p.channels - c0, kTileChannels));
  const int64_t bins_y = p.sampling.pooled_height, bins_x = p.sampling.pooled_width;
  const A* boxes = static_cast<const A*>(p.boxes);
  touched += blockIdx.x * words;

  A sum[kPerThread] = {};
  for (int64_t first = 0; first < words; first += kWarpSize) {
    if (threadIdx.x < kWarpSize) {
      const int count = list_members(touched, first, words, members);
      if (threadIdx.x == 0) *listed = count;
    }
    block_sync();
    const int all = *listed;
    for (int m0 = 0; m0 < all; m0 += kMembers) {
      const int count = least(all - m0, kMembers);
      const auto roi = [&](int m) {
        return roi_geometry(boxes + 5 * members[m0 + m], level.spatial_scale, p.sampling);
      };
      for (int64_t y0 = 0; y0 < bins_y; y0 += kBinChunk) {
        for (int64_t x0 = 0; x0 < bins_x; x0 += kBinChunk) {
          of_y.fill(count, [&](int m) { return roi(m).y; }, bins_y, y0, tile.y0, level.height);
          of_x.fill(count, [&](int m) { return roi(m).x; }, bins_x, x0, tile.x0, level.width);
          block_sync();
          of_y.find_ranges(count, bins_y, y0);
          of_x.find_ranges(count, bins_x, x0);
          block_sync();
          for (int m = 0; m < count; ++m) {
            const T* gradient = static_cast<const T*>(p.pooled) + members[m0 + m] * p.pooled_strides[0] +
                                c0 * p.pooled_strides[1] + y0 * p.pooled_strides[2] + x0 * p.pooled_strides[3];
            add_member<T, kChannelsLast>(of_y, of_x, m, gradient, p.pooled_strides, channels, sum);
          }
          block_sync();  // before the weights are overwritten
        }
      }
    }
    block_sync();  // before the list is
  }

  for (int i = 0; i < kPerThread; ++i) {
    const int64_t y = tile.y0 + Own::pixel(i) / kTile, x = tile.x0 + Own::pixel(i) % kTile;
    if (y >= level.height || x >= level.width || Own::channel(i) >= channels) continue;
    const int64_t offset = tile.n * level.strides[0] + (c0 + Own::channel(i)) * level.strides[1] +
                           y * level.strides[2] + x * level.strides[3];
    static_cast<T*>(level.features)[offset] = from_float<T>(sum[i]);
  }
}

template <class T>
void scatter_rois(const RoiPyramid& p, Stream stream) {
  const int64_t tiles = roi_tiles(p), words = ceil_div<int64_t>(p.rois, 32);
  uint32_t* const touched = static_cast<uint32_t*>(p.workspace);
  launch(touched_tiles_kernel<Accumulate<T>>, {{grid_size(tiles * words, kBlockSize / kWarpSize)}, {kBlockSize}},
         stream, p, tiles, words, touched);
  const LaunchShape shape({tiles, ceil_div<int64_t>(p.channels, kTileChannels)}, {kBlockSize});
  if (p.levels[0].strides[1] == 1) {
    launch(scatter_rois_kernel<T, true>, shape, stream, p, words, static_cast<const uint32_t*>(touched));
  } else {
    launch(scatter_rois_kernel<T, false>, shape, stream, p, words, static_cast<const uint32_t*>(touched));
  }
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

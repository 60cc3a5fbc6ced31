// Sparse convolution on tensor cores: float16, bfloat16, and float32 where tf32 is allowed, channels in multiples of 16
// bytes.
//
// A block makes a tile of output rows by output channels of one group and keeps it in registers
// (core/cuda/mma_tile.cuh). It first looks up the neighbours of its rows for up to 32 kernel elements, all at once, and
// notes which elements any row has: the others are skipped. Rows of features and of the weight then travel to shared
// memory by asynchronous copies, two steps ahead; a missing neighbour arrives as zeros. With `order` a tile's rows are
// such as have the same elements; what a row sums, and in which order, does not depend on it.
//
// Napkin maths for an H200, SubM 3^3, 50 000 sites, 256 -> 256, float16, 8.8 neighbours of a site: 58 GFLOP that count.
// On the surface of workload G1 a tile of 128 rows has 24.8 of the 27 elements in the order of coordinates, and 10.3
// sorted (64 rows: 24.4 and 9.6; stride 2: 26.7 and 8.6, its reverse 14 and 3.4): 68 GFLOP, 0.17 ms at half of 790
// TFLOP/s. Tiles of 128 x 128 gather 64 KB for each element and as much of the weight: 391 x 2 tiles x 10.3 x 128 KB
// are 1.1 GB out of L2, 0.19 ms at 5.5 TB/s; tiles of 64 x 64 need twice that. 76 KB of shared memory and 256 threads
// of at most 128 registers let two blocks run on a multiprocessor. sm_90a has a faster kernel for this workload:
// sparse_conv_wgmma_cuda.cu.
#pragma once

#include "core/cuda/launch.cuh"
#include "core/cuda/mma_tile.cuh"
#include "core/cuda/pack.cuh"
#include "core/cuda/shared.cuh"
#include "ops/sparse_conv/sparse_conv.h"

namespace fastcv::FASTCV_VARIANT {

constexpr int kMapElements = 32;  // kernel elements that a block looks up at once

// The output row of a place in the tiles; -1: none.
inline __device__ int ordered_row(const SparseConvParams& p, int64_t place) {
  if (place >= p.outputs) return -1;
  if (p.order == nullptr) return static_cast<int>(place);
  const int row = p.order[place];
  return row >= 0 && row < p.outputs ? row : -1;
}

template <class Tile>
constexpr size_t convolve_mma_bytes() {
  return (kMmaStages * Tile::kStageWords + kMapElements * Tile::kRows) * sizeof(uint32_t);
}

template <class T, class Tile>
__global__ void __launch_bounds__(Tile::kThreads, 2)
    convolve_mma_kernel(const SparseConvParams p, unsigned column_tiles) {
  constexpr int kRows = Tile::kRows, kColumns = Tile::kColumns;
  constexpr int kRowCopies = Tile::kDepth / Tile::kCopyElements;  // threads that copy one row
  constexpr int kRowStep = Tile::kThreads / kRowCopies;
  static_assert(kRows <= Tile::kThreads && kRows % kRowStep == 0 && kColumns % kRowStep == 0);
  FASTCV_DYNAMIC_SHARED(CopyUnit, shared);
  FASTCV_SHARED(int, targets, kRows);
  FASTCV_SHARED(int, present, kMapElements);
  uint32_t* const stages = reinterpret_cast<uint32_t*>(shared);
  int* const sources = reinterpret_cast<int*>(stages + kMmaStages * Tile::kStageWords);  // [kMapElements][kRows]
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int group = static_cast<int>(blockIdx.y / column_tiles);
  const int o0 = static_cast<int>(blockIdx.y % column_tiles) * kColumns;
  const int in_channels = static_cast<int>(p.in_channels), out_channels = static_cast<int>(p.out_channels);
  const int64_t in_row = p.groups * p.in_channels;
  const T* input = static_cast<const T*>(p.input) + group * p.in_channels;
  const T* weight = static_cast<const T*>(p.weight) + group * p.group_stride + o0 * p.out_stride;
  if (thread < kRows) targets[thread] = ordered_row(p, static_cast<int64_t>(blockIdx.x) * kRows + thread);

  const int part = thread % kRowCopies, first_row = thread / kRowCopies;
  const int depth_steps = ceil_div(in_channels, Tile::kDepth);
  Tile tile;
  for (int64_t chunk = 0; chunk < p.volume; chunk += kMapElements) {
    const int elements = p.volume - chunk < kMapElements ? static_cast<int>(p.volume - chunk) : kMapElements;
    block_sync();  // targets are written; the sources of the chunk before have been read
    int found[kMapElements / Tile::kWarps][kRows / 32];
#pragma unroll
    for (int i = 0; i < kMapElements / Tile::kWarps; ++i) {
#pragma unroll
      for (int g = 0; g < kRows / 32; ++g) {
        const int e = warp + i * Tile::kWarps, m = targets[32 * g + lane];
        found[i][g] = e < elements && m >= 0 ? p.neighbours[(chunk + e) * p.outputs + m] : -1;
      }
    }
#pragma unroll
    for (int i = 0; i < kMapElements / Tile::kWarps; ++i) {
      const int e = warp + i * Tile::kWarps;
      bool any = false;
#pragma unroll
      for (int g = 0; g < kRows / 32; ++g) {
        const bool valid = found[i][g] >= 0 && found[i][g] < p.inputs;
        sources[e * kRows + 32 * g + lane] = valid ? found[i][g] : -1;
        any = any || valid;
      }
      any = warp_any(kFullMask, any);
      if (lane == 0) present[e] = any;
    }
    block_sync();
    unsigned left = warp_ballot(kFullMask, present[lane] != 0);
    const int steps = count_lanes(left) * depth_steps;

    int first_channel = 0;
    const auto fetch = [&](int step) {
      const int e = first_lane(left);
      uint32_t* rows = stages + step % kMmaStages * Tile::kStageWords;
      uint32_t* columns = rows + kRows * Tile::kPitch;
      const int channel = first_channel + Tile::kCopyElements * part;
      const bool inside = channel < in_channels;
#pragma unroll
      for (int i = 0; i < kRows / kRowStep; ++i) {  // constant counts: loops from first_row on would not be unrolled
        const int row = first_row + i * kRowStep;
        const int source = sources[e * kRows + row];
        const bool valid = inside && source >= 0;
        copy_async_16(rows + row * Tile::kPitch + 4 * part, valid ? input + source * in_row + channel : input, valid);
      }
      const T* matrix = weight + (chunk + e) * p.element_stride + channel;
#pragma unroll
      for (int i = 0; i < kColumns / kRowStep; ++i) {
        const int column = first_row + i * kRowStep;
        const bool valid = inside && o0 + column < out_channels;
        copy_async_16(columns + column * Tile::kPitch + 4 * part, valid ? matrix + column * p.out_stride : weight,
                      valid);
      }
      first_channel += Tile::kDepth;
      if (first_channel >= in_channels) {
        first_channel = 0;
        left &= left - 1;
      }
    };
    const auto use = [&](int step) {
      const uint32_t* rows = stages + step % kMmaStages * Tile::kStageWords;
      tile.multiply(rows, rows + kRows * Tile::kPitch);
    };
    pipeline(steps, fetch, use);
  }

  const T* bias = p.bias == nullptr ? nullptr : static_cast<const T*>(p.bias) + group * p.out_channels;
  tile.for_each_pair([&](int row, int column, float one, float two) {
    const int m = targets[row], o = o0 + column;
    if (m < 0 || o >= out_channels) return;
    if (bias != nullptr) {
      one += to_float(bias[o]);
      two += to_float(bias[o + 1]);
    }
    T* target = static_cast<T*>(p.output) + (m * p.groups + group) * p.out_channels + o;
    store_pack(target, Pack<T, 2>{{from_float<T>(one), from_float<T>(two)}});
  });
}

inline bool is_aligned_16(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

template <class T>
bool suits_tensor_cores(const SparseConvParams& p) {
  constexpr int64_t kUnit = 16 / sizeof(T);
  const auto fits = [](int64_t count) { return count % kUnit == 0; };
  return p.in_channels > 0 && fits(p.in_channels) && fits(p.out_channels) && p.in_stride == 1 && fits(p.out_stride) &&
         fits(p.element_stride) && fits(p.group_stride) && is_aligned_16(p.input) && is_aligned_16(p.weight) &&
         is_aligned_16(p.output);
}

template <class T, class Tile>
void launch_mma_tile(const SparseConvParams& p, Stream stream) {
  static_assert(convolve_mma_bytes<Tile>() + (Tile::kRows + kMapElements) * sizeof(int) <= kMaxSharedBytes);
  const int64_t column_tiles = ceil_div<int64_t>(p.out_channels, Tile::kColumns);
  launch(convolve_mma_kernel<T, Tile>,
         {{grid_size(p.outputs, Tile::kRows), column_tiles * p.groups}, {Tile::kThreads}, convolve_mma_bytes<Tile>()},
         stream, p, static_cast<unsigned>(column_tiles));
}

// Large tiles read less, small ones skip more and make more blocks.
template <class T>
void convolve_on_tensor_cores(const SparseConvParams& p, Stream stream) {
  constexpr int64_t kRowsForLargeTiles = 8192;
  if (p.in_channels < 64 || p.out_channels < 64 || p.outputs < kRowsForLargeTiles) {
    launch_mma_tile<T, MmaTile<T, 64, 64, 32>>(p, stream);
  } else if (p.out_channels == 64) {
    launch_mma_tile<T, MmaTile<T, 128, 64, 64>>(p, stream);
  } else {
    launch_mma_tile<T, MmaTile<T, 128, 128, 64>>(p, stream);
  }
}

}  // namespace fastcv::FASTCV_VARIANT

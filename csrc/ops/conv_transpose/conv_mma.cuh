// The gathering product on tensor cores: float16, bfloat16, and float32 where tf32 is allowed, source channels
// innermost.
//
// A block of four warps computes 64 sites x 64 columns, each warp 32 x 32 (core/cuda/mma_tile.cuh). Steps of 32
// channels (16 of float32) of one tap travel from global to shared memory in 16-byte asynchronous copies, two steps
// ahead of the arithmetic; a pixel beyond the border arrives as zeros.
//
// Napkin maths for an H200, Mask R-CNN's 512 x 256 x 14 x 14 -> 256, 2 x 2, stride 2, float16: 52.6 GFLOP, 0.13 ms at
// half of 790 TFLOP/s; 51 MB in and 205 MB out are 0.06 ms. Per step a block moves 8 KB out of L2 for 131 072
// multiply-adds, 3.3 GB in all, so 0.6 ms at 5.5 TB/s of L2 if nothing were shared: the four column tiles and four
// phases of a site tile run side by side and find its rows in L1 or in flight.
#pragma once

#include "core/cuda/mma_tile.cuh"
#include "ops/conv_transpose/conv_tile.cuh"

namespace fastcv::FASTCV_VARIANT {

template <class T>
using GatherTile = MmaTile<T, kTileSites, kTileColumns, 32>;

inline bool is_aligned_16(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

template <class T>
bool suits_tensor_cores(const GatherKernelParams& p) {
  return p.source_strides.channel == 1 && p.depth > 0 && p.depth % GatherTile<T>::kCopyElements == 0 &&
         is_aligned_16(p.source) && is_aligned_16(p.packed);
}

// Walks the steps of a block: taps of its phase, channels within each.
struct StepCursor {
  TapRun z, y, x;
  int64_t i = 0, j = 0, k = 0;  // which tap of each run
  int64_t first = 0;            // channel

  __device__ StepCursor(const GatherKernelParams& p, const BlockTask& task)
      : z(taps_of_phase(p.axes[0], task.phase_z)),
        y(taps_of_phase(p.axes[1], task.phase_y)),
        x(taps_of_phase(p.axes[2], task.phase_x)) {}

  __device__ int64_t taps() const { return z.count * y.count * x.count; }
  __device__ int64_t tap(const GatherKernelParams& p) const {
    const int64_t k_z = z.first + i * p.axes[0].tap_step, k_y = y.first + j * p.axes[1].tap_step;
    return (k_z * p.axes[1].kernel + k_y) * p.axes[2].kernel + x.first + k * p.axes[2].tap_step;
  }
  // Returns whether the next step belongs to another tap.
  __device__ bool advance(int step, int64_t depth) {
    first += step;
    if (first < depth) return false;
    first = 0;
    if (++k < x.count) return true;
    k = 0;
    if (++j < y.count) return true;
    j = 0;
    ++i;
    return true;
  }
};

template <class T>
__global__ void __launch_bounds__(GatherTile<T>::kThreads, 2) mma_kernel(const GatherKernelParams p) {
  using Tile = GatherTile<T>;
  constexpr int kRowCopies = Tile::kDepth / Tile::kCopyElements;  // threads that copy one row
  constexpr int kRowStep = Tile::kThreads / kRowCopies, kRowsOfThread = Tile::kRows / kRowStep;
  FASTCV_SHARED(CopyUnit, shared, kMmaStages * Tile::kStageWords / 4);
  FASTCV_SHARED(Site, sites, kTileSites);
  uint32_t* const stages = reinterpret_cast<uint32_t*>(shared);
  const BlockTask task = block_task(p);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < kTileSites) sites[thread] = locate_site(p, task, task.first_site + thread);
  block_sync();
  const T* source = static_cast<const T*>(p.source) + task.group * p.depth;
  const T* packed = static_cast<const T*>(p.packed) + task.group * p.taps * p.columns * p.depth;

  StepCursor cursor(p, task);
  const int part = thread % kRowCopies, first_row = thread / kRowCopies;
  int64_t origins[kRowsOfThread];
  const auto locate = [&] {
#pragma unroll
    for (int i = 0; i < kRowsOfThread; ++i) {
      origins[i] = locate_source(p, sites[first_row + i * kRowStep], cursor.z.offset + cursor.i * cursor.z.offset_step,
                                 cursor.y.offset + cursor.j * cursor.y.offset_step,
                                 cursor.x.offset + cursor.k * cursor.x.offset_step);
    }
  };
  bool other_tap = true;
  const auto fetch = [&](int step) {
    if (other_tap) locate();
    uint32_t* rows = stages + step % kMmaStages * Tile::kStageWords;
    const int64_t channel = cursor.first + Tile::kCopyElements * part;
    const bool inside = channel < p.depth;
    const T* matrix = packed + cursor.tap(p) * p.columns * p.depth + channel;
#pragma unroll
    for (int i = 0; i < kRowsOfThread; ++i) {
      const int row = first_row + i * kRowStep, word = row * Tile::kPitch + 4 * part;
      const bool valid_a = inside && origins[i] >= 0;
      copy_async_16(rows + word, valid_a ? source + origins[i] + channel : source, valid_a);
      const int64_t column = task.first_column + row;
      const bool valid_b = inside && column < p.columns;
      copy_async_16(rows + Tile::kRows * Tile::kPitch + word, valid_b ? matrix + column * p.depth : packed, valid_b);
    }
    other_tap = cursor.advance(Tile::kDepth, p.depth);
  };
  Tile tile;
  const auto use = [&](int step) {
    const uint32_t* rows = stages + step % kMmaStages * Tile::kStageWords;
    tile.multiply(rows, rows + Tile::kRows * Tile::kPitch);
  };
  const int64_t steps_of_tap = ceil_div(p.depth, Tile::kDepth);
  pipeline(static_cast<int>(cursor.taps() * steps_of_tap), fetch, use);
  tile.for_each_pair([&](int row, int column, float first, float second) {
    const int64_t target = sites[row].target;
    write_result<T>(p, task, target, task.first_column + column, first);
    write_result<T>(p, task, target, task.first_column + column + 1, second);
  });
}

}  // namespace fastcv::FASTCV_VARIANT

// The gathering product on tensor cores: float16 and bfloat16 with float sums, source channels innermost.
//
// A block of four warps computes 64 sites x 64 columns, each warp 32 x 32. Steps of 32 channels of one tap travel from
// global to shared memory in 16-byte asynchronous copies, two steps ahead of the arithmetic; a pixel beyond the border
// arrives as zeros. Rows of shared memory are 80 bytes apart, so that the 32 fragments of a warp lie in 32 banks.
// Per step a block moves 8 KB and does 131 072 multiply-adds in 64 mma instructions.
#pragma once

#include "core/cuda/mma.cuh"
#include "ops/conv_transpose/conv_tile.cuh"

namespace fastcv::FASTCV_VARIANT {

constexpr int kMmaThreads = 128;
constexpr int kMmaDepth = 32;                   // channels of a step
constexpr int kMmaStages = 3;                   // steps in shared memory
constexpr int kMmaRow = kMmaDepth / 2 + 4;      // 32-bit words from row to row
constexpr int kMmaTile = kTileSites * kMmaRow;  // words of one operand of one step
static_assert(kTileSites == kTileColumns);

inline bool suits_tensor_cores(const GatherKernelParams& p) {
  const auto is_aligned = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; };
  return p.source_strides.channel == 1 && p.depth > 0 && p.depth % 8 == 0 && is_aligned(p.source) &&
         is_aligned(p.packed);
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

  __device__ int64_t steps(int64_t depth) const {
    return z.count * y.count * x.count * ((depth + kMmaDepth - 1) / kMmaDepth);
  }
  __device__ int64_t tap(const GatherKernelParams& p) const {
    const int64_t k_z = z.first + i * p.axes[0].tap_step, k_y = y.first + j * p.axes[1].tap_step;
    return (k_z * p.axes[1].kernel + k_y) * p.axes[2].kernel + x.first + k * p.axes[2].tap_step;
  }
  // Returns whether the next step belongs to another tap.
  __device__ bool advance(int64_t depth) {
    first += kMmaDepth;
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
__global__ void __launch_bounds__(kMmaThreads, 2) mma_kernel(const GatherKernelParams p) {
  FASTCV_SHARED(uint32_t, tiles_a, kMmaStages* kMmaTile);
  FASTCV_SHARED(uint32_t, tiles_b, kMmaStages* kMmaTile);
  FASTCV_SHARED(Site, sites, kTileSites);
  const BlockTask task = block_task(p);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < kTileSites) sites[thread] = locate_site(p, task, task.first_site + thread);
  block_sync();
  const T* source = static_cast<const T*>(p.source) + task.group * p.depth;
  const T* packed = static_cast<const T*>(p.packed) + task.group * p.taps * p.columns * p.depth;

  StepCursor cursor(p, task);
  const int64_t steps = cursor.steps(p.depth);
  // Of each operand this thread copies 8 channels of two rows.
  const int part = thread % 4, rows[2] = {thread / 4, thread / 4 + kMmaThreads / 4};
  int64_t origins[2];
  const auto locate = [&] {
    for (int i = 0; i < 2; ++i) {
      origins[i] = locate_source(p, sites[rows[i]], cursor.z.offset + cursor.i * cursor.z.offset_step,
                                 cursor.y.offset + cursor.j * cursor.y.offset_step,
                                 cursor.x.offset + cursor.k * cursor.x.offset_step);
    }
  };
  const auto fetch = [&](int64_t step) {
    if (step < steps) {
      const int stage = static_cast<int>(step % kMmaStages);
      const int64_t channel = cursor.first + 8 * part;
      const T* matrix = packed + cursor.tap(p) * p.columns * p.depth + channel;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int word = stage * kMmaTile + rows[i] * kMmaRow + 4 * part;
        const bool inside = channel < p.depth;
        const bool valid_a = inside && origins[i] >= 0;
        copy_async_16(tiles_a + word, valid_a ? source + origins[i] + channel : source, valid_a);
        const int64_t column = task.first_column + rows[i];
        const bool valid_b = inside && column < p.columns;
        copy_async_16(tiles_b + word, valid_b ? matrix + column * p.depth : packed, valid_b);
      }
      if (cursor.advance(p.depth) && step + 1 < steps) locate();
    }
    commit_copies();
  };

  if (steps > 0) locate();
  for (int64_t step = 0; step < kMmaStages - 1; ++step) fetch(step);
  const int warp = thread / 32, lane = thread % 32, row = lane / 4, pair = lane % 4;
  const int warp_row = warp / 2 * 32, warp_column = warp % 2 * 32;
  float sum[2][4][4] = {};
  for (int64_t step = 0; step < steps; ++step) {
    wait_for_copies<kMmaStages - 2>();
    block_sync();  // the step has arrived for all; all have done with the stage that is fetched next
    fetch(step + kMmaStages - 1);
    const int stage = static_cast<int>(step % kMmaStages);
    const uint32_t* a_tile = tiles_a + stage * kMmaTile + (warp_row + row) * kMmaRow + pair;
    const uint32_t* b_tile = tiles_b + stage * kMmaTile + (warp_column + row) * kMmaRow + pair;
#pragma unroll
    for (int k = 0; k < kMmaDepth / 2; k += 8) {
      uint32_t a[2][4], b[4][2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const uint32_t* at = a_tile + i * 16 * kMmaRow + k;
        a[i][0] = at[0];
        a[i][1] = at[8 * kMmaRow];
        a[i][2] = at[4];
        a[i][3] = at[8 * kMmaRow + 4];
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        b[j][0] = b_tile[j * 8 * kMmaRow + k];
        b[j][1] = b_tile[j * 8 * kMmaRow + k + 4];
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) mma_16x8x16<T>(sum[i][j], a[i], b[j]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int64_t target = sites[warp_row + 16 * i + 8 * h + row].target;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int64_t column = task.first_column + warp_column + 8 * j + 2 * pair;
        write_result<T>(p, task, target, column, sum[i][j][2 * h]);
        write_result<T>(p, task, target, column + 1, sum[i][j][2 * h + 1]);
      }
    }
  }
}

}  // namespace fastcv::FASTCV_VARIANT

// A tile of a matrix product on tensor cores, kept in the registers of a block from the first step to the last.
//
//   using Tile = MmaTile<T, 64, 64, 32>;   64 rows, 64 columns; 32 rows and 32 columns for each warp
//   Tile tile;
//   tile.multiply(rows, columns);          adds the products of one step of Tile::kDepth, out of shared memory
//   tile.for_each_pair([&](int row, int column, float first, float second) {...});   columns `column` and the next
//
// A step lies in shared memory as [row][depth] and [column][depth], the operands' depth innermost, kPitch words apart
// (multiply), or as [depth][row] and [depth][column], kRowPitch and kColumnPitch words apart (multiply_transposed). The
// pitches put what a warp reads at once into 32 banks. T is float16, bfloat16, or float, which is rounded to tf32.
//
// Per step of 16 words a warp of 32 x 32 reads 4 KB for 16 mma, one of 64 x 32 reads 6 KB for 32: at 128 bytes a cycle
// 2 and 1.5 cycles for each mma, of which a multiprocessor of an H200 makes one in 1.2 at 790 TFLOP/s.
#pragma once

#include "core/cuda/mma.cuh"

namespace fastcv::FASTCV_VARIANT {

using CopyUnit = Pack<uint32_t, 4>;  // what a copy writes at once: shared arrays of it are aligned for copies
constexpr int kMmaStages = 3;        // steps in shared memory: one in use, two on their way

template <class T, int kRowCount, int kColumnCount, int kRowsOfWarp>
struct MmaTile {
  static constexpr int kRows = kRowCount, kColumns = kColumnCount, kWarpRows = kRowsOfWarp, kWarpColumns = 32;
  static constexpr int kWarps = kRows / kWarpRows * (kColumns / kWarpColumns), kThreads = 32 * kWarps;
  static constexpr int kWordElements = 4 / static_cast<int>(sizeof(T));
  static constexpr int kCopyElements = 16 / static_cast<int>(sizeof(T));  // of one asynchronous copy
  static constexpr int kStepWords = 16;
  static constexpr int kDepth = kStepWords * kWordElements;
  static constexpr int kPitch = kStepWords + 4;
  static constexpr int kStageWords = (kRows + kColumns) * kPitch;
  static constexpr int kRowPitch = kRows / kWordElements + (kWordElements == 2 ? 4 : 8);
  static constexpr int kColumnPitch = kColumns / kWordElements + (kWordElements == 2 ? 4 : 8);
  static constexpr int kTransposedStageWords = kDepth * (kRowPitch + kColumnPitch);
  static constexpr int kBlocksA = kWarpRows / 16, kBlocksB = kWarpColumns / 8;

  float sum[kBlocksA][kBlocksB][4] = {};

  __device__ __forceinline__ static int warp_row() {
    return static_cast<int>(threadIdx.x) / 32 / (kColumns / kWarpColumns) * kWarpRows;
  }
  __device__ __forceinline__ static int warp_column() {
    return static_cast<int>(threadIdx.x) / 32 % (kColumns / kWarpColumns) * kWarpColumns;
  }

  __device__ __forceinline__ void multiply(const uint32_t* rows, const uint32_t* columns) {
    const int lane = static_cast<int>(lane_id());
    const uint32_t* row = rows + (warp_row() + lane % 16) * kPitch + lane / 16 * 4;
    const uint32_t* column = columns + (warp_column() + lane / 16 * 8 + lane % 8) * kPitch + lane / 8 % 2 * 4;
#pragma unroll
    for (int k = 0; k < kStepWords; k += 8) {
      uint32_t a[kBlocksA][4], b[kBlocksB / 2][4];
#pragma unroll
      for (int i = 0; i < kBlocksA; ++i) load_matrices(a[i], row + i * 16 * kPitch + k);
#pragma unroll
      for (int j = 0; j < kBlocksB / 2; ++j) load_matrices(b[j], column + j * 16 * kPitch + k);
      add_products(a, b);
    }
  }

  __device__ __forceinline__ void multiply_transposed(const uint32_t* rows, const uint32_t* columns) {
    const int lane = static_cast<int>(lane_id());
#pragma unroll
    for (int k = 0; k < kStepWords; k += 8) {
      uint32_t a[kBlocksA][4], b[kBlocksB / 2][4];
      if constexpr (kWordElements == 2) {
        const int k_a = 2 * k + lane / 16 * 8 + lane % 8, k_b = 2 * k + lane % 16;
        const uint32_t* row = rows + k_a * kRowPitch + (warp_row() + lane / 8 % 2 * 8) / 2;
        const uint32_t* column = columns + k_b * kColumnPitch + (warp_column() + lane / 16 * 8) / 2;
#pragma unroll
        for (int i = 0; i < kBlocksA; ++i) load_matrices_transposed(a[i], row + i * 8);
#pragma unroll
        for (int j = 0; j < kBlocksB / 2; ++j) load_matrices_transposed(b[j], column + j * 8);
      } else {
        const uint32_t* row = rows + (k + lane % 4) * kRowPitch + warp_row() + lane / 4;
        const uint32_t* column = columns + (k + lane % 4) * kColumnPitch + warp_column() + lane / 4;
#pragma unroll
        for (int part = 0; part < 4; ++part) {
#pragma unroll
          for (int i = 0; i < kBlocksA; ++i) a[i][part] = row[part / 2 * 4 * kRowPitch + 16 * i + part % 2 * 8];
#pragma unroll
          for (int j = 0; j < kBlocksB / 2; ++j) {
            b[j][part] = column[part % 2 * 4 * kColumnPitch + 16 * j + part / 2 * 8];
          }
        }
      }
      add_products(a, b);
    }
  }

  template <class Body>
  __device__ __forceinline__ void for_each_pair(const Body& body) const {
    const int lane = static_cast<int>(lane_id());
#pragma unroll
    for (int i = 0; i < kBlocksA; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = warp_row() + 16 * i + 8 * h + lane / 4;
#pragma unroll
        for (int j = 0; j < kBlocksB; ++j) {
          body(row, warp_column() + 8 * j + 2 * (lane % 4), sum[i][j][2 * h], sum[i][j][2 * h + 1]);
        }
      }
    }
  }

 private:
  // b holds two blocks of columns in a row: the parts of the first, then those of the second.
  __device__ __forceinline__ void add_products(uint32_t (&a)[kBlocksA][4], uint32_t (&b)[kBlocksB / 2][4]) {
    if constexpr (kWordElements == 1) {
#pragma unroll
      for (int part = 0; part < 4; ++part) {
#pragma unroll
        for (int i = 0; i < kBlocksA; ++i) a[i][part] = round_to_tf32(a[i][part]);
#pragma unroll
        for (int j = 0; j < kBlocksB / 2; ++j) b[j][part] = round_to_tf32(b[j][part]);
      }
    }
#pragma unroll
    for (int i = 0; i < kBlocksA; ++i) {
#pragma unroll
      for (int j = 0; j < kBlocksB; ++j) {
        const uint32_t fragment[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
        mma_words<T>(sum[i][j], a[i], fragment);
      }
    }
  }
};

// A loop over `steps` steps, kMmaStages - 1 of which are fetched ahead: fetch(step) starts the copies of a step into
// stage step % kMmaStages (nothing past the last), use(step) reads that stage. Ends with a barrier, the stages free.
template <class Fetch, class Use>
__device__ __forceinline__ void pipeline(int steps, const Fetch& fetch, const Use& use) {
  for (int step = 0; step < kMmaStages - 1; ++step) {
    if (step < steps) fetch(step);
    commit_copies();
  }
  for (int step = 0; step < steps; ++step) {
    wait_for_copies<kMmaStages - 2>();
    block_sync();  // the step has arrived for all; all have done with the stage that is fetched next
    if (step + kMmaStages - 1 < steps) fetch(step + kMmaStages - 1);
    commit_copies();
    use(step);
  }
  block_sync();
}

// Adds the outer products of `pairs` pairs of rows to a 64 x 64 tile: sum over pairs of a[pair] (x) b[pair], of which
// this tile has channels 0 .. a_channels and b_channels (multiples of Tile::kCopyElements, all rows 16-byte aligned).
// locate(pair, offset_a, offset_b) gives the offsets of both rows; each thread asks for every kAsked'th pair, ascending
// from threadIdx.x / kRowCopies. `stages` holds kMmaStages * Tile::kTransposedStageWords words.
template <class Tile>
struct OuterProduct {
  static_assert(Tile::kRows == Tile::kColumns, "both operands are copied alike");
  static constexpr int kRowCopies = Tile::kRows / Tile::kCopyElements;  // threads that copy one row
  static constexpr int kAsked = Tile::kThreads / kRowCopies;
  static_assert(Tile::kDepth % kAsked == 0);

  template <class T, class Locate>
  __device__ __forceinline__ static void add(Tile& tile, uint32_t* stages, const T* a, int a_channels, const T* b,
                                             int b_channels, int64_t pairs, Locate& locate) {
    const int channel = static_cast<int>(threadIdx.x) % kRowCopies * Tile::kCopyElements;
    const int first = static_cast<int>(threadIdx.x) / kRowCopies;
    const bool has_a = channel < a_channels, has_b = channel < b_channels;
    const auto fetch = [&](int step) {
      uint32_t* rows = stages + step % kMmaStages * Tile::kTransposedStageWords;
      uint32_t* columns = rows + Tile::kDepth * Tile::kRowPitch;
#pragma unroll
      for (int i = 0; i < Tile::kDepth / kAsked; ++i) {  // a constant count: one from `first` on would not be unrolled
        const int d = first + i * kAsked;
        const int64_t pair = static_cast<int64_t>(step) * Tile::kDepth + d;
        int64_t offset_a = 0, offset_b = 0;
        const bool valid = pair < pairs;
        if (valid) locate(pair, offset_a, offset_b);
        const int word = channel / Tile::kWordElements;
        copy_async_16(rows + d * Tile::kRowPitch + word, valid && has_a ? a + offset_a + channel : a, valid && has_a);
        copy_async_16(columns + d * Tile::kColumnPitch + word, valid && has_b ? b + offset_b + channel : b,
                      valid && has_b);
      }
    };
    const auto use = [&](int step) {
      const uint32_t* rows = stages + step % kMmaStages * Tile::kTransposedStageWords;
      tile.multiply_transposed(rows, rows + Tile::kDepth * Tile::kRowPitch);
    };
    pipeline(static_cast<int>(ceil_div(pairs, Tile::kDepth)), fetch, use);
  }
};

}  // namespace fastcv::FASTCV_VARIANT

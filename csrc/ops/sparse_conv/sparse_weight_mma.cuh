// The gradient of the weight on tensor cores: float16, bfloat16, and float32 where tf32 is allowed, channels in
// multiples of 16 bytes.
//
// A block of four warps sums, for one kernel element and one piece of the output rows, 64 input x 64 output channels.
// It collects the pairs of 1 024 output rows at a time, in their order, and then gathers 32 pairs (16 of float32) for
// each step from both sides by asynchronous copies. What the blocks of the pieces have summed is added up in their
// order.
//
// Napkin maths for an H200, SubM 3^3, 120 000 sites, 64 -> 64, float16, 9 neighbours: 8.8 GFLOP, 22 us at half of 790
// TFLOP/s; 27 x 15 blocks gather 277 MB out of L2, 50 us at 5.5 TB/s; the map 13 MB, 3 us; the workspace of 6.6 MB is
// written and read.
#pragma once

#include "core/cuda/mma_tile.cuh"
#include "core/cuda/shared.cuh"
#include "ops/sparse_conv/sparse_mma.cuh"

namespace fastcv::FASTCV_VARIANT {

template <class T>
using WeightMmaTile = MmaTile<T, 64, 64, 32>;

constexpr int kPairRows = 1024;  // output rows looked at together

// blockIdx.x: kernel element and piece; blockIdx.y: group, tile of input channels (the rows), tile of output channels.
template <class T>
__global__ void __launch_bounds__(WeightMmaTile<T>::kThreads, 2)
    weight_mma_kernel(const SparseConvWeightParams p, unsigned pieces, unsigned row_tiles, unsigned column_tiles) {
  using Tile = WeightMmaTile<T>;
  constexpr int kVotes = kPairRows / Tile::kThreads;  // rows of each lane
  FASTCV_SHARED(CopyUnit, shared, kMmaStages * Tile::kTransposedStageWords / 4);
  FASTCV_SHARED(int, sources, kPairRows);
  FASTCV_SHARED(int, targets, kPairRows);
  FASTCV_SHARED(int, warp_counts, Tile::kWarps);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int64_t k = blockIdx.x / pieces;
  const unsigned piece = blockIdx.x % pieces;
  const int o0 = static_cast<int>(blockIdx.y % column_tiles) * Tile::kColumns;
  const int i0 = static_cast<int>(blockIdx.y / column_tiles % row_tiles) * Tile::kRows;
  const int group = static_cast<int>(blockIdx.y / column_tiles / row_tiles);
  const int in_channels = static_cast<int>(p.in_channels) - i0, out_channels = static_cast<int>(p.out_channels) - o0;
  const int64_t in_row = p.groups * p.in_channels, out_row = p.groups * p.out_channels;
  const T* input = static_cast<const T*>(p.input) + group * p.in_channels + i0;
  const T* gradient = static_cast<const T*>(p.grad_output) + group * p.out_channels + o0;
  const int64_t piece_rows = ceil_div(static_cast<unsigned>(p.outputs), pieces);
  const int64_t begin = piece * piece_rows;
  const int64_t end = least(begin + piece_rows, p.outputs);

  Tile tile;
  for (int64_t m0 = begin; m0 < end; m0 += kPairRows) {
    int found[kVotes];
    unsigned votes[kVotes];
    int count = 0;
#pragma unroll
    for (int i = 0; i < kVotes; ++i) {
      const int64_t m = m0 + (warp * kVotes + i) * 32 + lane;
      found[i] = m < end ? p.neighbours[k * p.outputs + m] : -1;
    }
#pragma unroll
    for (int i = 0; i < kVotes; ++i) {
      votes[i] = warp_ballot(kFullMask, found[i] >= 0 && found[i] < p.inputs);
      count += count_lanes(votes[i]);
    }
    if (lane == 0) warp_counts[warp] = count;
    block_sync();
    int place = 0, pairs = 0;
    for (int w = 0; w < Tile::kWarps; ++w) {
      if (w < warp) place += warp_counts[w];
      pairs += warp_counts[w];
    }
#pragma unroll
    for (int i = 0; i < kVotes; ++i) {
      if (votes[i] >> lane & 1u) {
        const int at = place + count_lanes(votes[i] & ((1u << lane) - 1));
        sources[at] = found[i];
        targets[at] = (warp * kVotes + i) * 32 + lane;
      }
      place += count_lanes(votes[i]);
    }
    block_sync();
    const auto locate = [&](int64_t pair, int64_t& from, int64_t& to) {
      from = sources[pair] * in_row;
      to = (m0 + targets[pair]) * out_row;
    };
    OuterProduct<Tile>::add(tile, reinterpret_cast<uint32_t*>(shared), input, in_channels, gradient, out_channels,
                            pairs, locate);
  }

  float* target = static_cast<float*>(p.workspace) +
                  (((piece * p.groups + group) * p.volume + k) * p.in_channels + i0) * p.out_channels + o0;
  tile.for_each_pair([&](int row, int column, float one, float two) {
    if (row >= in_channels || column >= out_channels) return;
    target[row * p.out_channels + column] = one;
    target[row * p.out_channels + column + 1] = two;
  });
}

template <class T>
bool suits_tensor_cores(const SparseConvWeightParams& p) {
  constexpr int64_t kUnit = 16 / sizeof(T);
  return p.in_channels % kUnit == 0 && p.out_channels % kUnit == 0 && is_aligned_16(p.input) &&
         is_aligned_16(p.grad_output);
}

}  // namespace fastcv::FASTCV_VARIANT

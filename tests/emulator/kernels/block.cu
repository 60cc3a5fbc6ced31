// Kernels whose threads share memory and wait for each other at block barriers.
#include "core/cuda/atomic.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "emulator/kernels/cases.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr unsigned kBlockSize = 256;

// One sum for each block: over the warps, then over the warps' sums.
__global__ void __launch_bounds__(kBlockSize) block_sum_kernel(const int* __restrict__ input, int count, int* output) {
  FASTCV_SHARED(int, warp_sums, kBlockSize / kWarpSize);
  const unsigned i = blockIdx.x * kBlockSize + threadIdx.x;
  const int sum = warp_reduce_sum(i < static_cast<unsigned>(count) ? input[i] : 0);
  if (lane_id() == 0) warp_sums[threadIdx.x / kWarpSize] = sum;
  block_sync();
  if (threadIdx.x < kWarpSize) {
    const int total = warp_reduce_sum(threadIdx.x < kBlockSize / kWarpSize ? warp_sums[threadIdx.x] : 0);
    if (threadIdx.x == 0) output[blockIdx.x] = total;
  }
}

bool block_reduction() {
  constexpr int kCount = 1000;
  Buffer<int> input(kCount), output(4);
  int expected[4] = {};
  for (int i = 0; i < kCount; ++i) {
    input[i] = (i * 37) % 101 - 50;
    expected[i / kBlockSize] += input[i];
  }
  launch(block_sum_kernel, {grid_size(kCount, kBlockSize), kBlockSize}, kStream, input.data(), kCount, output.data());
  synchronize();
  for (int i = 0; i < 4; ++i) {
    if (output[i] != expected[i]) return false;
  }
  return true;
}

// A tree in shared memory: every level reads what the level before wrote, so every barrier counts.
__global__ void tree_sum_kernel(const float* input, float* output) {
  FASTCV_DYNAMIC_SHARED(float, sums);
  sums[threadIdx.x] = input[threadIdx.x];
  block_sync();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    block_sync();
  }
  if (threadIdx.x == 0) *output = sums[0];
}

bool dynamic_shared() {
  Buffer<float> input(128), output(1);
  for (int i = 0; i < 128; ++i) input[i] = static_cast<float>(i);
  launch(tree_sum_kernel, {1, 128, 128 * sizeof(float)}, kStream, input.data(), output.data());
  synchronize();
  return output[0] == 127 * 128 / 2;
}

constexpr int kTile = 16;

// A tile is read along its rows and written along its columns, both contiguous in memory.
__global__ void transpose_kernel(const int* input, int rows, int columns, int* output) {
  using Row = int[kTile + 1];
  FASTCV_SHARED(Row, tile, kTile);
  const int row = static_cast<int>(blockIdx.y) * kTile, column = static_cast<int>(blockIdx.x) * kTile;
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  if (row + y < rows && column + x < columns) tile[y][x] = input[(row + y) * columns + column + x];
  block_sync();
  if (row + x < rows && column + y < columns) output[(column + y) * rows + row + x] = tile[x][y];
}

bool transpose() {
  constexpr int kRows = 37, kColumns = 50;
  Buffer<int> input(kRows * kColumns), output(kRows * kColumns);
  for (int i = 0; i < kRows * kColumns; ++i) input[i] = i;
  launch(transpose_kernel, {{ceil_div(kColumns, kTile), ceil_div(kRows, kTile)}, {kTile, kTile}}, kStream, input.data(),
         kRows, kColumns, output.data());
  synchronize();
  for (int row = 0; row < kRows; ++row) {
    for (int column = 0; column < kColumns; ++column) {
      if (output[column * kRows + row] != row * kColumns + column) return false;
    }
  }
  return true;
}

constexpr int kBins = 10;

// Each block counts in shared memory, then adds its counts to the result.
__global__ void histogram_kernel(const int* input, int count, int* histogram) {
  FASTCV_SHARED(int, bins, kBins);
  if (threadIdx.x < kBins) bins[threadIdx.x] = 0;
  block_sync();
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < count; i += gridDim.x * blockDim.x) {
    atomic_add(&bins[input[i]], 1);
  }
  block_sync();
  if (threadIdx.x < kBins) atomic_add(&histogram[threadIdx.x], bins[threadIdx.x]);
}

bool histogram() {
  constexpr int kCount = 777;
  Buffer<int> input(kCount), output(kBins);
  int expected[kBins] = {};
  for (int i = 0; i < kCount; ++i) {
    input[i] = i * i % kBins;
    ++expected[input[i]];
  }
  launch(histogram_kernel, {3, 64}, kStream, input.data(), kCount, output.data());
  synchronize();
  return std::memcmp(output.data(), expected, sizeof(expected)) == 0;
}

// The threads past `stay` return at once; a barrier is for the others.
__global__ void vote_kernel(int stay, int* output) {
  const int i = static_cast<int>(threadIdx.x);
  if (i >= stay) return;
  const int even = block_count(i % 2 == 0);
  const bool any = block_any(i == 5), none = block_any(i == 1000);
  const bool all = block_all(i < 1000), not_all = block_all(i != 5);
  output[i] = any && !none && all && !not_all ? even : -1;
}

bool block_votes() {
  constexpr int kStay = 41;
  Buffer<int> output(96);
  launch(vote_kernel, {1, 96}, kStream, kStay, output.data());
  synchronize();
  for (int i = 0; i < 96; ++i) {
    if (output[i] != (i < kStay ? 21 : 0)) return false;
  }
  return true;
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

CaseList block_cases() {
  using namespace fastcv::FASTCV_VARIANT;
  static constexpr Case kCases[] = {
      {"block_reduction", block_reduction},
      {"dynamic_shared", dynamic_shared},
      {"transpose", transpose},
      {"histogram", histogram},
      {"block_votes", block_votes},
  };
  return {kCases, sizeof(kCases) / sizeof(kCases[0])};
}

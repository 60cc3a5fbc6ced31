// The gradient of the weight on tensor cores: float16, bfloat16, and float32 where tf32 is allowed, channels innermost
// in input and output. A block of four warps sums one piece of the pixels for 64 input x 64 output channels of one tap:
// steps of 32 pixels (16 of float32) travel as rows of 64 channels by asynchronous copies, and are transposed on their
// way from shared memory to registers.
//
// Napkin maths for an H200, U-Net's 64 x 64 x 512 -> 256, 2 x 2, stride 2, float16: 4.3 GFLOP, 11 us at half of 790
// TFLOP/s. 8 x 4 tiles x 4 taps x 4 pieces are 512 blocks, each of which reads 1 024 pixels x 256 bytes: 134 MB out of
// L2, 25 us. The workspace, 4 pieces of 2 MB, is written and read once: 4 us.
#pragma once

#include "core/cuda/mma_tile.cuh"
#include "ops/conv_transpose/conv_mma.cuh"
#include "ops/conv_transpose/conv_weight.cuh"

namespace fastcv::FASTCV_VARIANT {

template <class T>
using WeightMmaTile = MmaTile<T, kWeightTile, kWeightTile, 32>;

template <class T>
bool suits_tensor_cores(const WeightKernelParams& p) {
  constexpr int kUnit = WeightMmaTile<T>::kCopyElements;
  constexpr int64_t kMost = 1 << 30;
  for (const ConvAxis& axis : p.axes) {  // places of pixels in 32 bits
    const int64_t reach = axis.kernel * axis.dilation + axis.padding;
    if (axis.input >= kMost || axis.output >= kMost || reach >= kMost || axis.input * axis.stride >= kMost)
      return false;
  }
  if (p.batch >= kMost) return false;
  return p.input_strides.channel == 1 && p.output_strides.channel == 1 && p.in_channels % kUnit == 0 &&
         p.out_channels % kUnit == 0 && is_aligned_16(p.input) && is_aligned_16(p.output);
}

template <class T>
__global__ void __launch_bounds__(WeightMmaTile<T>::kThreads, 2) weight_mma_kernel(const WeightKernelParams p) {
  using Tile = WeightMmaTile<T>;
  using Product = OuterProduct<Tile>;
  FASTCV_SHARED(CopyUnit, shared, kMmaStages * Tile::kTransposedStageWords / 4);
  const WeightTask task = weight_task(p);
  const T* input = static_cast<const T*>(p.input) + task.group * p.in_channels + task.first_row;
  const T* output = static_cast<const T*>(p.output) + task.group * p.out_channels + task.first_column;
  const int64_t first = threadIdx.x / Product::kRowCopies;
  PixelCursor<int> cursor(task.range, task.begin + (first < task.count ? first : 0));
  const auto locate = [&](int64_t, int64_t& from, int64_t& to) {
    cursor.locate(p, from, to);
    cursor.advance(Product::kAsked);
  };
  Tile tile;
  Product::add(tile, reinterpret_cast<uint32_t*>(shared), input, static_cast<int>(p.in_channels - task.first_row),
               output, static_cast<int>(p.out_channels - task.first_column), task.count, locate);
  tile.for_each_pair([&](int row, int column, float one, float two) {
    store_weight<T>(p, task, task.first_row + row, task.first_column + column, one);
    store_weight<T>(p, task, task.first_row + row, task.first_column + column + 1, two);
  });
}

}  // namespace fastcv::FASTCV_VARIANT

// Which sparse convolutions go to the kernel of sparse_conv_wgmma_cuda.cu, and its tiles.
#pragma once

#include "core/cuda/launch.cuh"
#include "ops/sparse_conv/sparse_mma.cuh"

namespace fastcv::FASTCV_VARIANT {

constexpr int kWgmmaRows = 192, kWgmmaColumns = 256, kWgmmaDepth = 64;

// Half precision, channels in whole tiles, and a tile for most multiprocessors of a GPU of sm_90.
template <class T>
bool suits_warpgroups(const SparseConvParams& p, const Stream& stream) {
  if (sizeof(T) != 2 || p.in_channels % kWgmmaDepth != 0 || p.out_channels % kWgmmaColumns != 0) return false;
  if (!suits_tensor_cores<T>(p)) return false;
  constexpr int64_t kMostBytes = 0x7fffffff;  // of a row of the input, and between the copies of a thread
  if (p.groups * p.in_channels * 2 > kMostBytes || kWgmmaColumns * p.out_stride * 2 > kMostBytes) return false;
  const Device device = device_of(stream);
  return device.is_sm_90 && p.outputs >= int64_t{kWgmmaRows} * device.multiprocessors;
}

void convolve_on_warpgroups(const SparseConvParams& p, Stream stream);  // float16 or bfloat16

}  // namespace fastcv::FASTCV_VARIANT

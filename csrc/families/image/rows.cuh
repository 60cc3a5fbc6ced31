// One thread per element of a dense batch of images (families/image/image.h): rows along y, elements of a row along x,
// so that neither 64-bit divisions nor more than one row's worth of idle threads are needed, and writes are contiguous.
#pragma once

#include "core/cuda/launch.cuh"
#include "families/image/image.h"

namespace fastcv::FASTCV_VARIANT {

constexpr int kRowsBlockSize = 256;

// Rows narrower than a block share it.
inline LaunchShape rows_launch(int64_t rows, int64_t columns, CallSite site = CallSite::here()) {
  int64_t block_x = kRowsBlockSize;
  while (block_x > 32 && block_x / 2 >= columns) block_x /= 2;
  const int64_t block_y = kRowsBlockSize / block_x;
  const int64_t blocks_y = ceil_div(rows, block_y);
  return {{ceil_div(columns, block_x), least(blocks_y, 65535)}, {block_x, block_y}, 0, site};
}

// Calls body(row, column) for the elements of this thread. Both counts are below 2^31.
template <class Body>
__device__ __forceinline__ void for_each_in_rows(int64_t rows, int64_t columns, const Body& body) {
  const unsigned column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= columns) return;
  for (unsigned row = blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += gridDim.y * blockDim.y) {
    body(row, column);
  }
}

}  // namespace fastcv::FASTCV_VARIANT

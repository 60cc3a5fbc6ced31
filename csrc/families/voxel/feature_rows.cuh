// Rows of features, several channels each: as many neighbouring threads share a row as it has channels, a warp at most,
// so that memory is read and written side by side.
#pragma once

#include "core/cuda/launch.cuh"
#include "core/cuda/warp.cuh"
#include "core/types.h"

namespace fastcv::FASTCV_VARIANT {

constexpr int kFeatureBlock = 256;

// Runs a kernel(params, lanes) over `rows` rows; there, feature_row(lanes) is the thread's row, and its channels are
// threadIdx.x % lanes and every lanes'th from there. `lanes` is a power of two.
template <class Params>
void launch_feature_rows(void (*kernel)(Params, int), int64_t rows, int64_t channels, Stream stream,
                         const Params& params, CallSite site = CallSite::here()) {
  int lanes = 1;
  while (lanes < channels && lanes < static_cast<int>(kWarpSize)) lanes *= 2;
  launch(kernel, {{grid_size(rows, kFeatureBlock / lanes)}, {kFeatureBlock}, 0, site}, stream, params, lanes);
}

__device__ __forceinline__ int64_t feature_row(int lanes) {
  const unsigned rows = kFeatureBlock / static_cast<unsigned>(lanes);
  return static_cast<int64_t>(blockIdx.x) * rows + threadIdx.x / static_cast<unsigned>(lanes);
}

}  // namespace fastcv::FASTCV_VARIANT

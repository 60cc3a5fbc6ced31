// Boxes of masks on CUDA: a block per mask, a warp per row in turn, lanes over the row, kVector bytes at a time where
// rows allow it; then the extremes of all threads. Bound by reading the masks.
#include "core/cuda/launch.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "ops/masks_to_boxes/masks_to_boxes.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kBlockSize = 256;
constexpr int kWarps = kBlockSize / static_cast<int>(kWarpSize);

template <int kVector>
__global__ void __launch_bounds__(kBlockSize, 2) masks_to_boxes_kernel(const MasksToBoxesParams p) {
  FASTCV_SHARED(int, extremes, 4 * kWarps);
  const int warp = static_cast<int>(threadIdx.x / kWarpSize);
  const int height = static_cast<int>(p.height), width = static_cast<int>(p.width);
  const uint8_t* mask = p.masks + static_cast<int64_t>(blockIdx.x) * p.height * p.width;
  int left = width, top = height, right = -1, bottom = -1;
  for (int y = warp; y < height; y += kWarps) {
    const uint8_t* row = mask + static_cast<int64_t>(y) * width;
    for (int64_t x = lane_id() * kVector; x < width; x += kWarpSize * kVector) {
      const auto pixels = *reinterpret_cast<const Pack<uint8_t, kVector>*>(row + x);
      int first = -1, last = 0;
      for (int v = 0; v < kVector; ++v) {
        if (pixels.value[v] == 0) continue;
        if (first < 0) first = v;
        last = v;
      }
      if (first < 0) continue;
      const int begin = static_cast<int>(x) + first, end = static_cast<int>(x) + last;
      left = least(begin, left);
      right = greatest(end, right);
      top = least(y, top);
      bottom = y;
    }
  }
  left = warp_reduce_min(left);
  top = warp_reduce_min(top);
  right = warp_reduce_max(right);
  bottom = warp_reduce_max(bottom);
  if (lane_id() == 0) {
    extremes[4 * warp] = left;
    extremes[4 * warp + 1] = top;
    extremes[4 * warp + 2] = right;
    extremes[4 * warp + 3] = bottom;
  }
  block_sync();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kWarps; ++w) {
    left = least(extremes[4 * w], left);
    top = least(extremes[4 * w + 1], top);
    right = greatest(extremes[4 * w + 2], right);
    bottom = greatest(extremes[4 * w + 3], bottom);
  }
  float* box = p.boxes + static_cast<int64_t>(blockIdx.x) * 4;
  const bool empty = right < 0;
  box[0] = empty ? 0.0f : static_cast<float>(left);
  box[1] = empty ? 0.0f : static_cast<float>(top);
  box[2] = empty ? 0.0f : static_cast<float>(right);
  box[3] = empty ? 0.0f : static_cast<float>(bottom);
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void masks_to_boxes_cuda(const MasksToBoxesParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  const LaunchShape shape({params.count}, {kBlockSize});
  if (reinterpret_cast<uintptr_t>(params.masks) % 16 == 0 && params.width % 16 == 0) {
    launch(masks_to_boxes_kernel<16>, shape, stream, params);
  } else {
    launch(masks_to_boxes_kernel<1>, shape, stream, params);
  }
}

}  // namespace fastcv

// Boxes of masks on CUDA: blocks of kRowsPerBlock rows of a mask, a warp per row in turn, lanes over the row in units of
// 16 aligned bytes, which reach into the rows beside it where its ends are no multiples of that. The extremes of a block
// meet those of the others in integer atomics, in any order the same; the boxes' own memory holds them meanwhile.
//
// Napkin maths, 100 masks of 800 x 1333: 107 MB, 25 us at 4.3 TB/s. 2 500 blocks keep all multiprocessors reading.
#include "core/cuda/atomic.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/pack.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "ops/masks_to_boxes/masks_to_boxes.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kBlockSize = 256;
constexpr int kWarps = kBlockSize / static_cast<int>(kWarpSize);
constexpr int kRowsPerBlock = 4 * kWarps;
constexpr int kUnit = 16;

struct Extremes {
  int left, top, right, bottom;
};

// A mask's extremes while they are found, in the place of its box.
__device__ int32_t* extremes_of(const MasksToBoxesParams& p, int64_t mask) {
  return reinterpret_cast<int32_t*>(p.boxes) + 4 * mask;
}

__global__ void __launch_bounds__(kBlockSize, 2) clear_extremes_kernel(const MasksToBoxesParams p) {
  const int64_t mask = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  if (mask >= p.count) return;
  int32_t* const extremes = extremes_of(p, mask);
  extremes[0] = static_cast<int32_t>(p.width);
  extremes[1] = static_cast<int32_t>(p.height);
  extremes[2] = extremes[3] = -1;
}

// The bytes masks[first .. first + kUnit), zeros before the first mask and past the last. The address is a multiple of
// kUnit.
__device__ Pack<uint32_t, kUnit / 4> load_unit(const MasksToBoxesParams& p, int64_t first) {
  const int64_t bytes = p.count * p.height * p.width;
  if (first >= 0 && first + kUnit <= bytes) {
    return load_pack<kUnit / 4>(reinterpret_cast<const uint32_t*>(p.masks + first));
  }
  Pack<uint32_t, kUnit / 4> unit{};
#pragma unroll
  for (int i = 0; i < kUnit; ++i) {
    if (first + i < 0 || first + i >= bytes) continue;
    unit.value[i / 4] |= static_cast<uint32_t>(p.masks[first + i]) << (8 * (i % 4));
  }
  return unit;
}

__global__ void __launch_bounds__(kBlockSize, 2)
    masks_to_boxes_kernel(const MasksToBoxesParams p, unsigned blocks_per_mask) {
  FASTCV_SHARED(Extremes, of_warps, kWarps);
  const int warp = static_cast<int>(threadIdx.x / kWarpSize);
  const int width = static_cast<int>(p.width);
  const int64_t mask = blockIdx.x / blocks_per_mask;
  const int64_t begin = static_cast<int64_t>(blockIdx.x % blocks_per_mask) * kRowsPerBlock;
  const int64_t end = least(begin + kRowsPerBlock, p.height);
  const int shift = static_cast<int>(reinterpret_cast<uintptr_t>(p.masks) % kUnit);  // of the masks within a unit
  Extremes all{width, static_cast<int>(p.height), -1, -1};
  for (int64_t y = begin + warp; y < end; y += kWarps) {
    const int64_t row = (mask * p.height + y) * width;
    int64_t first = ((row + shift) / kUnit + lane_id()) * kUnit - shift;
    for (; first < row + width; first += kWarpSize * kUnit) {
      const Pack<uint32_t, kUnit / 4> unit = load_unit(p, first);
#pragma unroll
      for (int word = 0; word < kUnit / 4; ++word) {
        if (unit.value[word] == 0) continue;
        for (int byte = 0; byte < 4; ++byte) {
          const int64_t x = first + 4 * word + byte - row;
          if ((unit.value[word] >> (8 * byte) & 0xffu) == 0 || x < 0 || x >= width) continue;
          all.left = least(static_cast<int>(x), all.left);
          all.right = greatest(static_cast<int>(x), all.right);
          all.top = least(static_cast<int>(y), all.top);
          all.bottom = static_cast<int>(y);
        }
      }
    }
  }
  all = {warp_reduce_min(all.left), warp_reduce_min(all.top), warp_reduce_max(all.right), warp_reduce_max(all.bottom)};
  if (lane_id() == 0) of_warps[warp] = all;
  block_sync();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kWarps; ++w) {
    all = {least(of_warps[w].left, all.left), least(of_warps[w].top, all.top), greatest(of_warps[w].right, all.right),
           greatest(of_warps[w].bottom, all.bottom)};
  }
  if (all.right < 0) return;
  int32_t* const extremes = extremes_of(p, mask);
  atomic_min(&extremes[0], all.left);
  atomic_min(&extremes[1], all.top);
  atomic_max(&extremes[2], all.right);
  atomic_max(&extremes[3], all.bottom);
}

__global__ void __launch_bounds__(kBlockSize, 2) write_boxes_kernel(const MasksToBoxesParams p) {
  const int64_t mask = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  if (mask >= p.count) return;
  const int32_t* const extremes = extremes_of(p, mask);
  const Extremes e{extremes[0], extremes[1], extremes[2], extremes[3]};
  Pack<float, 4> box{};
  if (e.right >= 0) {
    box = {{static_cast<float>(e.left), static_cast<float>(e.top), static_cast<float>(e.right),
            static_cast<float>(e.bottom)}};
  }
  store_pack(p.boxes + 4 * mask, box);
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void masks_to_boxes_cuda(const MasksToBoxesParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  const LaunchShape by_mask({grid_size(params.count, kBlockSize)}, {kBlockSize});
  launch(clear_extremes_kernel, by_mask, stream, params);
  const int64_t blocks_per_mask = ceil_div<int64_t>(params.height, kRowsPerBlock);
  launch(masks_to_boxes_kernel, {{params.count * blocks_per_mask}, {kBlockSize}}, stream, params,
         static_cast<unsigned>(blocks_per_mask));
  launch(write_boxes_kernel, by_mask, stream, params);
}

}  // namespace fastcv

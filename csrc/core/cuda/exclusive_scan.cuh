// Prefix sums in three launches and without waiting between blocks: every block counts its share, one block scans the
// counts, every block ranks its share. Napkin maths: the items are looked at twice, the counts are 1/1024 of them.
#pragma once

#include "core/cuda/block_rank.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/scan_size.h"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"

namespace fastcv::FASTCV_VARIANT {

// Turns values[0 .. count) into the sums of those before each, values[count] into the sum of all. One block of
// kScanBlock threads.
template <class Integer>
__global__ void __launch_bounds__(kScanBlock, 1) exclusive_scan_kernel(Integer* values, int64_t count) {
  constexpr int kWarps = kScanBlock / static_cast<int>(kWarpSize);
  FASTCV_SHARED(Integer, warp_sums, kWarps);
  const int warp = static_cast<int>(threadIdx.x / kWarpSize);
  Integer before = 0;
  for (int64_t base = 0; base < count; base += kScanBlock) {
    const int64_t i = base + threadIdx.x;
    const Integer own = i < count ? values[i] : Integer(0);
    Integer sum = own;
    for (unsigned delta = 1; delta < kWarpSize; delta *= 2) {
      const Integer other = warp_shuffle_up(kFullMask, sum, delta);
      if (lane_id() >= delta) sum += other;
    }
    if (lane_id() == kWarpSize - 1) warp_sums[warp] = sum;
    block_sync();
    Integer share = 0;
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) sum += warp_sums[w];
      share += warp_sums[w];
    }
    if (i < count) values[i] = before + sum - own;
    before += share;
    block_sync();
  }
  if (threadIdx.x == 0) values[count] = before;
}

}  // namespace fastcv::FASTCV_VARIANT

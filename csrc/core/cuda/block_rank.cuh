// The place of each thread of a block in a list of those that have something to list.
//
//   int listed;
//   const int place = block_rank<kBlockSize>(wanted, listed);
//   if (wanted) list[place] = item;   // in the order of the threads
#pragma once

#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"

namespace fastcv::FASTCV_VARIANT {

// How many threads before this one have their flag set; `total` is the number of all that have. All threads of a block
// of kThreads take part. Barriers stand before and after the reads, so it may be called again at once.
template <int kThreads>
__device__ __forceinline__ int block_rank(bool flag, int& total) {
  constexpr int kWarps = kThreads / static_cast<int>(kWarpSize);
  FASTCV_SHARED(int, warp_counts, kWarps);
  const unsigned votes = warp_ballot(kFullMask, flag);
  const int warp = static_cast<int>(threadIdx.x / kWarpSize);
  if (lane_id() == 0) warp_counts[warp] = count_lanes(votes);
  block_sync();
  int rank = count_lanes(votes & ((1u << lane_id()) - 1));
  total = 0;
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp) rank += warp_counts[w];
    total += warp_counts[w];
  }
  block_sync();
  return rank;
}

}  // namespace fastcv::FASTCV_VARIANT

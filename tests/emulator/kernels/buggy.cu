// Kernels with one deliberate mistake each, which the emulator or a sanitizer has to find. The lines that a
// sanitizer must name are marked.
#include <stdexcept>

#include "core/cuda/atomic.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/mma.cuh"
#include "core/cuda/pack.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "emulator/kernels/cases.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kThreads = 64;

// Launches the kernel on one block and expects `expected` from each thread.
bool each_thread_gives(void (*kernel)(int*), int expected) {
  Buffer<int> output(kThreads);
  launch(kernel, {1, kThreads, kThreads * sizeof(int)}, kStream, output.data());
  synchronize();
  for (int i = 0; i < kThreads; ++i) {
    if (output[i] != expected) return false;
  }
  return true;
}

// No barrier between writing and reading.
__global__ void missing_barrier_kernel(int* output) {
  FASTCV_SHARED(int, slots, kThreads);
  slots[threadIdx.x] = 7;  // found: missing_barrier
  output[threadIdx.x] = slots[(threadIdx.x + 1) % kThreads];
}

// No barrier between reading and the next round's writing.
__global__ void missing_second_barrier_kernel(int* output) {
  FASTCV_SHARED(int, slots, kThreads);
  int wrong = 0;
  for (int round = 0; round < 4; ++round) {
    slots[threadIdx.x] = round;  // found: missing_second_barrier
    block_sync();
    wrong += slots[(threadIdx.x + 1) % kThreads] != round;
  }
  output[threadIdx.x] = wrong;
}

// Takes the lanes of a warp to run in step.
__global__ void missing_warp_sync_kernel(int* output) {
  FASTCV_SHARED(int, slots, kThreads);
  slots[threadIdx.x] = 7;  // found: missing_warp_sync
  output[threadIdx.x] = slots[threadIdx.x ^ 1];
}

// Takes a shuffle for a memory barrier. The emulator's order makes the answer right.
__global__ void shuffle_for_barrier_kernel(int* output) {
  FASTCV_SHARED(int, slots, kThreads);
  slots[threadIdx.x] = 7;  // found: shuffle_for_barrier
  warp_shuffle(kFullMask, 0, 0);
  output[threadIdx.x] = slots[threadIdx.x ^ 1];
}

// All threads write the same value: right in any order, yet a race.
__global__ void shared_race_kernel(int* output) {
  FASTCV_SHARED(int, slot, 1);
  slot[0] = 7;  // found: shared_race
  block_sync();
  output[threadIdx.x] = slot[0];
}

// A sum that is not atomic, over blocks that the emulator runs one after the other.
__global__ void global_race_kernel(int* sum) {
  if (threadIdx.x == 0) *sum += 1;  // found: global_race
}

bool global_race() {
  Buffer<int> sum(1);
  launch(global_race_kernel, {3, 32}, kStream, sum.data());
  synchronize();
  return sum[0] == 3;
}

__global__ void shared_overrun_kernel(int* output) {
  FASTCV_DYNAMIC_SHARED(int, slots);
  slots[threadIdx.x + 1] = 7;  // found: shared_overrun
  block_sync();
  output[threadIdx.x] = 7;
}

__global__ void static_shared_overrun_kernel(int* output) {
  FASTCV_SHARED(int, slots, kThreads);
  slots[threadIdx.x + 1] = 7;  // found: static_shared_overrun
  block_sync();
  output[threadIdx.x] = slots[1];
}

__global__ void global_overrun_kernel(int* output) {
  const unsigned i = threadIdx.x;
  output[i] = 7;
  if (i == kThreads - 1) output[i + 1] = 7;  // found: global_overrun
}

// The first thread to run has no value from thread 5.
__global__ void uninitialised_shared_kernel(int* output) {
  FASTCV_SHARED(float, slots, kThreads);
  if (threadIdx.x != 5) slots[threadIdx.x] = 0.0f;
  block_sync();
  float sum = 0.0f;
  for (int i = 0; i < kThreads; ++i) sum += slots[i];
  output[threadIdx.x] = sum == 0.0f ? 7 : 0;
}

__global__ void divergent_shuffle_kernel(int* output) {
  if (lane_id() < 16) {
    output[threadIdx.x] = warp_shuffle_down(kFullMask, 7, 1);
  } else {
    output[threadIdx.x] = warp_ballot(kFullMask, true) != 0 ? 7 : 0;
  }
}

// Each half names the whole warp on one side only.
__global__ void different_masks_kernel(int* output) {
  output[threadIdx.x] = warp_shuffle_xor(lane_id() < 16 ? kFullMask : 0xffff0000u, 7, 1);
}

__global__ void mask_without_self_kernel(int* output) {
  output[threadIdx.x] = warp_shuffle(0x0000ffffu, 7, 0);
}

__global__ void exited_lane_kernel(int* output) {
  output[threadIdx.x] = 7;
  if (lane_id() == 3) return;
  warp_sync(kFullMask);
}

// A block of 40 threads has 8 lanes in its second warp.
__global__ void partial_warp_kernel(int* output) {
  output[threadIdx.x] = warp_reduce_sum(1);
}

bool partial_warp() {
  Buffer<int> output(40);
  launch(partial_warp_kernel, {1, 40}, kStream, output.data());
  return output[0] == 32;
}

__global__ void misaligned_pack_kernel(int* output) {
  store_pack(output + 1, Pack<int, 2>{{7, 7}});
}

__global__ void divergent_barrier_kernel(int* output) {
  output[threadIdx.x] = 7;
  if (threadIdx.x % 2 == 0) {
    block_sync();
  } else {
    block_sync();
  }
}

__global__ void different_barriers_kernel(int* output) {
  output[threadIdx.x] = 7;
  if (threadIdx.x < 32) {
    block_sync();
  } else {
    block_any(true);
  }
}

// Lane 0 waits for its warp, which waits for the block.
__global__ void deadlock_kernel(int* output) {
  output[threadIdx.x] = 7;
  if (lane_id() == 0) {
    warp_sync(kFullMask);
  } else {
    block_sync();
  }
}

// Nobody gives the lock back.
__global__ void lock_kernel(int* output) {
  uint32_t* const lock = reinterpret_cast<uint32_t*>(output);
  while (atomic_cas(lock, 0u, 1u) != 0u) {
  }
}

__global__ void throwing_kernel(int* output) {
  output[threadIdx.x] = 7;
  block_sync();
#if defined(FASTCV_EMULATED)
  if (threadIdx.x == 9) throw std::runtime_error("thrown on purpose");
#endif
  block_sync();
}

__global__ void large_shared_kernel(int* output) {
#if defined(FASTCV_EMULATED)
  FASTCV_SHARED(int, slots, 13000);
  slots[threadIdx.x] = 7;
  output[threadIdx.x] = slots[threadIdx.x];
#endif
}

// Sevens by way of shared memory. The copy has not landed when it is read.
template <int kWaitedFor, int kOffset, bool kWaitsAtEnd>
__global__ void copy_kernel(int* output) {
  FASTCV_DYNAMIC_SHARED(int, tile);
  output[threadIdx.x] = 7;
  block_sync();
  if (threadIdx.x < kThreads / 4 - kOffset) {
    copy_async_16(tile + 4 * threadIdx.x, output + 4 * threadIdx.x + kOffset, true);
    commit_copies();
    wait_for_copies<kWaitedFor>();
    if (kWaitsAtEnd) output[threadIdx.x] = tile[4 * threadIdx.x];
  }
  if (kWaitsAtEnd) wait_for_copies<0>();
}

__global__ void good_kernel(int* output) {
  block_sync();
  output[threadIdx.x] = 7;
}

__global__ void together_kernel(int* output) {
  FASTCV_SHARED(int, slots, 1000);
  slots[threadIdx.x] = 7;
  output[threadIdx.x] = slots[threadIdx.x];
}

// A GPU that has more runs them.
template <void (*kKernel)(int*), size_t kBytes>
bool too_much_shared() {
#if defined(FASTCV_EMULATED)
  Buffer<int> output(kThreads);
  launch(kKernel, {1, kThreads, kBytes}, kStream, output.data());
#endif
  return true;
}

// After a launch that failed the emulator works as before.
bool recovery() {
  for (int round = 0; round < 5; ++round) {
    bool thrown = false;
    try {
      each_thread_gives(deadlock_kernel, 7);
    } catch (const std::runtime_error&) {
      thrown = true;
    }
    if (!thrown || !each_thread_gives(good_kernel, 7)) return false;
  }
  return true;
}

template <void (*kernel)(int*), int expected>
bool gives() {
  return each_thread_gives(kernel, expected);
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

CaseList buggy_cases() {
  using namespace fastcv::FASTCV_VARIANT;
  static constexpr Case kCases[] = {
      {"missing_barrier", gives<missing_barrier_kernel, 7>},
      {"missing_second_barrier", gives<missing_second_barrier_kernel, 0>},
      {"missing_warp_sync", gives<missing_warp_sync_kernel, 7>},
      {"shuffle_for_barrier", gives<shuffle_for_barrier_kernel, 7>},
      {"shared_race", gives<shared_race_kernel, 7>},
      {"global_race", global_race},
      {"shared_overrun", gives<shared_overrun_kernel, 7>},
      {"static_shared_overrun", gives<static_shared_overrun_kernel, 7>},
      {"global_overrun", gives<global_overrun_kernel, 7>},
      {"uninitialised_shared", gives<uninitialised_shared_kernel, 7>},
      {"divergent_shuffle", gives<divergent_shuffle_kernel, 7>},
      {"different_masks", gives<different_masks_kernel, 7>},
      {"mask_without_self", gives<mask_without_self_kernel, 7>},
      {"exited_lane", gives<exited_lane_kernel, 7>},
      {"partial_warp", partial_warp},
      {"misaligned_pack", gives<misaligned_pack_kernel, 7>},
      {"divergent_barrier", gives<divergent_barrier_kernel, 7>},
      {"different_barriers", gives<different_barriers_kernel, 7>},
      {"deadlock", gives<deadlock_kernel, 7>},
      {"lock", gives<lock_kernel, 1>},
      {"throwing", gives<throwing_kernel, 7>},
      {"large_shared", gives<large_shared_kernel, 7>},
      {"early_copy", gives<copy_kernel<1, 0, true>, 7>},
      {"misaligned_copy", gives<copy_kernel<0, 1, true>, 7>},
      {"copy_at_exit", gives<copy_kernel<1, 0, false>, 7>},
      {"too_much_shared", too_much_shared<good_kernel, (99 << 10) + 1>},
      {"too_much_together", too_much_shared<together_kernel, 96 << 10>},
      {"recovery", recovery},
  };
  return {kCases, sizeof(kCases) / sizeof(kCases[0])};
}

// CUDA played on the CPU, for tests: what a .cu file of fastcv needs when a plain C++ compiler compiles it.
//
// Each CUDA thread is a fiber; all run on the one OS thread that calls launch, and blocks run one after the other. The
// order of threads and blocks is shuffled from a seed, so that code which relies on an order it has no right to gives
// wrong answers. A launch that cannot go on throws EmulatorError, which tells who waits where.
// Included by csrc/core/cuda only; kernels use the wrappers there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include "core/cuda/call_site.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__

namespace fastcv::emulator {

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
};

// Of the thread that runs now.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
unsigned lane();

class EmulatorError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct KernelCall {
  dim3 grid, block;
  size_t shared_bytes;
  CallSite site;
  void (*thread)(const void* context);  // runs the kernel for the current thread
  const void* context;
  bool is_for_sm_90 = false;
};

// Runs all blocks. Launches from several OS threads wait for each other.
void run(const KernelCall& call);

// Starts the sequence of shuffles anew. The first seed is the environment variable FASTCV_EMULATOR_SEED, else 1.
void set_seed(uint64_t seed);

enum class Operation : uint8_t {
  kShuffle,
  kShuffleDown,
  kShuffleUp,
  kShuffleXor,
  kBallot,
  kAny,
  kAll,
  kWarpSync,
  kBlockSync,
  kBlockAny,
  kBlockAll,
  kBlockCount,
};

// Waits for the lanes of the mask; returns this lane's result. `argument` is the lane, delta or xor mask of a shuffle.
uint64_t warp_collective(Operation operation, unsigned mask, uint64_t value, int argument, CallSite site);

// Waits for the threads of the block that have not returned; returns the result of the vote.
int block_barrier(Operation operation, bool predicate, CallSite site);

// The block's array for a declaration, made by the first thread that asks.
void* shared_array(const void* declaration, size_t bytes, size_t alignment);
void* dynamic_shared();

// A copy of 16 bytes, or of zeros, to shared memory. It lands when this thread waits for its group; until then its place
// holds 0xFF, and a thread may not return before.
void copy_async_16(void* to, const void* from, bool valid, CallSite site);
void commit_copies();
void wait_for_copies(unsigned groups);

// After each compare-and-swap: a loser lets the other threads run, for it may be waiting for one of them.
void after_cas(bool won);

// Fails unless the address, of an access as one, is a multiple of `alignment`.
void check_alignment(const void* address, size_t alignment);

}  // namespace fastcv::emulator

using fastcv::emulator::blockDim;
using fastcv::emulator::blockIdx;
using fastcv::emulator::dim3;
using fastcv::emulator::gridDim;
using fastcv::emulator::threadIdx;
using fastcv::emulator::uint3;

// For a test module that is loaded from Python: reached through ctypes.
extern "C" __attribute__((visibility("default"))) void fastcv_emulator_set_seed(uint64_t seed);

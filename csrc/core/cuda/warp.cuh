// What the threads of a warp and of a block do together.
//
// Every lane named in `mask` must come to the same operation with the same mask. A lane that reads from a lane outside
// the mask gets an undefined value. Shuffles and votes do not order memory: warp_sync and block_sync do.
// Values are of any trivially copyable type of at most 8 bytes.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/platform.h"

#if !defined(__CUDACC__)
#include "emulator/runtime.h"
#endif

namespace fastcv::FASTCV_VARIANT {

constexpr unsigned kWarpSize = 32;
constexpr unsigned kFullMask = 0xffffffffu;

#if defined(__CUDACC__)

// The number of this thread within its warp.
inline __device__ unsigned lane_id() {
  unsigned lane;
  asm("mov.u32 %0, %%laneid;" : "=r"(lane));
  return lane;
}

// Applies a shuffle to the bits of a value, in the narrowest register that holds them.
template <class T, class Shuffle>
__device__ __forceinline__ T shuffle_bits(T value, Shuffle shuffle) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  using Bits = std::conditional_t<sizeof(T) <= 4, unsigned, unsigned long long>;
  Bits bits = 0;
  memcpy(&bits, &value, sizeof(T));
  bits = shuffle(bits);
  memcpy(&value, &bits, sizeof(T));
  return value;
}

// The value of lane `lane` (modulo 32).
template <class T>
__device__ __forceinline__ T warp_shuffle(unsigned mask, T value, int lane) {
  return shuffle_bits(value, [=](auto bits) { return __shfl_sync(mask, bits, lane); });
}

// The value of the lane `delta` further down; past the end, the own value.
template <class T>
__device__ __forceinline__ T warp_shuffle_down(unsigned mask, T value, unsigned delta) {
  return shuffle_bits(value, [=](auto bits) { return __shfl_down_sync(mask, bits, delta); });
}

// The value of the lane `delta` before; before the beginning, the own value.
template <class T>
__device__ __forceinline__ T warp_shuffle_up(unsigned mask, T value, unsigned delta) {
  return shuffle_bits(value, [=](auto bits) { return __shfl_up_sync(mask, bits, delta); });
}

// The value of the lane whose number differs in the bits `lane_mask`.
template <class T>
__device__ __forceinline__ T warp_shuffle_xor(unsigned mask, T value, int lane_mask) {
  return shuffle_bits(value, [=](auto bits) { return __shfl_xor_sync(mask, bits, lane_mask); });
}

inline __device__ unsigned warp_ballot(unsigned mask, bool predicate) {
  return __ballot_sync(mask, predicate);
}
inline __device__ bool warp_any(unsigned mask, bool predicate) {
  return __any_sync(mask, predicate);
}
inline __device__ bool warp_all(unsigned mask, bool predicate) {
  return __all_sync(mask, predicate);
}
inline __device__ void warp_sync(unsigned mask) {
  __syncwarp(mask);
}

// Barriers of all threads of the block that have not returned. The votes are barriers too.
inline __device__ void block_sync() {
  __syncthreads();
}
inline __device__ bool block_any(bool predicate) {
  return __syncthreads_or(predicate);
}
inline __device__ bool block_all(bool predicate) {
  return __syncthreads_and(predicate);
}
inline __device__ int block_count(bool predicate) {
  return __syncthreads_count(predicate);
}

// Number of lanes in a mask, and the lowest of them (the mask must not be empty).
inline __device__ int count_lanes(unsigned mask) {
  return __popc(mask);
}
inline __device__ int first_lane(unsigned mask) {
  return __ffs(static_cast<int>(mask)) - 1;
}

#else

inline unsigned lane_id() {
  return emulator::lane();
}

template <class T>
T shuffle_bits(emulator::Operation operation, unsigned mask, T value, int argument, CallSite site) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = emulator::warp_collective(operation, mask, bits, argument, site);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

template <class T>
T warp_shuffle(unsigned mask, T value, int lane, CallSite site = CallSite::here()) {
  return shuffle_bits(emulator::Operation::kShuffle, mask, value, lane, site);
}
template <class T>
T warp_shuffle_down(unsigned mask, T value, unsigned delta, CallSite site = CallSite::here()) {
  return shuffle_bits(emulator::Operation::kShuffleDown, mask, value, static_cast<int>(delta), site);
}
template <class T>
T warp_shuffle_up(unsigned mask, T value, unsigned delta, CallSite site = CallSite::here()) {
  return shuffle_bits(emulator::Operation::kShuffleUp, mask, value, static_cast<int>(delta), site);
}
template <class T>
T warp_shuffle_xor(unsigned mask, T value, int lane_mask, CallSite site = CallSite::here()) {
  return shuffle_bits(emulator::Operation::kShuffleXor, mask, value, lane_mask, site);
}

inline unsigned warp_ballot(unsigned mask, bool predicate, CallSite site = CallSite::here()) {
  return static_cast<unsigned>(emulator::warp_collective(emulator::Operation::kBallot, mask, predicate, 0, site));
}
inline bool warp_any(unsigned mask, bool predicate, CallSite site = CallSite::here()) {
  return emulator::warp_collective(emulator::Operation::kAny, mask, predicate, 0, site) != 0;
}
inline bool warp_all(unsigned mask, bool predicate, CallSite site = CallSite::here()) {
  return emulator::warp_collective(emulator::Operation::kAll, mask, predicate, 0, site) != 0;
}
inline void warp_sync(unsigned mask, CallSite site = CallSite::here()) {
  emulator::warp_collective(emulator::Operation::kWarpSync, mask, 0, 0, site);
}

inline void block_sync(CallSite site = CallSite::here()) {
  emulator::block_barrier(emulator::Operation::kBlockSync, false, site);
}
inline bool block_any(bool predicate, CallSite site = CallSite::here()) {
  return emulator::block_barrier(emulator::Operation::kBlockAny, predicate, site) != 0;
}
inline bool block_all(bool predicate, CallSite site = CallSite::here()) {
  return emulator::block_barrier(emulator::Operation::kBlockAll, predicate, site) != 0;
}
inline int block_count(bool predicate, CallSite site = CallSite::here()) {
  return emulator::block_barrier(emulator::Operation::kBlockCount, predicate, site);
}

inline int count_lanes(unsigned mask) {
  return __builtin_popcount(mask);
}
inline int first_lane(unsigned mask) {
  return __builtin_ctz(mask);
}

#endif

// Reductions over a full warp, in one fixed order: always the pairs (i, i ^ 16), then (i, i ^ 8) ... The lower lane's
// value is the left operand, so that all lanes end with the same bits, NaN and signed zeros included.
template <class T, class Combine>
__device__ __forceinline__ T warp_reduce(T value, Combine combine) {
  const unsigned lane = lane_id();
#pragma unroll
  for (unsigned offset = kWarpSize / 2; offset > 0; offset /= 2) {
    const T other = warp_shuffle_xor(kFullMask, value, static_cast<int>(offset));
    value = (lane & offset) ? combine(other, value) : combine(value, other);
  }
  return value;
}

template <class T>
__device__ __forceinline__ T warp_reduce_sum(T value) {
  return warp_reduce(value, [](T a, T b) { return a + b; });
}

// A NaN is passed over unless all values are NaN. Integers of 32 bits take one instruction.
template <class T>
__device__ __forceinline__ T warp_reduce_max(T value) {
#if defined(__CUDACC__)
  if constexpr (std::is_integral_v<T> && sizeof(T) == 4) return __reduce_max_sync(kFullMask, value);
#endif
  return warp_reduce(value, [](T a, T b) {
    if constexpr (std::is_floating_point_v<T>) return (a < b || a != a) ? b : a;
    return a < b ? b : a;
  });
}

template <class T>
__device__ __forceinline__ T warp_reduce_min(T value) {
#if defined(__CUDACC__)
  if constexpr (std::is_integral_v<T> && sizeof(T) == 4) return __reduce_min_sync(kFullMask, value);
#endif
  return warp_reduce(value, [](T a, T b) {
    if constexpr (std::is_floating_point_v<T>) return (b < a || a != a) ? b : a;
    return b < a ? b : a;
  });
}

}  // namespace fastcv::FASTCV_VARIANT

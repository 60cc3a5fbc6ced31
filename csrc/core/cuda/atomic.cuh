// Atomic operations on global or shared memory, relaxed like CUDA's. Each returns the value before.
//
//   atomic_add            int32, uint32, uint64, float, double
//   atomic_min, atomic_max  int32, uint32, uint64
//   atomic_or             uint32, uint64
//   atomic_cas            uint32, uint64
//
// Sums of floats depend on the order of arrival: not for results that are to be the same bits twice.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/platform.h"

#if defined(__CUDACC__)

namespace fastcv::FASTCV_VARIANT {

// CUDA's 64-bit atomics are for unsigned long long, uint64_t is unsigned long.
static_assert(sizeof(unsigned long long) == sizeof(uint64_t));
inline __device__ unsigned long long* as_long_long(uint64_t* address) {
  return reinterpret_cast<unsigned long long*>(address);
}

inline __device__ int32_t atomic_add(int32_t* address, int32_t value) {
  return atomicAdd(address, value);
}
inline __device__ uint32_t atomic_add(uint32_t* address, uint32_t value) {
  return atomicAdd(address, value);
}
inline __device__ uint64_t atomic_add(uint64_t* address, uint64_t value) {
  return atomicAdd(as_long_long(address), value);
}
inline __device__ float atomic_add(float* address, float value) {
  return atomicAdd(address, value);
}
inline __device__ double atomic_add(double* address, double value) {
  return atomicAdd(address, value);
}

inline __device__ int32_t atomic_min(int32_t* address, int32_t value) {
  return atomicMin(address, value);
}
inline __device__ uint32_t atomic_min(uint32_t* address, uint32_t value) {
  return atomicMin(address, value);
}
inline __device__ uint64_t atomic_min(uint64_t* address, uint64_t value) {
  return atomicMin(as_long_long(address), static_cast<unsigned long long>(value));
}

inline __device__ int32_t atomic_max(int32_t* address, int32_t value) {
  return atomicMax(address, value);
}
inline __device__ uint32_t atomic_max(uint32_t* address, uint32_t value) {
  return atomicMax(address, value);
}
inline __device__ uint64_t atomic_max(uint64_t* address, uint64_t value) {
  return atomicMax(as_long_long(address), static_cast<unsigned long long>(value));
}

inline __device__ uint32_t atomic_or(uint32_t* address, uint32_t value) {
  return atomicOr(address, value);
}
inline __device__ uint64_t atomic_or(uint64_t* address, uint64_t value) {
  return atomicOr(as_long_long(address), static_cast<unsigned long long>(value));
}

inline __device__ uint32_t atomic_cas(uint32_t* address, uint32_t expected, uint32_t desired) {
  return atomicCAS(address, expected, desired);
}
inline __device__ uint64_t atomic_cas(uint64_t* address, uint64_t expected, uint64_t desired) {
  return atomicCAS(as_long_long(address), expected, desired);
}

}  // namespace fastcv::FASTCV_VARIANT

#else

#include "emulator/runtime.h"

namespace fastcv::FASTCV_VARIANT {

// True atomics although one thread runs at a time: ThreadSanitizer takes them for what they are on the GPU.
template <class T, class Update>
T atomic_update(T* address, Update update) {
  T before;
  __atomic_load(address, &before, __ATOMIC_RELAXED);
  for (;;) {
    T after = update(before);
    if (__atomic_compare_exchange(address, &before, &after, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return before;
  }
}

inline int32_t atomic_add(int32_t* address, int32_t value) {
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
inline uint32_t atomic_add(uint32_t* address, uint32_t value) {
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
inline uint64_t atomic_add(uint64_t* address, uint64_t value) {
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
inline float atomic_add(float* address, float value) {
  return atomic_update(address, [=](float before) { return before + value; });
}
inline double atomic_add(double* address, double value) {
  return atomic_update(address, [=](double before) { return before + value; });
}

template <class T>
T atomic_min(T* address, std::common_type_t<T> value) {
  static_assert(std::is_same_v<T, int32_t> || std::is_same_v<T, uint32_t> || std::is_same_v<T, uint64_t>);
  return atomic_update(address, [=](T before) { return value < before ? value : before; });
}

template <class T>
T atomic_max(T* address, std::common_type_t<T> value) {
  static_assert(std::is_same_v<T, int32_t> || std::is_same_v<T, uint32_t> || std::is_same_v<T, uint64_t>);
  return atomic_update(address, [=](T before) { return before < value ? value : before; });
}

inline uint32_t atomic_or(uint32_t* address, uint32_t value) {
  return __atomic_fetch_or(address, value, __ATOMIC_RELAXED);
}
inline uint64_t atomic_or(uint64_t* address, uint64_t value) {
  return __atomic_fetch_or(address, value, __ATOMIC_RELAXED);
}

template <class T>
T atomic_cas(T* address, std::common_type_t<T> expected, std::common_type_t<T> desired) {
  static_assert(std::is_same_v<T, uint32_t> || std::is_same_v<T, uint64_t>);
  T before = expected;
  emulator::after_cas(
      __atomic_compare_exchange_n(address, &before, desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return before;
}

}  // namespace fastcv::FASTCV_VARIANT

#endif

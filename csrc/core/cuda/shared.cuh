// Shared memory of a block.
//
//   FASTCV_SHARED(float, tile, 32 * 33);     // float tile[32 * 33], one per block
//   FASTCV_DYNAMIC_SHARED(float, weights);   // float* weights, as many bytes as the launch asked for
//
// Both stand in a kernel or in a device function. The contents are undefined at first: the emulator fills them with
// 0xFF, which reads as NaN, in a heap block of exactly that size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/platform.h"

namespace fastcv::FASTCV_VARIANT {

// What a block may have on every GPU that is served, static and dynamic together: sm_86 and sm_89 have the least.
constexpr size_t kMaxSharedBytes = 99 << 10;
constexpr size_t kMaxSharedBytesOfSm90 = 227 << 10;

}  // namespace fastcv::FASTCV_VARIANT

#if defined(__CUDACC__)

#define FASTCV_SHARED(type, name, count) __shared__ type name[count]

#define FASTCV_DYNAMIC_SHARED(type, name)                                    \
  extern __shared__ __align__(16) unsigned char fastcv_dynamic_shared[];     \
  static_assert(alignof(type) <= 16, "dynamic shared memory is 16-aligned"); \
  type* const name = reinterpret_cast<type*>(fastcv_dynamic_shared)

#else

#include "emulator/runtime.h"

// The static variable's address is the identity of the declaration, in each instantiation of a template.
#define FASTCV_SHARED(type, name, count)                                                                \
  static_assert(std::is_trivially_default_constructible_v<type>, "shared memory runs no constructors"); \
  static const char name##_declaration = 0;                                                             \
  using name##_array = type[count];                                                                     \
  name##_array& name = *static_cast<name##_array*>(                                                     \
      ::fastcv::emulator::shared_array(&name##_declaration, sizeof(name##_array), alignof(name##_array)))

#define FASTCV_DYNAMIC_SHARED(type, name)                                    \
  static_assert(alignof(type) <= 16, "dynamic shared memory is 16-aligned"); \
  type* const name = static_cast<type*>(::fastcv::emulator::dynamic_shared())

#endif

namespace fastcv::FASTCV_VARIANT {

// The next multiple of `kAlignment` in dynamic shared memory, which must have that many bytes to spare.
template <int kAlignment>
__device__ __forceinline__ void* aligned_shared(void* memory) {
#if defined(__CUDACC__)
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(memory));
#else
  const unsigned address = static_cast<unsigned>(reinterpret_cast<uintptr_t>(memory));
#endif
  return static_cast<char*>(memory) + (0u - address) % kAlignment;
}

}  // namespace fastcv::FASTCV_VARIANT

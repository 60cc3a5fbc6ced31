// Tensor cores and asynchronous copies, each with a twin in plain C++ for the emulator.
//
//   mma_16x8x16(d, a, b)    d += a * b: one warp, 16 x 16 times 16 x 8, f16 or bf16 with float sums
//   copy_async_16(to, from, valid)   16 bytes from global to shared memory, zeros where not `valid`
//   commit_copies()         closes a group of copies
//   wait_for_copies<n>()    until at most n groups are on their way; a barrier must follow before others read
//
// Fragments as PTX numbers them (mma.m16n8k16): with row = lane / 4 and pair = 2 * (lane % 4), a thread holds of
//   A  a[0], a[1]: rows row, row + 8, columns pair, pair + 1; a[2], a[3]: the same rows, columns 8 further
//   B  b[0]: rows pair, pair + 1 of column row; b[1]: rows 8 further
//   D  d[0], d[1]: row `row`, columns pair, pair + 1; d[2], d[3]: row + 8
// Two elements share a register, the lower index in the lower half.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/cuda/warp.cuh"
#include "core/types.h"

namespace fastcv::FASTCV_VARIANT {

#if defined(__CUDACC__)

template <class T>
__device__ __forceinline__ void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

template <>
__device__ __forceinline__ void mma_16x8x16<float16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <>
__device__ __forceinline__ void mma_16x8x16<bfloat16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void copy_async_16(void* to, const void* from, bool valid) {
  const unsigned shared = static_cast<unsigned>(__cvta_generic_to_shared(to));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int kGroups>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

#else

// Element `half` (0 or 1) of a register.
template <class T>
float half_of(uint32_t bits, int half) {
  return to_float(T{static_cast<uint16_t>(bits >> (16 * half))});
}

template <class T>
void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const int lane = static_cast<int>(lane_id()), row = lane / 4, pair = 2 * (lane % 4);
  float rows[2][16], columns[2][16];
  for (int i = 0; i < 4; ++i) {  // the lanes that hold parts of this row and of these two columns
    for (int part = 0; part < 4; ++part) {
      const uint32_t bits = warp_shuffle(kFullMask, a[part], row * 4 + i);
      for (int h = 0; h < 2; ++h) rows[part % 2][part / 2 * 8 + 2 * i + h] = half_of<T>(bits, h);
    }
    for (int part = 0; part < 2; ++part) {
      for (int column = 0; column < 2; ++column) {
        const uint32_t bits = warp_shuffle(kFullMask, b[part], (pair + column) * 4 + i);
        for (int h = 0; h < 2; ++h) columns[column][part * 8 + 2 * i + h] = half_of<T>(bits, h);
      }
    }
  }
  for (int k = 0; k < 16; ++k) {
    for (int i = 0; i < 4; ++i) d[i] += rows[i / 2][k] * columns[i % 2][k];
  }
}

inline void copy_async_16(void* to, const void* from, bool valid) {
  if (valid) {
    std::memcpy(to, from, 16);
  } else {
    std::memset(to, 0, 16);
  }
}
inline void commit_copies() {}
template <int kGroups>
void wait_for_copies() {}

#endif

}  // namespace fastcv::FASTCV_VARIANT

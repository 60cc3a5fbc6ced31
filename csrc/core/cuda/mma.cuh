// Tensor cores and asynchronous copies, each with a twin in plain C++ for the emulator.
//
//   mma_words<T>(d, a, b)   d += a * b: one warp, 16 rows x 8 words times 8 words x 8 columns, with float sums. A word
//                           holds two float16 or bfloat16, or one float, which must be round_to_tf32
//   load_matrices(to, row)  four matrices of 8 rows of 4 words from shared memory: lane i names row i % 8 of matrix
//                           i / 8, and receives word i % 4 of row i / 4 of each. load_matrices_transposed: of halves;
//                           lane i receives the elements i / 4 of rows 2 * (i % 4) and 2 * (i % 4) + 1
//   copy_async_16(to, from, valid)   16 bytes from global to shared memory, zeros where not `valid`
//   commit_copies()         closes a group of copies
//   wait_for_copies<n>()    until at most n groups are on their way; a barrier must follow before others read
//
// Fragments as PTX numbers them (mma.m16n8k16, and m16n8k8 for tf32): with row = lane / 4 and word = lane % 4 a thread
// holds of
//   A  a[0], a[1]: rows row, row + 8, that word; a[2], a[3]: the same rows, 4 words further
//   B  b[0]: that word of column row; b[1]: 4 words further
//   D  d[0], d[1]: row `row`, columns 2 * word, 2 * word + 1; d[2], d[3]: row + 8
// The element of lower index is in the lower half of a word.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/cuda/warp.cuh"
#include "core/types.h"

namespace fastcv::FASTCV_VARIANT {

#if defined(__CUDACC__)

// To the 10 bits of mantissa that tensor cores read, ties away from zero.
__device__ __forceinline__ uint32_t round_to_tf32(uint32_t bits) {
  uint32_t rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(bits)));
  return rounded;
}

template <class T>
__device__ __forceinline__ void mma_words(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

template <>
__device__ __forceinline__ void mma_words<float16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <>
__device__ __forceinline__ void mma_words<bfloat16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <>
__device__ __forceinline__ void mma_words<float>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], const uint32_t* row) {
  const unsigned shared = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared)
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&to)[4], const uint32_t* row) {
  const unsigned shared = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared)
               : "memory");
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

inline uint32_t round_to_tf32(uint32_t bits) {
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffffffu;  // NaN
  return (bits + 0x1000u) & 0xffffe000u;
}

// The elements of one word, in their order.
template <class T>
void elements_of(uint32_t bits, float (&to)[4 / sizeof(T)]) {
  if constexpr (sizeof(T) == 4) {
    to[0] = bit_cast<float>(bits & 0xffffe000u);  // what a tensor core sees of a float
  } else {
    to[0] = to_float(T{static_cast<uint16_t>(bits)});
    to[1] = to_float(T{static_cast<uint16_t>(bits >> 16)});
  }
}

template <class T>
void mma_words(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  constexpr int kElements = 4 / sizeof(T), kDepth = 8 * kElements;
  const int lane = static_cast<int>(lane_id()), row = lane / 4, column = 2 * (lane % 4);
  float rows[2][kDepth], columns[2][kDepth];
  const auto put = [](float* to, uint32_t bits) {
    float elements[kElements];
    elements_of<T>(bits, elements);
    for (int e = 0; e < kElements; ++e) to[e] = elements[e];
  };
  for (int word = 0; word < 4; ++word) {  // the lanes that hold parts of these rows and of these columns
    for (int part = 0; part < 4; ++part) {
      put(rows[part % 2] + (part / 2 * 4 + word) * kElements, warp_shuffle(kFullMask, a[part], row * 4 + word));
    }
    for (int part = 0; part < 2; ++part) {
      for (int side = 0; side < 2; ++side) {
        const uint32_t bits = warp_shuffle(kFullMask, b[part], (column + side) * 4 + word);
        put(columns[side] + (part * 4 + word) * kElements, bits);
      }
    }
  }
  for (int k = 0; k < kDepth; ++k) {
    for (int i = 0; i < 4; ++i) d[i] += rows[i / 2][k] * columns[i % 2][k];
  }
}

inline void load_matrices(uint32_t (&to)[4], const uint32_t* row) {
  const int lane = static_cast<int>(lane_id());
  for (int matrix = 0; matrix < 4; ++matrix) to[matrix] = warp_shuffle(kFullMask, row, 8 * matrix + lane / 4)[lane % 4];
}
inline void load_matrices_transposed(uint32_t (&to)[4], const uint32_t* row) {
  const int lane = static_cast<int>(lane_id()), element = lane / 4;
  for (int matrix = 0; matrix < 4; ++matrix) {
    uint32_t word = 0;
    for (int half = 0; half < 2; ++half) {
      const uint32_t* other = warp_shuffle(kFullMask, row, 8 * matrix + 2 * (lane % 4) + half);
      word |= (other[element / 2] >> (16 * (element % 2)) & 0xffffu) << (16 * half);
    }
    to[matrix] = word;
  }
}

inline void copy_async_16(void* to, const void* from, bool valid, CallSite site = CallSite::here()) {
  emulator::copy_async_16(to, from, valid, site);
}
inline void commit_copies() {
  emulator::commit_copies();
}
template <int kGroups>
void wait_for_copies() {
  emulator::wait_for_copies(kGroups);
}

#endif

}  // namespace fastcv::FASTCV_VARIANT

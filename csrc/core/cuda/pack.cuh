// Packs of elements moved by one instruction between global memory and registers.
//
//   load_pack<kCount>(source)   the elements source[0 .. kCount)
//   store_pack(target, pack)    writes them
//
// The address must be a multiple of the pack's size, at most 16 bytes; larger packs go in units of 16. nvcc splits a
// plain assignment of a struct into its elements and does not always put the stores together again: four instructions
// and, for rows of floats, four times the traffic between registers and the first-level cache.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/cuda/warp.cuh"
#include "core/types.h"

namespace fastcv::FASTCV_VARIANT {

#if defined(__CUDACC__)

template <int kWords>
__device__ __forceinline__ void store_words(void* target, const uint32_t* words) {
  if constexpr (kWords == 4) {
    asm volatile("st.global.v4.b32 [%0], {%1,%2,%3,%4};" ::"l"(__cvta_generic_to_global(target)), "r"(words[0]),
                 "r"(words[1]), "r"(words[2]), "r"(words[3])
                 : "memory");
  } else {
    static_assert(kWords == 2);
    asm volatile("st.global.v2.b32 [%0], {%1,%2};" ::"l"(__cvta_generic_to_global(target)), "r"(words[0]), "r"(words[1])
                 : "memory");
  }
}

template <class T, int kCount>
__device__ __forceinline__ void store_pack(T* target, const Pack<T, kCount>& pack) {
  constexpr int kBytes = sizeof(T) * kCount, kUnit = least(kBytes, 16);
  if constexpr (kUnit >= 8) {
    uint32_t words[kBytes / 4];
    memcpy(words, &pack, kBytes);
#pragma unroll
    for (int word = 0; word < kBytes / 4; word += kUnit / 4) {
      store_words<kUnit / 4>(reinterpret_cast<char*>(target) + 4 * word, words + word);
    }
  } else {
    *reinterpret_cast<Pack<T, kCount>*>(target) = pack;
  }
}

template <int kCount, class T>
__device__ __forceinline__ Pack<T, kCount> load_pack(const T* source) {
  return *reinterpret_cast<const Pack<T, kCount>*>(source);
}

#else

template <class T, int kCount>
void store_pack(T* target, const Pack<T, kCount>& pack) {
  emulator::check_alignment(target, alignof(Pack<T, kCount>));
  std::memcpy(target, &pack, sizeof pack);
}

template <int kCount, class T>
Pack<T, kCount> load_pack(const T* source) {
  emulator::check_alignment(source, alignof(Pack<T, kCount>));
  Pack<T, kCount> pack;
  std::memcpy(&pack, source, sizeof pack);
  return pack;
}

#endif

}  // namespace fastcv::FASTCV_VARIANT

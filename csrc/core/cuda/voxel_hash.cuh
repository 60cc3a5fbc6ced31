// An open-addressing hash table of 64-bit keys. The slot that a key gets depends on the order of arrival, so nothing
// that leaves a kernel may depend on it: what is kept per slot must be the same whatever the order, such as the
// smallest index of a point (atomic_min).
#pragma once

#include "core/cuda/atomic.cuh"
#include "core/voxel_grid.h"

namespace fastcv::FASTCV_VARIANT {

constexpr uint64_t kEmptyKey = ~uint64_t{0};

// A power of two, at least twice the number of keys: at a load of half, a search takes 1.5 steps (2.5 for a new key).
constexpr FASTCV_HD int64_t hash_capacity(int64_t keys) {
  int64_t capacity = 32;
  while (capacity < 2 * keys) capacity *= 2;
  return capacity;
}

// The slot of the key, which is entered if it is not there. The table must have room, and be filled with kEmptyKey.
__device__ __forceinline__ uint32_t hash_insert(uint64_t* keys, uint32_t mask, uint64_t key) {
  uint32_t slot = static_cast<uint32_t>(mix_key(key)) & mask;
  for (;;) {
    const uint64_t found = atomic_cas(keys + slot, kEmptyKey, key);
    if (found == kEmptyKey || found == key) return slot;
    slot = (slot + 1) & mask;
  }
}

}  // namespace fastcv::FASTCV_VARIANT

// A set or map of 64-bit keys in global memory: open addressing with linear probing.
//
// `keys` has hash_capacity(number of keys) slots, all kEmptySlot at first. Which slot a key gets depends on the order
// of arrival, so nothing that is to be the same twice may depend on slots; which keys are there does not. What is
// kept per slot must be the same whatever the order, such as the smallest index that came (atomic_min).
#pragma once

#include "core/cuda/atomic.cuh"
#include "core/hash.h"

namespace fastcv::FASTCV_VARIANT {

constexpr uint64_t kEmptySlot = ~uint64_t{0};  // not a key

// Enters the key unless it is there; `inserted` says which. Returns its slot.
inline __device__ uint64_t hash_insert(uint64_t* keys, uint64_t slots, uint64_t key, bool& inserted) {
  uint64_t slot = hash_key(key) & (slots - 1);
  for (;;) {
    uint64_t before = *static_cast<const volatile uint64_t*>(&keys[slot]);  // most keys come more than once
    if (before == kEmptySlot) before = atomic_cas(&keys[slot], kEmptySlot, key);
    if (before == kEmptySlot || before == key) {
      inserted = before == kEmptySlot;
      return slot;
    }
    slot = (slot + 1) & (slots - 1);
  }
}
inline __device__ uint64_t hash_insert(uint64_t* keys, uint64_t slots, uint64_t key) {
  bool inserted;
  return hash_insert(keys, slots, key, inserted);
}

// The slot of the key; kEmptySlot when it is not there. Not while others insert.
inline __device__ uint64_t hash_find(const uint64_t* keys, uint64_t slots, uint64_t key) {
  uint64_t slot = hash_key(key) & (slots - 1);
  for (;;) {
    const uint64_t there = keys[slot];
    if (there == key) return slot;
    if (there == kEmptySlot) return kEmptySlot;
    slot = (slot + 1) & (slots - 1);
  }
}

}  // namespace fastcv::FASTCV_VARIANT

// What hash tables share on both devices: open addressing with linear probing, in a power of two of slots.
#pragma once

#include <cstdint>

#include "core/platform.h"

namespace fastcv::FASTCV_VARIANT {

// How many slots a table for `keys` keys gets: at least twice as many. At a load of half, a search takes 1.5 steps
// (2.5 for a key that is not there).
constexpr FASTCV_HD int64_t hash_capacity(int64_t keys) {
  int64_t capacity = 32;
  while (capacity < 2 * keys) capacity *= 2;
  return capacity;
}

// The finalisers of MurmurHash3: every bit of the key reaches every bit of the hash.
FASTCV_HD uint64_t hash_key(uint64_t key) {
  key = (key ^ (key >> 33)) * 0xff51afd7ed558ccdull;
  key = (key ^ (key >> 33)) * 0xc4ceb9fe1a85ec53ull;
  return key ^ (key >> 33);
}
FASTCV_HD uint32_t hash_key(uint32_t key) {
  key = (key ^ (key >> 16)) * 0x85ebca6bu;
  key = (key ^ (key >> 13)) * 0xc2b2ae35u;
  return key ^ (key >> 16);
}

}  // namespace fastcv::FASTCV_VARIANT

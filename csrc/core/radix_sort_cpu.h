// Stable sorting of (key, value) pairs by an unsigned key, one byte at a time. CPU translation units only.
#pragma once

#include <cstdint>

#include "core/types.h"

namespace fastcv::FASTCV_VARIANT {

// Sorts by ascending key; equal keys keep their order. The pointers change places with the spare ones as needed, and
// point at the result afterwards. Bytes in which no two keys differ cost nothing but the one counting pass.
template <class Key>
void radix_sort(int64_t count, Key*& keys, uint32_t*& values, Key*& spare_keys, uint32_t*& spare_values) {
  constexpr int kDigits = sizeof(Key);
  if (count <= 64) {  // not worth clearing the counters
    for (int64_t i = 1; i < count; ++i) {
      const Key key = keys[i];
      const uint32_t value = values[i];
      int64_t j = i;
      for (; j > 0 && key < keys[j - 1]; --j) {
        keys[j] = keys[j - 1];
        values[j] = values[j - 1];
      }
      keys[j] = key;
      values[j] = value;
    }
    return;
  }
  uint32_t counts[kDigits][256] = {};
  for (int64_t i = 0; i < count; ++i) {
    for (int digit = 0; digit < kDigits; ++digit) ++counts[digit][(keys[i] >> (8 * digit)) & 255];
  }
  for (int digit = 0; digit < kDigits; ++digit) {
    uint32_t* place = counts[digit];
    if (place[(keys[0] >> (8 * digit)) & 255] == static_cast<uint32_t>(count)) continue;
    uint32_t sum = 0;
    for (int bin = 0; bin < 256; ++bin) {
      const uint32_t here = place[bin];
      place[bin] = sum;
      sum += here;
    }
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t target = place[(keys[i] >> (8 * digit)) & 255]++;
      spare_keys[target] = keys[i];
      spare_values[target] = values[i];
    }
    Key* const old_keys = keys;
    keys = spare_keys;
    spare_keys = old_keys;
    uint32_t* const old_values = values;
    values = spare_values;
    spare_values = old_values;
  }
}

// A key that ascends as the score descends. Both zeros are one; NaN comes last.
inline uint32_t descending_key(float score) {
  if (score != score) return 0xffffffffu;
  const uint32_t bits = bit_cast<uint32_t>(score + 0.0f);
  return (bits & 0x80000000u) != 0 ? bits : ~bits & 0x7fffffffu;
}
inline uint64_t descending_key(double score) {
  if (score != score) return ~uint64_t{0};
  const uint64_t bits = bit_cast<uint64_t>(score + 0.0);
  return (bits >> 63) != 0 ? bits : ~bits & ~(uint64_t{1} << 63);
}

}  // namespace fastcv::FASTCV_VARIANT

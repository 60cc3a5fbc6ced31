// Reading a kernel map on the CPU: which rows of a block have a neighbour.
#pragma once

#include <cstdint>

#include "core/simd.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

// Bit i is set where neighbours[i] is in [0, inputs). `beyond` is set when one is `inputs` or more.
inline uint32_t present(const int32_t* neighbours, int64_t count, int32_t inputs, bool& beyond) {
#if defined(__AVX512F__)
  const __mmask16 all = count >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << count) - 1);
  const __m512i rows = _mm512_maskz_loadu_epi32(all, neighbours);
  const __m512i limit = _mm512_set1_epi32(inputs);
  beyond = beyond || _mm512_mask_cmpge_epi32_mask(all, rows, limit) != 0;
  return _mm512_mask_cmplt_epu32_mask(all, rows, limit);
#else
  uint32_t bits = 0;
  for (int i = 0; i < least(count, 16); ++i) {
    if (neighbours[i] >= inputs) {
      beyond = true;
    } else if (neighbours[i] >= 0) {
      bits |= 1u << i;
    }
  }
  return bits;
#endif
}

// Lists the rows of [0, count) that have a neighbour, and their neighbours. Returns how many. The lists have room for
// kListPadding more than `count`, which may be written.
constexpr int64_t kListPadding = 16;

inline int64_t list_pairs(const int32_t* neighbours, int64_t count, int32_t inputs, int32_t* rows, int32_t* sources,
                          bool& beyond) {
  int64_t listed = 0;
#if defined(__AVX512F__)
  const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i limit = _mm512_set1_epi32(inputs);
  __mmask16 too_large = 0;
  for (int64_t i = 0; i < count; i += 16) {
    // No branch on the contents, which would be mispredicted at every other step.
    const __mmask16 all =
        count - i >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << (count - i)) - 1);
    const __m512i there = _mm512_maskz_loadu_epi32(all, neighbours + i);
    const __mmask16 found = _mm512_mask_cmplt_epu32_mask(all, there, limit);
    too_large = static_cast<__mmask16>(too_large | _mm512_mask_cmpge_epi32_mask(all, there, limit));
    const __m512i row = _mm512_add_epi32(first, _mm512_set1_epi32(static_cast<int>(i)));
    _mm512_storeu_si512(rows + listed, _mm512_maskz_compress_epi32(found, row));
    _mm512_storeu_si512(sources + listed, _mm512_maskz_compress_epi32(found, there));
    listed += __builtin_popcount(found);
  }
  beyond = beyond || too_large != 0;
#else
  for (int64_t i = 0; i < count; i += 16) {
    for (uint32_t left = present(neighbours + i, count - i, inputs, beyond); left != 0; left &= left - 1) {
      const int64_t row = i + __builtin_ctz(left);
      rows[listed] = static_cast<int32_t>(row);
      sources[listed++] = neighbours[row];
    }
  }
#endif
  return listed;
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

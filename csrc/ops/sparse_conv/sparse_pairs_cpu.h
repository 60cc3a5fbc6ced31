// The pairs of a sparse convolution on the CPU: listed from a kernel map, multiplied, and added to rows of sums.
#pragma once

#include "core/gemm_cpu.h"
#include "core/simd.h"

namespace fastcv::FASTCV_VARIANT {

// ---- reading a kernel map ----

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
constexpr int64_t kTilePadding = 8;  // no tile has more rows
static_assert(kListPadding >= kTilePadding);

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

// ---- products ----

// Adds the products of kRows pairs to their rows of sums, of which this panel covers kVectors vectors. No detour over
// memory, which would take longer than the products of few channels.
template <class E, int kRows, int kVectors>
FASTCV_INLINE void add_pairs(const E* const* sources, const int32_t* rows, const E* panel, int64_t depth,
                             Accumulate<E>* sums, int64_t sums_row) {
  using A = Accumulate<E>;
  constexpr int kWidth = kVectors * kLanes<A>;
  Vector<A> sum[kRows][kVectors];
  const E* source[kRows];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    source[i] = sources[i];
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) sum[i][j] = load(sums + rows[i] * sums_row + j * kLanes<A>);
  }
  for (int64_t d = 0; d < depth; ++d, panel += kWidth) {
    Vector<E> column[kVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) column[j] = load(panel + j * kLanes<A>);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const Vector<E> element = broadcast(source[i][d]);
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) sum[i][j] = multiply_add(element, column[j], sum[i][j]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) store(sums + rows[i] * sums_row + j * kLanes<A>, sum[i][j]);
  }
}

// All pairs of a kernel element, for one panel. Behind the last stand kTilePadding that add to a row nobody reads.
template <class E, int kVectors, int kRows>
__attribute__((noinline)) void add_panel(const E* const* sources, const int32_t* rows, int64_t pairs, const E* panel,
                                         int64_t depth, Accumulate<E>* sums, int64_t sums_row) {
  constexpr int kHalf = kRows / 2;
  int64_t i = 0;
  for (; i + kHalf < pairs; i += kRows) {
    add_pairs<E, kRows, kVectors>(sources + i, rows + i, panel, depth, sums, sums_row);
  }
  if (i < pairs) add_pairs<E, kHalf, kVectors>(sources + i, rows + i, panel, depth, sums, sums_row);
}

// The only panel, of one or two vectors. Of few channels most of the time goes to the sums: short tiles, and no row that
// nobody reads.
template <class E, int kVectors>
void add_narrow_panel(const E* const* sources, const int32_t* rows, int64_t pairs, const E* panel, int64_t depth,
                      Accumulate<E>* sums) {
  constexpr int64_t kSumsRow = kVectors * kLanes<Accumulate<E>>;
  constexpr int kTall = kVectorBytes == 64 || kVectors == 1 ? 8 : 4;
  if (depth > 16 * kVectors) return add_panel<E, kVectors, kTall>(sources, rows, pairs, panel, depth, sums, kSumsRow);
  constexpr int kRows = 4;
  int64_t i = 0;
  for (; i + kRows <= pairs; i += kRows) {
    add_pairs<E, kRows, kVectors>(sources + i, rows + i, panel, depth, sums, kSumsRow);
  }
  for (; i < pairs; ++i) add_pairs<E, 1, kVectors>(sources + i, rows + i, panel, depth, sums, kSumsRow);
}

template <class E>
void add_all_pairs(const E* const* sources, const int32_t* rows, int64_t pairs, const E* packed, int64_t depth,
                   int64_t columns, Accumulate<E>* sums, int64_t sums_row) {
  if (sums_row == kLanes<E>) return add_narrow_panel<E, 1>(sources, rows, pairs, packed, depth, sums);
  if (sums_row == 2 * kLanes<E>) return add_narrow_panel<E, 2>(sources, rows, pairs, packed, depth, sums);
  for (int64_t first = 0; first < columns; first += kPanelColumns<E>) {
    const E* const panel = packed + first * depth;
    switch (panel_width<E>(first, columns) / kLanes<E>) {
      case 1:
        add_panel<E, 1, 8>(sources, rows, pairs, panel, depth, sums + first, sums_row);
        break;
#if FASTCV_VECTOR_REGISTERS == 32
      case 2:
        add_panel<E, 2, 8>(sources, rows, pairs, panel, depth, sums + first, sums_row);
        break;
      case 3:
        add_panel<E, 3, 8>(sources, rows, pairs, panel, depth, sums + first, sums_row);
        break;
      default:
        add_panel<E, 4, 6>(sources, rows, pairs, panel, depth, sums + first, sums_row);
#else
      default:
        add_panel<E, 2, 4>(sources, rows, pairs, panel, depth, sums + first, sums_row);
#endif
    }
  }
}

}  // namespace fastcv::FASTCV_VARIANT

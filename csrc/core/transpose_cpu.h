// Transposing small matrices in registers, with a change of element type on the way. CPU translation units only.
#pragma once

#include "core/simd.h"

namespace fastcv::FASTCV_VARIANT {

template <int... kIndex>
struct Lanes {};
template <int kCount, int... kIndex>
struct MakeLanes : MakeLanes<kCount - 1, kCount - 1, kIndex...> {};
template <int... kIndex>
struct MakeLanes<0, kIndex...> {
  using type = Lanes<kIndex...>;
};

// Swaps the off-diagonal blocks of size kStep between two rows: one step of Eklundh's in-place transpose.
template <int kStep, class V, int... kLane>
inline void exchange_blocks(V& upper, V& lower, Lanes<kLane...>) {
  constexpr int kCount = sizeof...(kLane);
  const V new_upper = __builtin_shufflevector(upper, lower, ((kLane & kStep) ? kCount + kLane - kStep : kLane)...);
  const V new_lower = __builtin_shufflevector(upper, lower, ((kLane & kStep) ? kCount + kLane : kLane + kStep)...);
  upper = new_upper;
  lower = new_lower;
}

template <int kStep, class V, int kCount>
inline void transpose_steps(V (&rows)[kCount]) {
  if constexpr (kStep > 0) {
#pragma GCC unroll 16
    for (int i = 0; i < kCount; ++i) {
      if ((i & kStep) == 0) exchange_blocks<kStep>(rows[i], rows[i + kStep], typename MakeLanes<kCount>::type{});
    }
    transpose_steps<kStep / 2>(rows);
  }
}

template <class From, class To>
inline void transpose_scalar(const From* source, int64_t source_stride, To* target, int64_t target_stride, int64_t rows,
                             int64_t columns) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      target[j * target_stride + i] = from_float<To>(to_float(source[i * source_stride + j]));
    }
  }
}

// target[j * target_stride + i] = source[i * source_stride + j] for i < rows, j < columns.
template <class From, class To>
void transpose(const From* source, int64_t source_stride, To* target, int64_t target_stride, int64_t rows,
               int64_t columns) {
  using T = Accumulate<From>;
  static_assert(sizeof(T) == sizeof(Accumulate<To>));
  constexpr int kSide = kLanes<T>;
  if (rows < kSide || columns < kSide) {
    return transpose_scalar(source, source_stride, target, target_stride, rows, columns);
  }
  // A few rows left over (49 bins are 3 x 16 + 1) are quicker one by one. Otherwise, and for columns, the last block is
  // moved back to end at the border and repeats some of the one before it.
  if (rows % kSide <= kSide / 8) {
    const int64_t whole = rows / kSide * kSide;
    transpose_scalar(source + whole * source_stride, source_stride, target + whole, target_stride, rows - whole,
                     columns);
    rows = whole;
  }
  for (int64_t block_j = 0; block_j < columns; block_j += kSide) {
    const int64_t j = block_j + kSide <= columns ? block_j : columns - kSide;
    for (int64_t block_i = 0; block_i < rows; block_i += kSide) {
      const int64_t i = block_i + kSide <= rows ? block_i : rows - kSide;
      Vector<T> block[kSide];
#pragma GCC unroll 16
      for (int r = 0; r < kSide; ++r) block[r] = load(source + (i + r) * source_stride + j);
      transpose_steps<kSide / 2>(block);
#pragma GCC unroll 16
      for (int r = 0; r < kSide; ++r) store(target + (j + r) * target_stride + i, block[r]);
    }
  }
}

}  // namespace fastcv::FASTCV_VARIANT

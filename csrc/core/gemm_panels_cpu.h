// The matrices that the micro-kernel of gemm_cpu.h reads, packed as it reads them. CPU translation units only.
#pragma once

#include <cstdint>

#include "core/bf16_pair_cpu.h"
#include "core/simd.h"

namespace fastcv::FASTCV_VARIANT {

// Vectors of a whole panel of B; rows that are packed side by side, and vectors of a whole panel of pixels.
#if FASTCV_VECTOR_REGISTERS == 32
constexpr int kPanelVectors = 4;
constexpr int kPixelRows = 8;
constexpr int kPixelVectors = 3;
#else
constexpr int kPanelVectors = 2;
constexpr int kPixelRows = 4;
constexpr int kPixelVectors = 3;
#endif

// Columns of a whole panel of B, and pixels of a whole panel of X.
template <class T>
constexpr int64_t kPanelColumns = kPanelVectors * kLanes<T>;
template <class T>
constexpr int64_t kPanelPixels = kPixelVectors * kLanes<T>;

// Columns that a panel starting at column `first` of `columns` takes in memory: whole vectors.
template <class T>
inline int64_t panel_width(int64_t first, int64_t columns) {
  const int64_t left = columns - first;
  if (left >= kPanelColumns<T>) return kPanelColumns<T>;
  return round_up(left, kLanes<T>);
}

// Elements of a packed matrix of `depth` rows.
template <class T>
inline int64_t packed_size(int64_t depth, int64_t columns) {
  return round_up(columns, kLanes<T>) * depth;
}

// Packs B[k, n] = source[k * k_stride + n * n_stride], k < rows: panels one after the other, each [depth][width], its
// last columns filled with zeros. The panel that starts at column `first` (a multiple of kPanelColumns) lies at
// packed + first * depth.
template <class T, class From>
void pack_panels(const From* source, int64_t k_stride, int64_t n_stride, int64_t rows, int64_t columns, T* packed) {
  const int64_t depth = factors_to_elements<T>(rows);
  for (int64_t first = 0; first < columns; first += kPanelColumns<T>) {
    const int64_t width = panel_width<T>(first, columns);
    const int64_t count = least(columns - first, width);
    T* panel = packed + first * depth;
    const From* origin = source + first * n_stride;
    if constexpr (!kIsPair<T>) {
      if (n_stride == 1 && count == width) {
        for (int64_t k = 0; k < depth; ++k) {
          for (int64_t n = 0; n < width; n += kLanes<T>) store(panel + k * width + n, load(origin + k * k_stride + n));
        }
        continue;
      }
    }
    for (int64_t k = 0; k < depth; ++k) {
      for (int64_t n = 0; n < count; ++n) {
        panel[k * width + n] = gather_factors<T>(origin + n * n_stride, k_stride, k, rows);
      }
      for (int64_t n = count; n < width; ++n) panel[k * width + n] = T{};
    }
  }
}

}  // namespace fastcv::FASTCV_VARIANT

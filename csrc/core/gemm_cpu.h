// The matrix micro-kernel of the CPU: sums of outer products held in registers. CPU translation units only.
//
// Two callers, one kernel:
//
//   rows     C[m, n] = sum_s sum_k  A[s][m][k] * B[s][k, n]    The rows of A are wherever pointers say (gathered rows,
//            shifted pixels of a channels-last map); B is packed once into panels of neighbouring columns.
//   pixels   C[m, n] = sum_s sum_k  W[s][k][m] * X[s][k, n]    The matrix with few rows is packed, kPixelRows rows side
//            by side; X is a panel of neighbouring pixels.
//
// A segment s is one tap of a convolution: its own pointers, `depth` products per element. Segments are summed in the
// order given, k in ascending order within each, in one chain of multiply_add per element of C. So a result depends
// neither on how C is cut into tiles nor on the number of threads; it may depend on the instruction set (fused or not).
//
// Arithmetic is float or double. Halves are converted by the caller where it packs or gathers, and accumulate in float.
// Or T is a BFloat16Pair: then k counts pairs, products are those of bf16_pair_cpu.h, and C is float; a pair takes the
// place of a float, so all sizes below stay as they are.
//
// How large a tile: kRows x kVectors accumulators must fit the registers (16, or 32: AVX-512, Arm) beside the kVectors
// vectors of B and the broadcast element of A, and every step of k should bring more arithmetic than loads. With two
// FMA units and two loads per cycle, 6 x 4 vectors take 12 cycles for 24 FMAs and 5 for 10 loads; 8 x 3 take 12 and
// 5.5. Row pointers must fit the 15 general registers as well, so no more than 12 rows; of rows that lie evenly spaced
// every fourth is enough, and 14 x 2 take 14 and 8.
//
// Pairs: VDPBF16PS takes the place of the FMA, with two products per lane. Where it issues as often, twice per cycle,
// the limit is 2 x 16 x 2 products = 128 flop per cycle, twice that of float32, with the same loads and registers; 24
// sums hide a latency of up to 12 cycles. GCC 12 makes 38 to 43 instructions of the step of 6 x 4, 44 to 46 of 8 x 3
// and 51 of 14 x 2 (1.6 to 1.9 for each VDPBF16PS, of 3 that six per cycle leave room for), and keeps all sums in
// registers. On one core of Zen 4, which issues either once per cycle, the direct sums of conv2d take 0.50 to 0.60 of
// the time of float32. On a processor without the instruction, with an FMA in its place and so with wrong results, the
// forward of the layers of bench_conv_transpose.py took 0.49 to 0.60 of it.
#pragma once

#include <cstdint>

#include "core/gemm_panels_cpu.h"
#include "core/memory.h"

namespace fastcv::FASTCV_VARIANT {

// Rows of a tile of so many vectors; and of one whose rows are evenly spaced, 0 where that brings nothing.
#if FASTCV_VECTOR_REGISTERS == 32
constexpr int gemm_rows_of(int vectors) {
  return vectors == 4 ? 6 : vectors == 1 ? 12 : 8;
}
constexpr int gemm_spaced_rows_of(int vectors) {
  return vectors == 2 ? 14 : 0;
}
#else
constexpr int gemm_rows_of(int vectors) {
  return vectors == 1 ? 8 : 5;
}
constexpr int gemm_spaced_rows_of(int) {
  return 0;
}
#endif

// What a tile of C starts from.
enum class GemmStart { kZero, kColumns, kTile };  // zeros; `start[n]` (a bias), one vector per column; what C holds

// Where row i of segment s is: at a[s * a_stride + i][k], wherever the pointers say; at a[s][k * a_stride + i], rows
// side by side; or at a[s][i * a_stride + k], evenly spaced.
enum class GemmA { kPointers, kPacked, kSpaced };

// The part of a tile that lies inside C, to and from whole rows of `width`. Apart from gemm_tile, whose accumulators
// stay in registers only as long as the code around its loops is simple.
template <class T>
__attribute__((noinline)) void fetch_tile(const T* c, int64_t step, int64_t rows, int64_t columns, T* tile,
                                          int64_t width, int64_t all_rows) {
  for (int64_t i = 0; i < all_rows; ++i) {
    for (int64_t j = 0; j < width; ++j) tile[i * width + j] = i < rows && j < columns ? c[i * step + j] : T(0);
  }
}
template <class T>
__attribute__((noinline)) void put_tile(const T* tile, int64_t width, T* c, int64_t step, int64_t rows,
                                        int64_t columns) {
  for (int64_t i = 0; i < rows; ++i) __builtin_memcpy(c + i * step, tile + i * width, columns * sizeof(T));
}

// One tile of C, at most kRows x (kVectors vectors). b[s] points to the panel's [depth][b_stride]. Writes the first
// `rows` rows and `columns` columns of C; what lies beyond `rows` in A must be readable, and is ignored. With kHalves
// the second half of the columns of B is b_half elements behind the first.
template <class T, int kRows, int kVectors, GemmA kA, bool kHalves = false>
__attribute__((noinline)) void gemm_tile(const T* const* a, int64_t a_stride, const T* const* b, int64_t b_stride,
                                         int64_t segments, int64_t depth, Accumulate<T>* c, int64_t c_stride,
                                         int64_t rows, int64_t columns, GemmStart from, const Accumulate<T>* start,
                                         [[maybe_unused]] int64_t b_half = 0) {
  using S = Accumulate<T>;
  using V = Vector<S>;
  constexpr int kWidth = kLanes<T>, kTileWidth = kVectors * kWidth;
  V sum[kRows][kVectors];
  alignas(64) S edge[kRows * kTileWidth];
  const bool whole = columns == kTileWidth && rows >= kRows;
  const S* line = from == GemmStart::kColumns ? start : c;
  int64_t step = from == GemmStart::kColumns ? 0 : c_stride;
  if (from != GemmStart::kZero && !whole) {
    fetch_tile(line, step, least(rows, kRows), columns, edge, kTileWidth, kRows);
    line = edge;
    step = kTileWidth;
  }
  if (from == GemmStart::kZero) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) sum[i][j] = V{};
    }
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) sum[i][j] = load(line + i * step + j * kWidth);
    }
  }
  for (int64_t s = 0; s < segments; ++s) {
    const T* panel = b[s];
    if constexpr (kA == GemmA::kSpaced) {
      constexpr int kFourths = (kRows + 3) / 4;
      const T* fourth[kFourths];  // every fourth row: the addresses of the others need no registers of their own
#pragma GCC unroll 4
      for (int i = 0; i < kFourths; ++i) fourth[i] = a[s] + 4 * i * a_stride;
      for (int64_t k = 0; k < depth; ++k, panel += b_stride) {
        Vector<T> column[kVectors];
#pragma GCC unroll 8
        for (int j = 0; j < kVectors; ++j) column[j] = load(panel + j * kWidth);
#pragma GCC unroll 16
        for (int i = 0; i < kRows; ++i) {
          const Vector<T> element = broadcast(fourth[i / 4][i % 4 * a_stride]);
#pragma GCC unroll 8
          for (int j = 0; j < kVectors; ++j) sum[i][j] = multiply_add(element, column[j], sum[i][j]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < kFourths; ++i) ++fourth[i];
      }
    } else if constexpr (kA == GemmA::kPacked) {
      const T* packed = a[s];
      for (int64_t k = 0; k < depth; ++k, packed += a_stride, panel += b_stride) {
        Vector<T> column[kVectors];
#pragma GCC unroll 8
        for (int j = 0; j < kVectors; ++j) column[j] = load(panel + j * kWidth);
#pragma GCC unroll 16
        for (int i = 0; i < kRows; ++i) {
          const Vector<T> element = broadcast(packed[i]);
#pragma GCC unroll 8
          for (int j = 0; j < kVectors; ++j) sum[i][j] = multiply_add(element, column[j], sum[i][j]);
        }
      }
    } else {
      const T* row[kRows];
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) row[i] = a[s * a_stride + i];
      for (int64_t k = 0; k < depth; ++k, panel += b_stride) {
        Vector<T> column[kVectors];
#pragma GCC unroll 8
        for (int j = 0; j < kVectors; ++j) {
          const int64_t half = kHalves && 2 * j >= kVectors ? b_half - kVectors / 2 * kWidth : 0;
          column[j] = load(panel + half + j * kWidth);
        }
#pragma GCC unroll 16
        for (int i = 0; i < kRows; ++i) {
          const Vector<T> element = broadcast(row[i][k]);
#pragma GCC unroll 8
          for (int j = 0; j < kVectors; ++j) sum[i][j] = multiply_add(element, column[j], sum[i][j]);
        }
      }
    }
  }
  S* target = whole ? c : edge;
  const int64_t target_step = whole ? c_stride : kTileWidth;
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) store(target + i * target_step + j * kWidth, sum[i][j]);
  }
  if (!whole) put_tile(edge, kTileWidth, c, c_stride, least(rows, kRows), columns);
}

// ---- rows -----------------------------------------------------------------------------------------------------------

// Rows begin ... end - 1.
struct RowSpan {
  int64_t begin, end;
};

// What one call computes: `rows` rows of C, all columns.
template <class T>
struct GemmRows {
  const T* const* a;  // [segments][a_stride] pointers to rows of `depth` elements; a_stride >= rows + kRowsPadding,
  int64_t a_stride;   //   and the kRowsPadding pointers past `rows` must point at readable elements too (any row)
  const T* packed;    // pack_panels of a matrix of b_depth rows: all taps, one below the other
  int64_t b_depth;
  const int64_t* first;  // [segments] the row of that matrix at which the segment begins (tap * depth)
  int64_t segments;      //
  int64_t depth;         // products per segment
  Accumulate<T>* c;      // [rows][columns]
  int64_t c_stride;
  int64_t rows;
  int64_t columns;
  const Accumulate<T>* bias;  // [columns], or null: zeros. Ignored where `accumulate`
  bool accumulate;            // adds to what C holds
  int64_t row_step;           // where known, elements from row to row of A
  const RowSpan* spans;       // [segments] and which rows lie so; or null
  // The columns are those of two matrices of half a panel each, of which the second lies `half` elements behind the
  // first; or 0. Then the first half of the first row, and the second of the last, can be kept from C.
  int64_t half;
  bool cut_first, cut_last;  // not where `accumulate`
};

constexpr int kRowsPadding = 14;  // no tile has more rows
constexpr int64_t kMaxGemmSegments = 1024;

// Finds the first of kRows evenly spaced rows in each segment; where they are not, they are copied to `copies`,
// [segments][kRows][row_step].
template <int kRows, class T>
void space_rows(const GemmRows<T>& g, int64_t m, const T** base, T* copies) {
  for (int64_t s = 0; s < g.segments; ++s) {
    const T* const* row = g.a + s * g.a_stride + m;
    base[s] = row[0];
    if (m >= g.spans[s].begin && m + kRows <= g.spans[s].end) continue;
    T* copy = copies + s * kRows * g.row_step;
    base[s] = copy;
    if (g.depth == 0) continue;  // rows may be null
    for (int i = 0; i < kRows; ++i) __builtin_memcpy(copy + i * g.row_step, row[i], g.depth * sizeof(T));
  }
}

template <class T, int kVectors>
void gemm_rows_panel(const GemmRows<T>& g, const T* const* b, int64_t first) {
  constexpr int kRows = gemm_rows_of(kVectors), kSpacedRows = gemm_spaced_rows_of(kVectors);
  const int64_t left = g.columns - first;
  const int64_t columns = least(left, kVectors * kLanes<T>);
  const GemmStart from = g.accumulate ? GemmStart::kTile : g.bias != nullptr ? GemmStart::kColumns : GemmStart::kZero;
  const Accumulate<T>* bias = g.bias == nullptr ? nullptr : g.bias + first;
  int64_t m = 0;
  if constexpr (kSpacedRows > 0) {
    if (g.spans != nullptr && g.rows > kRows) {
      const Scratch copies(bytes_of<T>(g.segments, kSpacedRows, g.row_step));
      const T* base[kMaxGemmSegments];
      // As many tiles as leave none, or one or two of the others, nearly full.
      for (int64_t rest = g.rows; rest > 2 * kRows || (rest > kRows && rest <= kSpacedRows); rest -= kSpacedRows) {
        space_rows<kSpacedRows>(g, m, base, copies.template as<T>());
        gemm_tile<T, kSpacedRows, kVectors, GemmA::kSpaced>(base, g.row_step, b, kVectors * kLanes<T>, g.segments,
                                                            g.depth, g.c + m * g.c_stride + first, g.c_stride, rest,
                                                            columns, from, bias);
        m += kSpacedRows;
      }
    }
  }
  for (; m < g.rows; m += kRows) {
    gemm_tile<T, kRows, kVectors, GemmA::kPointers>(g.a + m, g.a_stride, b, kVectors * kLanes<T>, g.segments, g.depth,
                                                    g.c + m * g.c_stride + first, g.c_stride, g.rows - m, columns, from,
                                                    bias);
  }
}

template <class T>
void gemm_rows_halves(const GemmRows<T>& g, const T* const* b) {
  constexpr int kRows = gemm_rows_of(kPanelVectors);
  constexpr int64_t kColumns = kPanelColumns<T>, kHalf = kColumns / 2;
  const GemmStart from = g.accumulate ? GemmStart::kTile : g.bias != nullptr ? GemmStart::kColumns : GemmStart::kZero;
  for (int64_t m = 0; m < g.rows; m += kRows) {
    const int64_t rows = least(g.rows - m, kRows);
    const bool first = g.cut_first && m == 0, last = g.cut_last && m + rows == g.rows;
    Accumulate<T> edge[kRows * kColumns];
    const bool cut = first || last;
    gemm_tile<T, kRows, kPanelVectors, GemmA::kPointers, true>(
        g.a + m, g.a_stride, b, kHalf, g.segments, g.depth, cut ? edge : g.c + m * g.c_stride,
        cut ? kColumns : g.c_stride, rows, kColumns, from, g.bias, g.half);
    for (int64_t i = 0; i < rows && cut; ++i) {
      const int64_t begin = first && i == 0 ? kHalf : 0, end = last && i == rows - 1 ? kHalf : kColumns;
      if (begin < end)
        put_tile(edge + i * kColumns + begin, kColumns, g.c + (m + i) * g.c_stride + begin, 0, 1, end - begin);
    }
  }
}

// C = sum of the segments; at most kMaxGemmSegments of them. Call it for blocks of rows that fit the first-level cache
// (24 to 96 rows): each panel of B is then read once per block.
template <class T>
void gemm_rows(const GemmRows<T>& g) {
  const T* b[kMaxGemmSegments];
  if (g.half != 0) {
    for (int64_t s = 0; s < g.segments; ++s) b[s] = g.packed + g.first[s] * (kPanelColumns<T> / 2);
    return gemm_rows_halves(g, b);
  }
  for (int64_t first = 0; first < g.columns; first += kPanelColumns<T>) {
    const int64_t width = panel_width<T>(first, g.columns);
    for (int64_t s = 0; s < g.segments; ++s) b[s] = g.packed + first * g.b_depth + g.first[s] * width;
    switch (width / kLanes<T>) {
      case 1:
        gemm_rows_panel<T, 1>(g, b, first);
        break;
      case 2:
        gemm_rows_panel<T, 2>(g, b, first);
        break;
#if FASTCV_VECTOR_REGISTERS == 32
      case 3:
        gemm_rows_panel<T, 3>(g, b, first);
        break;
      default:
        gemm_rows_panel<T, 4>(g, b, first);
#endif
    }
  }
}

// ---- pixels ---------------------------------------------------------------------------------------------------------

// One tile of kPixelRows rows by at most kPanelPixels pixels: row i of segment s is a[s][k * a_stride + i], its pixels
// are b[s][k * b_stride ...]. Whole vectors of pixels are read.
template <class T>
FASTCV_INLINE void gemm_pixels(const T* const* a, int64_t a_stride, const T* const* b, int64_t b_stride,
                               int64_t segments, int64_t depth, Accumulate<T>* c, int64_t c_stride, int64_t rows,
                               int64_t pixels, GemmStart from) {
  static_assert(kPixelVectors == 3);
  switch (ceil_div(pixels, kLanes<T>)) {
    case 1:
      return gemm_tile<T, kPixelRows, 1, GemmA::kPacked>(a, a_stride, b, b_stride, segments, depth, c, c_stride, rows,
                                                         pixels, from, nullptr);
    case 2:
      return gemm_tile<T, kPixelRows, 2, GemmA::kPacked>(a, a_stride, b, b_stride, segments, depth, c, c_stride, rows,
                                                         pixels, from, nullptr);
    default:
      return gemm_tile<T, kPixelRows, 3, GemmA::kPacked>(a, a_stride, b, b_stride, segments, depth, c, c_stride, rows,
                                                         pixels, from, nullptr);
  }
}

}  // namespace fastcv::FASTCV_VARIANT

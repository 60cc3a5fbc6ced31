// Sums over all axes but one in an order that the sizes alone decide: the same bits in every run and for every number
// of threads. torch's own sums split by the number of threads.
//
//   input    (A, B, C)   contiguous; float16, bfloat16, float32 or float64
//   output   (B,)        of the dtype of the input: the sum over a and c, divided by `divisor`
//   pieces   (P, B)      float64 workspace: the sums of the pieces
//
// The input is cut into pieces of at most kSumPiece elements (SumPieces). Each piece is summed by one thread, or one
// block of threads, into one number per channel b; then the pieces of a channel are summed in order. Sums are float64,
// but for those of four elements at most, which may be taken in float32; the result is rounded once. The sum of nothing
// is 0.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"

namespace fastcv {

constexpr int64_t kSumPiece = 8192;
constexpr int64_t kMostSumChannels = 256;  // of a piece

// A piece covers a_size x b_size x c_size of (A, B, C), less at the ends; the counts are the pieces along each axis.
struct SumPieces {
  int64_t a_size, b_size, c_size;
  int64_t a_count, b_count, c_count;
};

struct OrderedSumParams {
  const void* input;
  void* output;
  double* pieces;  // row a_piece * c_count + c_piece
  DType dtype;
  int64_t a, b, c;
  SumPieces cut;
  double divisor;
};

// A run along C is taken whole, up to kSumPiece elements. Short runs share a piece: first with those of the next
// channels, which are neighbours in memory, then with the next along A.
constexpr SumPieces cut_into_pieces(int64_t a, int64_t b, int64_t c) {
  const auto within = [](int64_t wanted, int64_t size) {
    return wanted < 1 || size < 1 ? 1 : wanted < size ? wanted : size;
  };
  const auto count = [](int64_t size, int64_t piece) { return (size + piece - 1) / piece; };
  SumPieces cut{};
  cut.c_size = within(kSumPiece, c);
  cut.b_size = within(kMostSumChannels / cut.c_size, b);
  cut.a_size = within(kSumPiece / (cut.b_size * cut.c_size), a);
  cut.a_count = count(a, cut.a_size);
  cut.b_count = count(b, cut.b_size);
  cut.c_count = count(c, cut.c_size);
  return cut;
}

FASTCV_DECLARE_KERNEL(ordered_sum, OrderedSumParams);

}  // namespace fastcv

// Soft-NMS (Bodla, Singh, Chellappa, Davis 2017): the best box is taken, the scores of all others decay by their
// overlap with it, and so on.
//
//   boxes        (N, 4)   x1, y1, x2, y2, any strides
//   scores       (N,)     dtype of boxes, any strides
//   kept         (N,)     int64: indices in the order in which they are taken; contiguous
//   kept_scores  (N,)     the scores they are taken with; dtype of boxes, contiguous
//   count        ()       int64: how many
//   workspace    (7, W)   float32, or float64 for float64; W is N rounded up to kSoftNmsPadding
//
// With o the IoU of a box with the one taken, its score is multiplied by
//
//   linear    1 - o where o > iou_threshold, else 1       (equation 2 of the paper)
//   gaussian  exp(-o^2 / sigma)                           (equation 3)
//
// A box whose score is not at least min_score (NaN is not) is out. Ties go to the lower index. An overlap that is NaN
// leaves the score as it is. The arithmetic, the exponential function included, is the same operation by operation on
// all devices, so they take the same boxes with the same bits.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"
#include "families/box/box.h"
#include "families/box/threshold.h"

namespace fastcv {

struct SoftNmsParams {
  const void* boxes;
  const void* scores;
  int64_t* kept;
  void* kept_scores;
  int64_t* count;
  void* workspace;
  int64_t workspace_width;
  DType dtype;
  int64_t boxes_count;
  int64_t box_strides[2];
  int64_t score_stride;
  double iou_threshold, sigma, min_score;
  bool gaussian;
};

constexpr int64_t kSoftNmsPadding = 16;

constexpr int64_t soft_nms_workspace_width(int64_t boxes) {
  return (boxes + kSoftNmsPadding - 1) / kSoftNmsPadding * kSoftNmsPadding;
}
constexpr int64_t soft_nms_workspace_bytes(int64_t boxes, DType dtype) {
  return 7 * soft_nms_workspace_width(boxes) * (dtype == DType::kFloat64 ? 8 : 4);
}

FASTCV_DECLARE_KERNEL(soft_nms, SoftNmsParams);

namespace FASTCV_VARIANT {

// A number, or each lane of a vector of them, as its bits. The CPU kernels specialise it for their vectors.
template <class V>
struct NumberBits;
template <>
struct NumberBits<float> {
  static FASTCV_HD int32_t of(float value) { return bit_cast<int32_t>(value); }
  static FASTCV_HD float number(int32_t bits) { return bit_cast<float>(bits); }
};
template <>
struct NumberBits<double> {
  static FASTCV_HD int64_t of(double value) { return bit_cast<int64_t>(value); }
  static FASTCV_HD double number(int64_t bits) { return bit_cast<double>(bits); }
};

// exp(x) for x in [-104, 0], for floats and vectors of them: x = k ln 2 + r, and e^r by its Taylor polynomial, whose
// error is below half a unit in the last place for |r| <= ln 2 / 2. The power of two is multiplied in two steps:
// results below the normal numbers are rounded once, by the last, and are 0 from -104 on.
template <class V>
FASTCV_HD V exp_float(V x) {
  const V shifted = x * 1.44269504f + 12582912.0f;  // 1.5 x 2^23: the sum keeps whole numbers only
  const V k = shifted - 12582912.0f;
  const V r = (x - k * 0.693359375f) - k * -2.12194440e-4f;
  V sum = r * (1.0f / 5040) + 1.0f / 720;
  sum = sum * r + 1.0f / 120;
  sum = sum * r + 1.0f / 24;
  sum = sum * r + 1.0f / 6;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  return sum * NumberBits<V>::number((NumberBits<V>::of(shifted) - 0x4b400000 + 64 + 127) << 23) * 0x1p-64f;
}

// The same for x in [-746, 0].
template <class V>
FASTCV_HD V exp_double(V x) {
  const V shifted = x * 1.4426950408889634 + 6755399441055744.0;  // 1.5 x 2^52
  const V k = shifted - 6755399441055744.0;
  const V r = (x - k * 6.93145751953125e-1) - k * 1.42860682030941723212e-6;
  V sum = r * (1.0 / 6227020800) + 1.0 / 479001600;
  sum = sum * r + 1.0 / 39916800;
  sum = sum * r + 1.0 / 3628800;
  sum = sum * r + 1.0 / 362880;
  sum = sum * r + 1.0 / 40320;
  sum = sum * r + 1.0 / 5040;
  sum = sum * r + 1.0 / 720;
  sum = sum * r + 1.0 / 120;
  sum = sum * r + 1.0 / 24;
  sum = sum * r + 1.0 / 6;
  sum = sum * r + 0.5;
  sum = sum * r + 1.0;
  sum = sum * r + 1.0;
  return sum * NumberBits<V>::number((NumberBits<V>::of(shifted) - 0x4338000000000000 + 128 + 1023) << 52) * 0x1p-128;
}

// What a score is multiplied by; V is A or a vector of A. NaN fails the comparisons.
template <class A>
struct SoftNmsDecay {
  A threshold, sigma;
  bool gaussian;

  explicit FASTCV_HD SoftNmsDecay(const SoftNmsParams& p)
      : threshold(round_down<A>(p.iou_threshold)), sigma(static_cast<A>(p.sigma)), gaussian(p.gaussian) {}

  template <class V>
  FASTCV_HD V operator()(V overlap, V one) const {
    if (!gaussian) {
      const V less = one - overlap;
      return overlap > one * threshold ? less : one;
    }
    const V exponent = -(overlap * overlap) / sigma;
    V power;
    if constexpr (sizeof(A) == 4) {
      const V least = one * -104.0f;
      power = exp_float<V>(exponent > least ? exponent : least);
    } else {
      const V least = one * -746.0;
      power = exp_double<V>(exponent > least ? exponent : least);
    }
    return overlap > one * A(0) ? power : one;
  }
};

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

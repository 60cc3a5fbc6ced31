// Boxes as offsets from other boxes (Girshick et al. 2014, "R-CNN", appendix C): the centre moves by a multiple of the
// size, the size grows by an exponential. The arithmetic that decoding regressors and anchors share, on both devices,
// in torchvision's order of operations.
#pragma once

#include <cmath>

#include "families/box/box.h"

namespace fastcv {

struct BoxCoding {
  double weights[4];  // x, y, w, h
  double clip;        // greatest log of a ratio of sizes; decoding only
};

namespace FASTCV_VARIANT {

FASTCV_HD float exponential(float x) {
  return ::expf(x);
}
FASTCV_HD double exponential(double x) {
  return ::exp(x);
}
FASTCV_HD float logarithm(float x) {
  return ::logf(x);
}
FASTCV_HD double logarithm(double x) {
  return ::log(x);
}

// The smaller one, or NaN when x is.
template <class A>
FASTCV_HD A at_most(A x, A limit) {
  return x > limit ? limit : x;
}
template <class A>
FASTCV_HD A clamp(A x, A low, A high) {
  const A raised = x < low ? low : x;
  return raised > high ? high : raised;
}

// One axis of a box: where it is and how long.
template <class A>
struct Span {
  A center, size;
};

template <class A>
FASTCV_HD Span<A> span_of(A low, A high) {
  const A size = high - low;
  return {low + A(0.5) * size, size};
}

template <class A>
FASTCV_HD void decode_span(A shift, A growth, A shift_weight, A growth_weight, A clip, A* low, A* high) {
  const Span<A> span = span_of(*low, *high);
  const A center = shift / shift_weight * span.size + span.center;
  const A half = A(0.5) * (exponential(at_most(growth / growth_weight, clip)) * span.size);
  *low = center - half;
  *high = center + half;
}

template <class A>
FASTCV_HD Box<A> decode_box(const A (&delta)[4], Box<A> box, const BoxCoding& coding) {
  const A clip = static_cast<A>(coding.clip);
  decode_span(delta[0], delta[2], static_cast<A>(coding.weights[0]), static_cast<A>(coding.weights[2]), clip, &box.x1,
              &box.x2);
  decode_span(delta[1], delta[3], static_cast<A>(coding.weights[1]), static_cast<A>(coding.weights[3]), clip, &box.y1,
              &box.y2);
  return box;
}

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

// The boxes kept so far, in blocks that vectors can be loaded from, and the question whether one of them suppresses a
// given box. CPU translation units only.
#pragma once

#include "core/simd.h"
#include "ops/nms/nms.h"

namespace fastcv::FASTCV_VARIANT {

// 64 bytes of each coordinate: one vector of the widest instruction set. Places that hold no box are zero: a box
// without area at the origin, which intersects nothing.
template <class A>
struct KeptBlock {
  static constexpr int kSize = 64 / static_cast<int>(sizeof(A));
  A x1[kSize], y1[kSize], x2[kSize], y2[kSize];  // the area is worked out again: less memory to wait for

  void clear() { __builtin_memset(this, 0, sizeof(*this)); }
  void set(int place, const Box<A>& box) {
    x1[place] = box.x1;
    y1[place] = box.y1;
    x2[place] = box.x2;
    y2[place] = box.y2;
  }
  void prefetch() const {
    __builtin_prefetch(x1);
    __builtin_prefetch(y1);
    __builtin_prefetch(x2);
    __builtin_prefetch(y2);
  }
};

#if defined(__AVX512F__)
FASTCV_INLINE bool any_at_least(Vector<float> a, Vector<float> b, Vector<float> positive) {
  return _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(positive, Vector<float>{}, _CMP_GT_OQ), a, b, _CMP_GE_OQ) != 0;
}
FASTCV_INLINE bool any_at_least(Vector<double> a, Vector<double> b, Vector<double> positive) {
  return _mm512_mask_cmp_pd_mask(_mm512_cmp_pd_mask(positive, Vector<double>{}, _CMP_GT_OQ), a, b, _CMP_GE_OQ) != 0;
}
#else
template <class V>
FASTCV_INLINE bool any_at_least(V a, V b, V positive) {
  return any_lane((a >= b) & (positive > V{}));
}
#endif

// An upright box under test, spread over vectors.
template <class A>
struct Candidate {
  Vector<A> x1, y1, x2, y2, area;
  Vector<A> threshold;

  Candidate(const Box<A>& box, A box_area, A threshold)
      : x1(broadcast(box.x1)),
        y1(broadcast(box.y1)),
        x2(broadcast(box.x2)),
        y2(broadcast(box.y2)),
        area(broadcast(box_area)),
        threshold(broadcast(threshold)) {}

  // Whether a box of blocks [first, last) has an IoU with this one above the threshold. Division takes longer than all
  // the rest, so it waits until a product says that it may matter. Rounding keeps order: where the rounded quotient is
  // above the threshold, so is the true one, and then the intersection is at least the rounded product.
  bool is_suppressed(const KeptBlock<A>* first, const KeptBlock<A>* last) const {
    for (; first < last; ++first) {
#pragma GCC unroll 4
      for (int i = 0; i < KeptBlock<A>::kSize; i += kLanes<A>) {
        const Vector<A> bx1 = load(first->x1 + i), by1 = load(first->y1 + i);
        const Vector<A> bx2 = load(first->x2 + i), by2 = load(first->y2 + i);
        const Vector<A> width = least(bx2, x2) - greatest(bx1, x1);
        const Vector<A> height = least(by2, y2) - greatest(by1, y1);
        const Vector<A> intersection = greatest(width, Vector<A>{}) * greatest(height, Vector<A>{});
        const Vector<A> both = (bx2 - bx1) * (by2 - by1) + area - intersection;
        if (__builtin_expect(any_at_least(intersection, threshold * both, intersection), 0) &&
            any_above(intersection / both, threshold)) {
          return true;
        }
      }
    }
    return false;
  }
  bool is_suppressed_at_last() const { return false; }
};

}  // namespace fastcv::FASTCV_VARIANT

// The transforms of Winograd's F(kTile x kTile, 3 x 3), along one axis; of lines of vectors. CPU translation units only.
//
// For kTile 4 with the points 0, 1, -1, 2, -2, infinity (Lavin and Gray 2016, section 4.3), for 2 with 0, 1, -1, infinity:
//
//   source   B^T d   kTile + 2 inputs
//   result   A^T m   kTile + 2 products to kTile results
#pragma once

#include "core/simd.h"

namespace fastcv::FASTCV_VARIANT {

using Line = Vector<float>;

// d[0], d[step], ... to o[0], o[out], ...
template <int kTile>
FASTCV_INLINE void transform_source(const Line (&d)[kTile + 2], Line (&o)[kTile + 2]) {
  if constexpr (kTile == 2) {
    o[0] = d[0] - d[2];
    o[1] = d[1] + d[2];
    o[2] = d[2] - d[1];
    o[3] = d[3] - d[1];
  } else {
    const Line two = broadcast(2.0f), four = broadcast(4.0f);
    const Line even = multiply_add(-four, d[2], d[4]), odd = multiply_add(-four, d[1], d[3]);
    const Line outer = d[4] - d[2], inner = d[3] - d[1];
    o[0] = multiply_add(four, d[0] - d[2], outer);
    o[1] = even + odd;
    o[2] = even - odd;
    o[3] = multiply_add(two, inner, outer);
    o[4] = multiply_add(-two, inner, outer);
    o[5] = multiply_add(-four, inner, d[5] - d[3]);
  }
}

template <int kTile>
FASTCV_INLINE void transform_result(const Line (&m)[kTile + 2], Line (&o)[kTile]) {
  if constexpr (kTile == 2) {
    o[0] = m[0] + m[1] + m[2];
    o[1] = m[1] - m[2] + m[3];
  } else {
    const Line two = broadcast(2.0f), four = broadcast(4.0f), eight = broadcast(8.0f);
    const Line a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
    o[0] = m[0] + a + c;
    o[1] = multiply_add(two, d, b);
    o[2] = multiply_add(four, c, a);
    o[3] = multiply_add(eight, d, b) + m[5];
  }
}

}  // namespace fastcv::FASTCV_VARIANT

// The transforms of Winograd's F(kTile x kTile, 3 x 3), along one axis; of lines of vectors. CPU translation units only.
//
// With the points 0, 1, -1, infinity; for kTile 4 and 6 also 2, -2 (Lavin and Gray 2016, section 4.3); for 6 also 1/2,
// -1/2. Points that are inverse and negative to each other keep factors small and share sums. For kStridedTile inputs 0,
// 2, 4 with the points 0, 1, infinity, and inputs 1, 3 as they are.
//
//   source   B^T d   of `side` inputs
//   result   A^T m   of as many products
#pragma once

#include "core/simd.h"
#include "ops/conv2d/conv2d.h"

namespace fastcv::FASTCV_VARIANT {

using Line = Vector<float>;

// d[0], d[step], ... to o[0], o[out], ...
template <int kTile>
FASTCV_INLINE void transform_source(const Line (&d)[tile_shape(kTile).side], Line (&o)[tile_shape(kTile).side]) {
  if constexpr (kTile == 2) {
    o[0] = d[0] - d[2];
    o[1] = d[1] + d[2];
    o[2] = d[2] - d[1];
    o[3] = d[3] - d[1];
  } else if constexpr (kTile == kStridedTile) {
    o[0] = d[0] - d[2];
    o[1] = d[2];
    o[2] = d[4] - d[2];
    o[3] = d[1];
    o[4] = d[3];
  } else if constexpr (kTile == 4) {
    const Line two = broadcast(2.0f), four = broadcast(4.0f);
    const Line even = multiply_add(-four, d[2], d[4]), odd = multiply_add(-four, d[1], d[3]);
    const Line outer = d[4] - d[2], inner = d[3] - d[1];
    o[0] = multiply_add(four, d[0] - d[2], outer);
    o[1] = even + odd;
    o[2] = even - odd;
    o[3] = multiply_add(two, inner, outer);
    o[4] = multiply_add(-two, inner, outer);
    o[5] = multiply_add(-four, inner, d[5] - d[3]);
  } else {
    const Line half = broadcast(0.5f), two = broadcast(2.0f), quarter = broadcast(0.25f), four = broadcast(4.0f);
    const Line a = broadcast(-5.25f), b = broadcast(-4.25f), c = broadcast(-1.25f), e = broadcast(-2.5f);
    const Line f = broadcast(-5.0f);
    o[0] = multiply_add(a, d[2] - d[4], d[0] - d[6]);
    o[7] = multiply_add(a, d[5] - d[3], d[7] - d[1]);
    Line even = multiply_add(b, d[4], d[2] + d[6]), odd = multiply_add(b, d[3], d[1] + d[5]);
    o[1] = even + odd;
    o[2] = even - odd;
    even = multiply_add(quarter, d[2], multiply_add(c, d[4], d[6]));
    odd = multiply_add(half, d[1], multiply_add(e, d[3], two * d[5]));
    o[3] = even + odd;
    o[4] = even - odd;
    even = multiply_add(four, d[2], multiply_add(f, d[4], d[6]));
    odd = multiply_add(two, d[1], multiply_add(e, d[3], half * d[5]));
    o[5] = even + odd;
    o[6] = even - odd;
  }
}

template <int kTile>
FASTCV_INLINE void transform_result(const Line (&m)[tile_shape(kTile).side], Line (&o)[tile_shape(kTile).results]) {
  if constexpr (kTile == 2) {
    o[0] = m[0] + m[1] + m[2];
    o[1] = m[1] - m[2] + m[3];
  } else if constexpr (kTile == kStridedTile) {
    o[0] = m[0] + m[1] + m[3];
    o[1] = m[1] + m[2] + m[4];
  } else if constexpr (kTile == 4) {
    const Line two = broadcast(2.0f), four = broadcast(4.0f), eight = broadcast(8.0f);
    const Line a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
    o[0] = m[0] + a + c;
    o[1] = multiply_add(two, d, b);
    o[2] = multiply_add(four, c, a);
    o[3] = multiply_add(eight, d, b) + m[5];
  } else {
    const Line two = broadcast(2.0f), four = broadcast(4.0f), eight = broadcast(8.0f), sixteen = broadcast(16.0f);
    const Line much = broadcast(32.0f);
    const Line a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4], e = m[5] + m[6], f = m[5] - m[6];
    o[0] = multiply_add(much, e, m[0] + a + c);
    o[1] = multiply_add(sixteen, f, multiply_add(two, d, b));
    o[2] = multiply_add(eight, e, multiply_add(four, c, a));
    o[3] = multiply_add(four, f, multiply_add(eight, d, b));
    o[4] = multiply_add(two, e, multiply_add(sixteen, c, a));
    o[5] = multiply_add(much, d, b + f) + m[7];
  }
}

}  // namespace fastcv::FASTCV_VARIANT

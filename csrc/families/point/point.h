// Points in space and the distance on which sampling and neighbour search decide: written once, so that all devices
// decide alike (V may be a vector of floats). Contraction is off in every build, so each operation rounds by itself.
#pragma once

#include "core/types.h"

namespace fastcv::FASTCV_VARIANT {

template <class V>
struct Point {
  V x, y, z;
};

template <class V>
FASTCV_HD V squared_length(V x, V y, V z) {
  return x * x + y * y + z * z;
}

template <class V>
FASTCV_HD V squared_distance(const Point<V>& a, const Point<V>& b) {
  return squared_length(a.x - b.x, a.y - b.y, a.z - b.z);
}

template <class T>
FASTCV_HD Point<Accumulate<T>> read_point(const T* points, int64_t i) {
  const T* source = points + 3 * i;
  return {to_float(source[0]), to_float(source[1]), to_float(source[2])};
}

template <class A>
FASTCV_HD bool is_finite(const Point<A>& p) {
  return p.x - p.x == A(0) && p.y - p.y == A(0) && p.z - p.z == A(0);
}

// The number of points of cloud b; lengths outside of [0, most] (the bindings refuse them on the CPU) are cut off.
FASTCV_HD int64_t cloud_length(const int64_t* lengths, int64_t b, int64_t most) {
  if (lengths == nullptr) return most;
  const int64_t length = lengths[b];
  return length < 0 ? 0 : least(length, most);
}

}  // namespace fastcv::FASTCV_VARIANT

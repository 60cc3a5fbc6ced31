// One axis of bilinear interpolation on a pixel grid, as RoIAlign and its relatives sample it.
#pragma once

#include <cstdint>

#include "core/platform.h"

namespace fastcv::FASTCV_VARIANT {

// The two pixels beside a position, and their weights. Bilinear interpolation is the product of two of these.
template <class T>
struct BilinearTap {
  int64_t low, high;
  T weight_low, weight_high;
  bool inside;
};

// Positions from -1 to size (one pixel beyond the border on either side) take the border's value; positions further
// out, and NaN, are not inside and contribute nothing.
template <class T>
FASTCV_HD BilinearTap<T> bilinear_tap(T position, int64_t size) {
  if (!(position >= T(-1) && position <= static_cast<T>(size))) return {0, 0, T(0), T(0), false};
  if (position < T(0)) position = T(0);
  const int64_t low = static_cast<int64_t>(position);
  if (low >= size - 1) return {size - 1, size - 1, T(1), T(0), true};
  const T fraction = position - static_cast<T>(low);
  return {low, low + 1, T(1) - fraction, fraction, true};
}

}  // namespace fastcv::FASTCV_VARIANT

// Position-sensitive RoIPool (Dai et al. 2016, "R-FCN", section 2): every bin is the mean of its pixels in a channel of
// its own.
//
// Tensors and edge cases are those of families/roi/position_sensitive.h, bins those of families/roi/roi_bins.h without
// the pixel at the end. As in torchvision, the last row and the last column of the map belong to no bin. An empty bin
// gives 0.
#pragma once

#include "core/cpu_variants.h"
#include "families/roi/position_sensitive.h"
#include "families/roi/roi_bins.h"

namespace fastcv {

FASTCV_DECLARE_KERNEL(ps_roi_pool_forward, RoiParams);
FASTCV_DECLARE_KERNEL(ps_roi_pool_backward, RoiParams);

namespace FASTCV_VARIANT {

template <class A>
FASTCV_HD QuantisedAxis<A> ps_roi_pool_axis(A low, A high, double spatial_scale, int64_t bins) {
  return quantised_axis(low, high, static_cast<A>(spatial_scale), bins, 0);
}

template <class A>
FASTCV_HD PixelRange ps_roi_pool_range(const QuantisedAxis<A>& axis, int64_t bin, int64_t size) {
  return pixels_of_bin(axis, bin, size > 0 ? size - 1 : 0);
}

// How many pixels a bin has.
FASTCV_HD int64_t pixel_count(PixelRange y, PixelRange x) {
  return y.high > y.low && x.high > x.low ? (y.high - y.low) * (x.high - x.low) : 0;
}

template <class A, class T>
FASTCV_HD A mean_of_pixels(const T* plane, int64_t stride_y, int64_t stride_x, PixelRange y, PixelRange x) {
  const int64_t count = pixel_count(y, x);
  if (count == 0) return A(0);
  A sum = 0;
  for (int64_t i = y.low; i < y.high; ++i) {
    for (int64_t j = x.low; j < x.high; ++j) sum += to_float(plane[i * stride_y + j * stride_x]);
  }
  return sum / static_cast<A>(count);
}

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

// RoIPool (Girshick 2015, "Fast R-CNN", section 2.1): every bin of a box is the largest value among its pixels.
//
//   features  (N, C, H, W)   any strides
//   boxes     (K, 5)         batch index, x1, y1, x2, y2 in pixels of the image; contiguous, float32 (float64 when the
//                            features are float64)
//   pooled    (K, C, P, Q)   contiguous or channels_last
//   argmax    (K, C, P, Q)   int32, laid out like pooled: y * W + x of the largest value, -1 where there is none
//
// Coordinates are multiplied by spatial_scale and rounded half away from zero; both ends belong to the box. See
// families/roi/roi_bins.h. The comparison is `value > largest`, from -FLT_MAX on, in the order of the pixels: the first
// of equal values wins, and a NaN never does. An empty bin gives 0. Edge cases, on all devices: a box with a coordinate
// that is not finite gives zeros and has no gradient. A batch index outside [0, N) is a ValueError on the CPU; on CUDA
// that RoI gives zeros.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"
#include "families/roi/roi.h"
#include "families/roi/roi_bins.h"

namespace fastcv {

// Forward reads features and writes pooled and argmax; backward reads pooled (its gradient) and argmax, and writes all
// of features.
struct RoiPoolParams {
  void* features;
  void* pooled;
  int32_t* argmax;  // null when it is not wanted
  const void* boxes;
  DType dtype;  // of features and pooled
  int64_t batch, channels, height, width;
  int64_t rois, pooled_height, pooled_width;
  int64_t feature_strides[4];  // n, c, y, x, in elements
  int64_t pooled_strides[4];   // k, c, p, q; of argmax too
  double spatial_scale;
};

FASTCV_DECLARE_KERNEL(roi_pool_forward, RoiPoolParams);
FASTCV_DECLARE_KERNEL(roi_pool_backward, RoiPoolParams);

namespace FASTCV_VARIANT {

constexpr float kLowest = -3.402823466e+38f;  // -FLT_MAX, for all dtypes

template <class A>
struct RoiPoolGeometry {
  QuantisedAxis<A> y, x;
  bool empty;
};

template <class A>
FASTCV_HD RoiPoolGeometry<A> roi_pool_geometry(const A* box, const RoiPoolParams& p) {
  const A scale = static_cast<A>(p.spatial_scale);
  const QuantisedAxis<A> y = quantised_axis(box[2], box[4], scale, p.pooled_height, 1);
  const QuantisedAxis<A> x = quantised_axis(box[1], box[3], scale, p.pooled_width, 1);
  return {y, x, !(y.valid && x.valid)};
}

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

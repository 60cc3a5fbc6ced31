// What the kernels of an op get that pools boxes from one map and is linear in the features.
#pragma once

#include "core/types.h"
#include "families/roi/roi.h"

namespace fastcv {

// Forward reads features and writes pooled; backward reads pooled (its gradient) and writes all of features.
struct RoiParams {
  void* features;
  void* pooled;
  const void* boxes;
  DType dtype;                             // of features and pooled
  int64_t batch, channels, height, width;  // channels of the features
  int64_t rois;
  int64_t feature_strides[4];  // n, c, y, x, in elements
  int64_t pooled_strides[4];   // k, c, p, q; those of a dense layout
  double spatial_scale;
  RoiSampling sampling;
};

}  // namespace fastcv

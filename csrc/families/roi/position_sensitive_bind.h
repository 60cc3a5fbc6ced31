// The checks that the bindings of position-sensitive ops share.
#pragma once

#include <algorithm>

#include "families/roi/position_sensitive.h"
#include "families/roi/roi_bind.h"

namespace fastcv {

// Features (N, C * P * Q, H, W) and pooled (K, C, P, Q), whose strides are those of a dense layout.
inline PositionSensitiveParams position_sensitive_params(const TensorView& features, const TensorView& pooled,
                                                         const TensorView& boxes, double spatial_scale) {
  for (int i = 1; i < 4; ++i) {  // so that no index of a channel or a pixel of one plane needs more
    check_fewer("input", "channels, rows and columns", std::max(features.shape[i], pooled.shape[i]), int64_t{1} << 31);
  }
  PositionSensitiveParams params{};
  params.features = features.data;
  params.pooled = pooled.data;
  params.boxes = boxes.data;
  params.dtype = features.dtype;
  params.batch = features.shape[0];
  params.channels = features.shape[1];
  params.height = features.shape[2];
  params.width = features.shape[3];
  params.rois = boxes.shape[0];
  params.spatial_scale = spatial_scale;
  params.sampling = {pooled.shape[2], pooled.shape[3], 0, true};
  for (int i = 0; i < 4; ++i) params.feature_strides[i] = features.strides[i];
  for (int i = 0; i < 4; ++i) params.pooled_strides[i] = pooled.strides[i];
  return params;
}

// For backward: grad_output (K, C, P, Q), checked against the `channels` of the features.
inline TensorView checked_position_sensitive_grad(const TensorView& grad_output, const TensorView& boxes,
                                                  int64_t channels) {
  const TensorView pooled = checked_grad_output(grad_output, boxes, kAny);
  const int64_t bins = multiply_sizes(pooled.shape[2], pooled.shape[3]);
  if (multiply_sizes(pooled.shape[1], bins) != channels) {
    refuse("grad_output", "have C * P * Q = " + std::to_string(channels) + " elements per box", describe_shape(pooled));
  }
  return pooled;
}

}  // namespace fastcv

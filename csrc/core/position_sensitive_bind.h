// The checks that the bindings of position-sensitive ops share.
#pragma once

#include <string>

#include "core/position_sensitive.h"
#include "core/roi_bind.h"

namespace fastcv {

inline PositionSensitiveParams position_sensitive_params(const TensorView& features, const TensorView& pooled,
                                                         const TensorView& boxes, double spatial_scale) {
  namespace py = pybind11;
  check_shape({pooled, "output"}, {boxes.shape[0], kAny, kAny, kAny}, "(K, C, P, Q)");
  check_same_dtype({pooled, "output"}, {features, "input"});
  check_same_device({pooled, "output"}, {features, "input"});
  for (int i = 1; i < 4; ++i) {  // so that no index of a channel or a pixel of one plane needs more
    if (features.shape[i] <= INT32_MAX && pooled.shape[i] <= INT32_MAX) continue;
    throw py::value_error("input must have at most 2^31 - 1 channels, rows and columns, got " +
                          std::to_string(features.shape[i]));
  }
  const int64_t bins = pooled.shape[2] * pooled.shape[3];
  if (bins > INT32_MAX || pooled.shape[1] * bins != features.shape[1]) {
    throw py::value_error("input must have C * P * Q channels for an output of C = " + std::to_string(pooled.shape[1]) +
                          " channels and P * Q = " + std::to_string(bins) + " bins, got " +
                          std::to_string(features.shape[1]));
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
  check_dense({pooled, "output"}, params.pooled_strides);
  return params;
}

}  // namespace fastcv

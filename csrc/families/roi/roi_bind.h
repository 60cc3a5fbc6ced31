// What the bindings of the RoI ops share: checks of features (N, C, H, W) and boxes (K, 5), and the result.
#pragma once

#include <algorithm>

#include "core/arguments.h"
#include "families/roi/roi_params.h"

namespace fastcv {

// Checks features and boxes, and returns the boxes as kernels read them: contiguous, in the dtype that these features
// are accumulated in.
inline TensorView checked_rois(Argument boxes, Argument features, int columns = kBoxColumns) {
  check_shape(features, {kAny, kAny, kAny, kAny}, "(N, C, H, W)");
  check_floating(features);
  check_shape(boxes, {kAny, columns},
              columns == kRotatedColumns
                  ? "(K, 6), rows of batch index, cx, cy, w, h, angle (or be a list of (L, 5) tensors, one per image)"
                  : "(K, 5), rows of batch index, x1, y1, x2, y2 (or be a list of (L, 4) tensors, one per image)");
  check_same_device(boxes, features);
  const DType wanted = accumulate_dtype(features.view.dtype);
  if (boxes.view.dtype != wanted && boxes.view.dtype >= DType::kFloat64) {  // wider, or no floating dtype
    refuse_type(boxes.name, std::string("be of a floating dtype not wider than ") + name_of(wanted),
                describe_dtype(boxes.view));
  }
  return converted(boxes.view, wanted);
}

// A result of (K, C, height, width) in the layout of the features; where every bin has channels of its own,
// C / (height * width) of them.
inline NewTensor new_pooled(Argument features, const TensorView& rois, int64_t height, int64_t width,
                            bool position_sensitive = false) {
  const std::string size = "(" + std::to_string(height) + ", " + std::to_string(width) + ")";
  if (height <= 0 || width <= 0) refuse("output_size", "be positive", size);
  int64_t channels = features.view.shape[1];
  if (position_sensitive) {
    const int64_t bins = multiply_sizes(height, width);
    if (channels % bins != 0) {
      refuse(features.name, "have channels divisible by the bins of output_size " + size,
             std::to_string(channels) + " channels");
    }
    channels /= bins;
  }
  return new_dense(features.view, features.view.dtype, rois.shape[0], channels, height, width);
}

// For backward: grad_output (K, C, P, Q), which takes the place of the features in the check of boxes. Contiguous or
// channels_last, with the strides of that layout.
inline TensorView checked_grad_output(const TensorView& grad_output, const TensorView& boxes, int64_t channels) {
  check_shape({grad_output, "grad_output"}, {boxes.rank > 0 ? boxes.shape[0] : kAny, channels, kAny, kAny},
              "(K, C, P, Q)");
  return dense(grad_output);
}

// Features, and pooled, whose strides are those of a dense layout. Samples are for the op to say.
inline RoiParams roi_params(const TensorView& features, const TensorView& pooled, const TensorView& boxes,
                            double spatial_scale) {
  for (int i = 1; i < 4; ++i) {  // so that no index of a channel or a pixel of one plane needs more
    check_fewer("input", "channels, rows and columns", std::max(features.shape[i], pooled.shape[i]), int64_t{1} << 31);
  }
  RoiParams params{};
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

inline void check_sampling_ratio(int64_t sampling_ratio, int64_t limit = kMaxRoiGrid) {
  if (sampling_ratio <= limit) return;
  refuse("sampling_ratio", "be at most " + std::to_string(limit), std::to_string(sampling_ratio));
}

}  // namespace fastcv

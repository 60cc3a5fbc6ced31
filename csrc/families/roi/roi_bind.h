// What the bindings of the RoI ops share: checks of features (N, C, H, W) and boxes (K, 5), and the result.
#pragma once

#include "core/arguments.h"
#include "families/roi/roi.h"

namespace fastcv {

// Checks features and boxes, and returns the boxes as kernels read them: contiguous, in the dtype that these features
// are accumulated in.
inline TensorView checked_rois(Argument boxes, Argument features) {
  check_shape(features, {kAny, kAny, kAny, kAny}, "(N, C, H, W)");
  check_floating(features);
  check_shape(boxes, {kAny, 5},
              "(K, 5), rows of batch index, x1, y1, x2, y2 (or be a list of (L, 4) tensors, one per image)");
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

inline void check_sampling_ratio(int64_t sampling_ratio) {
  if (sampling_ratio <= kMaxRoiGrid) return;
  refuse("sampling_ratio", "be at most " + std::to_string(kMaxRoiGrid), std::to_string(sampling_ratio));
}

}  // namespace fastcv

// What the bindings of the RoI ops share: checks of features (N, C, H, W) and boxes (K, 5), and the result.
#pragma once

#include <string>

#include "core/roi.h"
#include "core/tensor.h"

namespace fastcv {

inline void check_rois(Argument features, Argument boxes) {
  check_shape(features, {kAny, kAny, kAny, kAny}, "(N, C, H, W)");
  check_floating(features);
  if (boxes.view.rank != 2 || boxes.view.shape[1] != 5) {
    check_shape(boxes, {kAny, 5},
                "(K, 5), rows of batch index, x1, y1, x2, y2 (or be a list of (L, 4) tensors, one per image)");
  }
  check_dtype(boxes, accumulate_dtype(features.view.dtype));
  check_contiguous(boxes);
  check_same_device(boxes, features);
}

// A result of (K, C, height, width) in the layout of the features; where every bin has channels of its own,
// C / (height * width) of them.
inline NewTensor new_pooled(Argument features, Argument boxes, int64_t height, int64_t width,
                            bool position_sensitive = false) {
  check_rois(features, boxes);
  if (height <= 0 || width <= 0) {
    throw pybind11::value_error("output_size must be positive, got (" + std::to_string(height) + ", " +
                                std::to_string(width) + ")");
  }
  int64_t channels = features.view.shape[1];
  if (position_sensitive) {
    const int64_t bins = multiply_sizes(height, width);
    if (channels % bins != 0) {
      throw pybind11::value_error(std::string(features.name) + " must have channels divisible by the " +
                                  std::to_string(height) + " * " + std::to_string(width) +
                                  " bins of output_size, got " + std::to_string(channels) + " channels");
    }
    channels /= bins;
  }
  return new_dense(features.view, features.view.dtype, boxes.view.shape[0], channels, height, width);
}

}  // namespace fastcv

// What the bindings of the RoI ops share: checks of features (N, C, H, W) and boxes (K, 5), and the result.
#pragma once

#include <string>

#include "core/roi.h"
#include "core/tensor.h"

namespace fastcv {

// Boxes as kernels read them: contiguous, in the dtype that these features are accumulated in. A copy where they are
// not so already. Checks both.
class Rois {
 public:
  Rois(Argument boxes, Argument features) {
    check_shape(features, {kAny, kAny, kAny, kAny}, "(N, C, H, W)");
    check_floating(features);
    check_shape(boxes, {kAny, 5},
                "(K, 5), rows of batch index, x1, y1, x2, y2 (or be a list of (L, 4) tensors, one per image)");
    check_same_device(boxes, features);
    const DType wanted = accumulate_dtype(features.view.dtype);
    view = boxes.view;
    if (view.dtype != wanted) {
      if (view.dtype >= DType::kFloat64) {  // or no floating dtype
        throw pybind11::type_error(std::string("boxes must be of a floating dtype not wider than ") + name_of(wanted) +
                                   ", got " + name_of(view.dtype));
      }
      own(pybind11::handle(view.object).attr("to")(torch_dtype(wanted)));
    }
    if (!view.is_contiguous()) own(pybind11::handle(view.object).attr("contiguous")());
  }

  TensorView view;

 private:
  void own(pybind11::object copy) {
    view = view_of(copy.ptr());
    copy_ = std::move(copy);
  }
  pybind11::object copy_;
};

// A result of (K, C, height, width) in the layout of the features; where every bin has channels of its own,
// C / (height * width) of them.
inline NewTensor new_pooled(Argument features, const Rois& rois, int64_t height, int64_t width,
                            bool position_sensitive = false) {
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
  return new_dense(features.view, features.view.dtype, rois.view.shape[0], channels, height, width);
}

}  // namespace fastcv

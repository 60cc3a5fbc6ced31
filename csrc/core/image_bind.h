// Tensors (N, C, H, W) as dense batches of images (core/image.h), at the boundary.
#pragma once

#include <string>

#include "core/image.h"
#include "core/tensor.h"

namespace fastcv {

inline bool has_strides(const TensorView& view, const int64_t (&strides)[4]) {
  for (int i = 0; i < 4; ++i) {
    if (view.shape[i] != 1 && view.strides[i] != strides[i]) return view.elements() == 0;
  }
  return true;
}

// Whether the tensors, all of them (N, C, H, W), are channels_last; otherwise all must be contiguous. Where both could
// be said of one, the others decide.
inline bool shared_layout_is_channels_last(std::initializer_list<Argument> arguments) {
  bool contiguous = true, channels_last = true;
  for (const Argument& argument : arguments) {
    const TensorView& view = argument.view;
    const int64_t c = view.shape[1], h = view.shape[2], w = view.shape[3];
    contiguous = contiguous && has_strides(view, {c * h * w, h * w, w, 1});
    channels_last = channels_last && has_strides(view, {h * w * c, 1, w * c, c});
  }
  if (contiguous || channels_last) return !contiguous;
  std::string names;
  for (const Argument& argument : arguments) names += (names.empty() ? "" : ", ") + std::string(argument.name);
  throw pybind11::value_error(names + " must be contiguous, or channels_last, all alike");
}

// Rows, and elements of a row, are counted in 32 bits by the kernels.
inline ImageShape image_shape(Argument argument, bool channels_last) {
  const TensorView& view = argument.view;
  const int64_t n = view.shape[0], c = view.shape[1], h = view.shape[2], w = view.shape[3];
  const ImageShape shape = channels_last ? ImageShape{n, h, w, c} : ImageShape{n * c, h, w, 1};
  constexpr int64_t kMost = 0x7fffffff;
  if (shape.outer * shape.height > kMost || shape.width * shape.run > kMost) {
    throw pybind11::value_error(std::string(argument.name) + " must have fewer than 2^31 rows, and elements a row");
  }
  return shape;
}

}  // namespace fastcv

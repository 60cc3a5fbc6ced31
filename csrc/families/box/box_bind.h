// What the bindings of box ops share.
#pragma once

#include "core/arguments.h"

namespace fastcv {

inline bool is_floating(const TensorView& view) {
  if (view.dtype != DType::kOther) return view.dtype <= DType::kFloat64;
  return pybind11::handle(view.object).attr("dtype").attr("is_floating_point").cast<bool>();
}

// Boxes of any dtype of real numbers.
inline void check_numbers(Argument boxes) {
  const TensorView& view = boxes.view;
  const bool is_complex =
      view.dtype == DType::kOther && pybind11::handle(view.object).attr("dtype").attr("is_complex").cast<bool>();
  if (view.dtype != DType::kBool && !is_complex) return;
  refuse_type(boxes.name, "be of a floating or an integer dtype", describe_dtype(view));
}

}  // namespace fastcv

// A dense batch of images as kernels see it, the same for both layouts.
//
//   contiguous (N, C, H, W)   outer = N * C planes of height x width pixels, of run = 1 element each
//   channels_last             outer = N images of height x width pixels, of run = C neighbouring elements each
//
// Element (o, y, x, r) lies at ((o * height + y) * width + x) * run + r.
#pragma once

#include <cstdint>

#include "core/types.h"

namespace fastcv {

struct ImageShape {
  int64_t outer, height, width, run;
};

namespace FASTCV_VARIANT {

FASTCV_HD int64_t row_count(const ImageShape& shape) {
  return shape.outer * shape.height;
}
FASTCV_HD int64_t row_length(const ImageShape& shape) {
  return shape.width * shape.run;
}
FASTCV_HD int64_t element_count(const ImageShape& shape) {
  return row_count(shape) * row_length(shape);
}

// Calls body(TypeTag<U>{}) with an unsigned integer of the size of a floating dtype: for elements that are only moved.
template <class Body>
void dispatch_moved(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::kFloat64:
      return body(TypeTag<uint64_t>{});
    case DType::kFloat32:
      return body(TypeTag<uint32_t>{});
    default:
      return body(TypeTag<uint16_t>{});
  }
}

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

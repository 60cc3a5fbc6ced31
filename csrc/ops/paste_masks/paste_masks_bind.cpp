#include <pybind11/stl.h>

#include <optional>

#include "core/dispatch.h"
#include "ops/paste_masks/paste_masks.h"

namespace py = pybind11;

namespace fastcv {
namespace {

constexpr int64_t kLargestSide = 1 << 28;  // of a mask, and the largest padding

void check_sizes(const TensorView& masks, int64_t height, int64_t width, int64_t padding) {
  if (padding < 0 || padding > kLargestSide) {
    refuse("padding", "be from 0 to " + std::to_string(kLargestSide), std::to_string(padding));
  }
  check_fewer("masks", "rows", masks.shape[2], kLargestSide + 1);
  check_fewer("masks", "columns", masks.shape[3], kLargestSide + 1);
  const std::string size = "(" + std::to_string(height) + ", " + std::to_string(width) + ")";
  if (height < 0 || width < 0) refuse("image_size", "be at least 0", size);
  if (height > INT32_MAX || width > INT32_MAX || height * width > INT32_MAX) {
    refuse("image_size", "have fewer than 2147483648 pixels", size);
  }
}

py::object paste_masks(const TensorView& masks, const TensorView& boxes, int64_t height, int64_t width, int64_t padding,
                       std::optional<double> threshold) {
  check_shape({masks, "masks"}, {kAny, 1, kAny, kAny}, "(N, 1, P, Q)");
  check_floating({masks, "masks"});
  check_shape({boxes, "boxes"}, {masks.shape[0], 4}, "(N, 4)");
  check_floating({boxes, "boxes"});
  check_same_device({boxes, "boxes"}, {masks, "masks"});
  check_sizes(masks, height, width, padding);
  NewTensor pasted = new_contiguous(masks, threshold ? DType::kBool : masks.dtype, {masks.shape[0], 1, height, width});
  const TensorView dense_masks = contiguous(masks), corners = converted(boxes, accumulate_dtype(boxes.dtype));
  PasteMasksParams params{};
  params.masks = dense_masks.data;
  params.boxes = corners.data;
  params.pasted = pasted.view.data;
  params.dtype = masks.dtype;
  params.box_dtype = corners.dtype;
  params.decides = threshold.has_value();
  params.threshold = threshold.value_or(0);
  params.count = masks.shape[0];
  params.mask_height = masks.shape[2];
  params.mask_width = masks.shape[3];
  params.padding = padding;
  params.height = height;
  params.width = width;
  if (pasted.view.elements() > 0) FASTCV_RUN(paste_masks, params, masks);
  return std::move(pasted.object);
}

}  // namespace

void bind_paste_masks(py::module_& module) {
  module.def("paste_masks", &paste_masks);
}

}  // namespace fastcv

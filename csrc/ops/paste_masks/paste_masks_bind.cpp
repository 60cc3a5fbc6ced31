#include "core/dispatch.h"
#include "core/tensor.h"
#include "ops/paste_masks/paste_masks.h"

namespace py = pybind11;

namespace fastcv {
namespace {

void paste_masks(const TensorView& output, const TensorView& masks, const TensorView& boxes, int64_t padding,
                 bool decides, double threshold) {
  check_shape({masks, "masks"}, {kAny, 1, kAny, kAny}, "(N, 1, P, Q)");
  check_floating({masks, "masks"});
  check_contiguous({masks, "masks"});
  check_shape({boxes, "boxes"}, {masks.shape[0], 4}, "(N, 4)");
  if (boxes.dtype != DType::kFloat64) check_dtype({boxes, "boxes"}, DType::kFloat32);
  check_contiguous({boxes, "boxes"});
  check_same_device({boxes, "boxes"}, {masks, "masks"});
  check_shape({output, "output"}, {masks.shape[0], 1, kAny, kAny}, "(N, 1, H, W)");
  if (decides) {
    check_dtype({output, "output"}, DType::kBool);
  } else {
    check_same_dtype({output, "output"}, {masks, "masks"});
  }
  check_contiguous({output, "output"});
  check_same_device({output, "output"}, {masks, "masks"});
  constexpr int64_t kLargestSide = 1 << 28;
  if (padding < 0 || padding > kLargestSide) {
    throw py::value_error("padding must be between 0 and 2^28, got " + std::to_string(padding));
  }
  if (masks.shape[2] > kLargestSide || masks.shape[3] > kLargestSide) {
    throw py::value_error("masks must have at most 2^28 rows and columns");
  }
  const int64_t height = output.shape[2], width = output.shape[3];
  if (height > INT32_MAX || width > INT32_MAX || height * width > INT32_MAX) {
    throw py::value_error("image_size must have fewer than 2^31 pixels, got (" + std::to_string(height) + ", " +
                          std::to_string(width) + ")");
  }
  if (output.elements() == 0) return;
  PasteMasksParams params{};
  params.masks = masks.data;
  params.boxes = boxes.data;
  params.pasted = output.data;
  params.dtype = masks.dtype;
  params.box_dtype = boxes.dtype;
  params.decides = decides;
  params.threshold = threshold;
  params.count = masks.shape[0];
  params.mask_height = masks.shape[2];
  params.mask_width = masks.shape[3];
  params.padding = padding;
  params.height = height;
  params.width = width;
  FASTCV_RUN(paste_masks, params, output);
}

}  // namespace

void bind_paste_masks(py::module_& module) {
  module.def("paste_masks", &paste_masks);
}

}  // namespace fastcv

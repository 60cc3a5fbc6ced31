#include "core/dispatch.h"
#include "core/tensor.h"
#include "ops/masks_to_boxes/masks_to_boxes.h"

namespace py = pybind11;

namespace fastcv {
namespace {

void masks_to_boxes(const TensorView& output, const TensorView& masks) {
  check_shape({masks, "masks"}, {kAny, kAny, kAny}, "(N, H, W)");
  if (masks.dtype != DType::kBool && masks.dtype != DType::kUInt8) {
    throw py::type_error(std::string("masks must be bool or uint8, got ") + name_of(masks.dtype));
  }
  check_contiguous({masks, "masks"});
  if (masks.shape[1] > INT32_MAX || masks.shape[2] > INT32_MAX) {
    throw py::value_error("masks must have fewer than 2^31 rows and columns");
  }
  check_shape({output, "output"}, {masks.shape[0], 4}, "(N, 4)");
  check_dtype({output, "output"}, DType::kFloat32);
  check_contiguous({output, "output"});
  check_same_device({output, "output"}, {masks, "masks"});
  if (output.elements() == 0) return;
  const MasksToBoxesParams params{static_cast<const uint8_t*>(masks.data), static_cast<float*>(output.data),
                                  masks.shape[0], masks.shape[1], masks.shape[2]};
  FASTCV_RUN(masks_to_boxes, params, output);
}

}  // namespace

void bind_masks_to_boxes(py::module_& module) {
  module.def("masks_to_boxes", &masks_to_boxes);
}

}  // namespace fastcv

#include "core/dispatch.h"
#include "ops/masks_to_boxes/masks_to_boxes.h"

namespace py = pybind11;

namespace fastcv {
namespace {

// One byte per pixel, not zero where the pixel is set.
TensorView as_bytes(const TensorView& masks) {
  if (masks.dtype == DType::kBool || masks.dtype == DType::kUInt8) return contiguous(masks);
  TensorView bytes = masks;
  if (masks.is_description) return bytes;
  bytes.copy = py::handle(masks.object).attr("ne")(0).attr("contiguous")();
  bytes.data = view_of(bytes.copy.ptr()).data;
  return bytes;
}

py::object masks_to_boxes(const TensorView& masks) {
  check_shape({masks, "masks"}, {kAny, kAny, kAny}, "(N, H, W)");
  if (masks.dtype == DType::kOther && describe_dtype(masks).rfind("complex", 0) == 0) {
    refuse_type("masks", "be of a real dtype", describe_dtype(masks));
  }
  constexpr int64_t kLimit = int64_t{1} << 31;
  check_fewer("masks", "rows", masks.shape[1], kLimit);
  check_fewer("masks", "columns", masks.shape[2], kLimit);
  NewTensor boxes = new_contiguous(masks, DType::kFloat32, {masks.shape[0], 4});
  const TensorView bytes = as_bytes(masks);
  const MasksToBoxesParams params{bytes.as<uint8_t>(), boxes.view.as<float>(), masks.shape[0], masks.shape[1],
                                  masks.shape[2]};
  if (params.count > 0) FASTCV_RUN(masks_to_boxes, params, masks);
  return std::move(boxes.object);
}

}  // namespace

void bind_masks_to_boxes(py::module_& module) {
  module.def("masks_to_boxes", &masks_to_boxes);
}

}  // namespace fastcv

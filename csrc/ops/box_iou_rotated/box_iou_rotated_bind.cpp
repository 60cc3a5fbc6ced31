#include "core/dispatch.h"
#include "ops/box_iou_rotated/box_iou_rotated.h"

namespace py = pybind11;

namespace fastcv {
namespace {

py::object box_iou_rotated(const TensorView& boxes1, const TensorView& boxes2) {
  check_shape({boxes1, "boxes1"}, {kAny, 5}, "(N, 5)");
  check_shape({boxes2, "boxes2"}, {kAny, 5}, "(M, 5)");
  check_floating({boxes1, "boxes1"});
  check_floating({boxes2, "boxes2"});
  check_same_device({boxes2, "boxes2"}, {boxes1, "boxes1"});
  const DType dtype = promoted(boxes1.dtype, boxes2.dtype);
  const TensorView rows = converted(boxes1, dtype), columns = converted(boxes2, dtype);
  const int64_t n = boxes1.shape[0], m = boxes2.shape[0];
  NewTensor overlap = new_contiguous(boxes1, DType::kFloat32, {n, m});
  if (overlap.view.elements() == 0) return std::move(overlap.object);
  NewTensor workspace;
  if (!runs_on_cpu(boxes1)) workspace = new_workspace(boxes1, box_iou_rotated_workspace_bytes(n, m, dtype));
  const BoxIouRotatedParams params{rows.data, columns.data, overlap.view.as<float>(), workspace.view.data, dtype, n, m};
  FASTCV_RUN(box_iou_rotated, params, boxes1);
  return std::move(overlap.object);
}

}  // namespace

void bind_box_iou_rotated(py::module_& module) {
  module.def("box_iou_rotated", &box_iou_rotated);
}

}  // namespace fastcv

#include "core/dispatch.h"
#include "core/tensor.h"
#include "ops/box_iou_loss/box_iou_loss.h"

namespace py = pybind11;

namespace fastcv {
namespace {

void check_boxes(Argument boxes, int64_t count) {
  check_shape(boxes, {count, 4}, "(N, 4)");
  if (boxes.view.dtype != DType::kFloat32 && boxes.view.dtype != DType::kFloat64) {
    throw py::type_error(std::string(boxes.name) + " must be float32 or float64, got " + name_of(boxes.view.dtype));
  }
  check_contiguous(boxes);
}

BoxIouLossParams make_loss_params(const TensorView& boxes1, const TensorView& boxes2, Argument loss, int64_t kind,
                                  double epsilon) {
  check_boxes({boxes1, "boxes1"}, kAny);
  check_boxes({boxes2, "boxes2"}, boxes1.shape[0]);
  check_same_dtype({boxes2, "boxes2"}, {boxes1, "boxes1"});
  check_same_device({boxes2, "boxes2"}, {boxes1, "boxes1"});
  check_shape(loss, {boxes1.shape[0]}, "(N,)");
  check_same_dtype(loss, {boxes1, "boxes1"});
  check_same_device(loss, {boxes1, "boxes1"});
  if (kind <= 0 || kind >= kOverlapKinds) {
    throw py::value_error("kind must be in [1, 4), got " + std::to_string(kind));
  }
  BoxIouLossParams params{};
  params.kind = static_cast<OverlapKind>(kind);
  params.boxes1 = boxes1.data;
  params.boxes2 = boxes2.data;
  params.loss = loss.view.data;
  params.dtype = boxes1.dtype;
  params.count = boxes1.shape[0];
  params.grad_stride = loss.view.strides[0];
  // torchvision's complete loss takes its distance with the default epsilon, whatever is asked for the penalty.
  const double distance = params.kind == OverlapKind::kComplete ? 1e-7 : epsilon;
  params.epsilon_areas = params.epsilon_diagonal = distance;
  params.epsilon_alpha = epsilon;
  return params;
}

void box_iou_loss_forward(const TensorView& output, const TensorView& boxes1, const TensorView& boxes2, int64_t kind,
                          double epsilon) {
  const BoxIouLossParams params = make_loss_params(boxes1, boxes2, {output, "output"}, kind, epsilon);
  check_contiguous({output, "output"});
  if (output.elements() == 0) return;
  FASTCV_RUN(box_iou_loss_forward, params, output);
}

void box_iou_loss_backward(const TensorView& grad_boxes1, const TensorView& grad_boxes2, const TensorView& grad,
                           const TensorView& boxes1, const TensorView& boxes2, int64_t kind, double epsilon,
                           bool needs1, bool needs2) {
  BoxIouLossParams params = make_loss_params(boxes1, boxes2, {grad, "grad"}, kind, epsilon);
  const auto check_gradient = [&](Argument gradient) {
    check_boxes(gradient, params.count);
    check_same_dtype(gradient, {boxes1, "boxes1"});
    check_same_device(gradient, {boxes1, "boxes1"});
  };
  if (needs1) check_gradient({grad_boxes1, "grad_boxes1"});
  if (needs2) check_gradient({grad_boxes2, "grad_boxes2"});
  params.grad_boxes1 = needs1 ? grad_boxes1.data : nullptr;
  params.grad_boxes2 = needs2 ? grad_boxes2.data : nullptr;
  if (params.count == 0) return;
  FASTCV_RUN(box_iou_loss_backward, params, boxes1);
}

}  // namespace

void bind_box_iou_loss(py::module_& module) {
  module.def("box_iou_loss_forward", &box_iou_loss_forward);
  module.def("box_iou_loss_backward", &box_iou_loss_backward);
}

}  // namespace fastcv

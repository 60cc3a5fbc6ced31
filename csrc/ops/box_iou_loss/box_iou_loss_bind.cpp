#include "core/dispatch.h"
#include "families/box/box_bind.h"
#include "ops/box_iou_loss/box_iou_loss.h"

namespace py = pybind11;

namespace fastcv {
namespace {

void check_boxes(Argument boxes) {
  const TensorView& view = boxes.view;
  if (view.rank < 1 || view.shape[view.rank - 1] != 4) {
    refuse(boxes.name, "have shape (N, 4) or (4,)", describe_shape(view));
  }
  check_numbers(boxes);
}

// Boxes and their partners as the kernels read them: contiguous and of one dtype.
struct Pairs {
  Pairs(const TensorView& given1, const TensorView& given2) {
    check_boxes({given1, "boxes1"});
    check_boxes({given2, "boxes2"});
    check_same_shape({given2, "boxes2"}, {given1, "boxes1"});
    check_same_device({given2, "boxes2"}, {given1, "boxes1"});
    const bool wide = given1.dtype == DType::kFloat64 || given2.dtype == DType::kFloat64;
    dtype = wide ? DType::kFloat64 : DType::kFloat32;
    boxes1 = converted(given1, dtype);
    boxes2 = converted(given2, dtype);
  }

  DType dtype;
  TensorView boxes1, boxes2;
};

BoxIouLossParams make_params(const Pairs& pairs, const TensorView& loss, int64_t kind, double eps) {
  if (kind <= 0 || kind >= kOverlapKinds) refuse("kind", "be in [1, 4)", std::to_string(kind));
  if (!(eps >= 0)) refuse("eps", "not be negative", py::str(py::float_(eps)));
  BoxIouLossParams params{};
  params.boxes1 = pairs.boxes1.data;
  params.boxes2 = pairs.boxes2.data;
  params.loss = loss.data;
  params.dtype = pairs.dtype;
  params.kind = static_cast<OverlapKind>(kind);
  params.count = loss.elements();
  // torchvision's complete loss takes its distance with the default epsilon, whatever is asked for the penalty.
  const double distance = params.kind == OverlapKind::kComplete ? 1e-7 : eps;
  params.epsilon_areas = params.epsilon_diagonal = distance;
  params.epsilon_alpha = eps;
  return params;
}

py::object box_iou_loss(const TensorView& boxes1, const TensorView& boxes2, int64_t kind, double eps) {
  const Pairs pairs(boxes1, boxes2);
  NewTensor loss = new_contiguous(boxes1, pairs.dtype, boxes1.shape, boxes1.rank - 1);
  const BoxIouLossParams params = make_params(pairs, loss.view, kind, eps);
  if (params.count > 0) FASTCV_RUN(box_iou_loss_forward, params, boxes1);
  return std::move(loss.object);
}

// The gradient of the loss that has arrived; `step` is what lies between its elements.
TensorView checked_gradient(const TensorView& grad, const Pairs& pairs, int64_t& step) {
  bool same = grad.rank == pairs.boxes1.rank - 1;
  for (int i = 0; same && i < grad.rank; ++i) same = grad.shape[i] == pairs.boxes1.shape[i];
  if (!same) refuse("grad", "have the shape of the loss", describe_shape(grad));
  check_same_dtype({grad, "grad"}, {pairs.boxes1, "the loss"});
  check_same_device({grad, "grad"}, {pairs.boxes1, "boxes1"});
  return evenly_spaced(grad, step);
}

py::tuple box_iou_loss_backward(const TensorView& grad, const TensorView& boxes1, const TensorView& boxes2,
                                int64_t kind, double eps, bool needs1, bool needs2) {
  const Pairs pairs(boxes1, boxes2);
  int64_t step = 1;
  const TensorView arrived = checked_gradient(grad, pairs, step);
  BoxIouLossParams params = make_params(pairs, arrived, kind, eps);
  NewTensor grad1, grad2;
  if (needs1) grad1 = new_like(pairs.boxes1);
  if (needs2) grad2 = new_like(pairs.boxes2);
  params.grad_stride = step;
  params.grad_boxes1 = grad1.view.data;
  params.grad_boxes2 = grad2.view.data;
  if (params.count > 0) FASTCV_RUN(box_iou_loss_backward, params, boxes1);
  return py::make_tuple(as_gradient_of(boxes1, grad1), as_gradient_of(boxes2, grad2));
}

}  // namespace

void bind_box_iou_loss(py::module_& module) {
  module.def("box_iou_loss", &box_iou_loss);
  module.def("box_iou_loss_backward", &box_iou_loss_backward);
}

}  // namespace fastcv

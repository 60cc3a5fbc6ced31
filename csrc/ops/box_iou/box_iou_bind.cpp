#include "core/dispatch.h"
#include "families/box/box_bind.h"
#include "ops/box_iou/box_iou.h"

namespace py = pybind11;

namespace fastcv {
namespace {

// Two sets of boxes as the kernels read them: of one dtype, contiguous, their leading axes broadcast.
struct BoxSets {
  TensorView boxes1, boxes2;  // (..., N, 4), (..., M, 4)
  bool narrow = false;        // both are integers: computed in float64, results in float32
  int rank = 0;               // of the overlaps
  int64_t shape[TensorView::kMaxRank];
  int64_t batch = 1;  // how many matrices

  int64_t rows() const { return shape[rank - 2]; }
  int64_t columns() const { return shape[rank - 1]; }
};

void check_set(Argument boxes, const char* meaning) {
  const TensorView& view = boxes.view;
  if (view.rank < 2 || view.shape[view.rank - 1] != 4) refuse(boxes.name, meaning, describe_shape(view));
  check_numbers(boxes);
}

void broadcast_leading_axes(BoxSets& sets, const TensorView& boxes1, const TensorView& boxes2) {
  sets.rank = boxes1.rank > boxes2.rank ? boxes1.rank : boxes2.rank;
  for (int i = 0; i < sets.rank - 2; ++i) {
    const int axis1 = i - (sets.rank - boxes1.rank), axis2 = i - (sets.rank - boxes2.rank);
    const int64_t size1 = axis1 < 0 ? 1 : boxes1.shape[axis1], size2 = axis2 < 0 ? 1 : boxes2.shape[axis2];
    if (size1 != size2 && size1 != 1 && size2 != 1) {
      refuse("boxes1 and boxes2", "have leading axes that broadcast",
             describe_shape(boxes1) + " and " + describe_shape(boxes2));
    }
    sets.shape[i] = size1 == 1 ? size2 : size1;
    sets.batch = multiply_sizes(sets.batch, sets.shape[i]);
  }
  sets.shape[sets.rank - 2] = boxes1.shape[boxes1.rank - 2];
  sets.shape[sets.rank - 1] = boxes2.shape[boxes2.rank - 2];
}

// (..., count, 4) with the leading axes of the overlaps, uninitialised.
NewTensor new_boxes(const BoxSets& sets, const TensorView& like, DType dtype, int64_t count) {
  int64_t shape[TensorView::kMaxRank];
  for (int i = 0; i < sets.rank - 2; ++i) shape[i] = sets.shape[i];
  shape[sets.rank - 2] = count;
  shape[sets.rank - 1] = 4;
  return new_contiguous(like, dtype, shape, sets.rank);
}

TensorView broadcast_boxes(const BoxSets& sets, const TensorView& boxes, DType dtype) {
  if (boxes.rank == sets.rank) {
    bool same = true;
    for (int i = 0; i < sets.rank - 2; ++i) same = same && boxes.shape[i] == sets.shape[i];
    if (same) return converted(boxes, dtype);
  }
  NewTensor made = new_boxes(sets, boxes, dtype, boxes.shape[boxes.rank - 2]);
  if (!boxes.is_description) made.object.attr("copy_")(py::handle(boxes.object));
  made.view.copy = std::move(made.object);
  return made.view;
}

BoxSets read_sets(const TensorView& boxes1, const TensorView& boxes2) {
  check_set({boxes1, "boxes1"}, "have shape (..., N, 4)");
  check_set({boxes2, "boxes2"}, "have shape (..., M, 4)");
  check_same_device({boxes2, "boxes2"}, {boxes1, "boxes1"});
  BoxSets sets;
  broadcast_leading_axes(sets, boxes1, boxes2);
  sets.narrow = !is_floating(boxes1) && !is_floating(boxes2);
  const bool wide = sets.narrow || boxes1.dtype == DType::kFloat64 || boxes2.dtype == DType::kFloat64;
  const DType dtype = wide ? DType::kFloat64 : DType::kFloat32;
  sets.boxes1 = broadcast_boxes(sets, boxes1, dtype);
  sets.boxes2 = broadcast_boxes(sets, boxes2, dtype);
  return sets;
}

BoxIouParams make_params(const BoxSets& sets, const TensorView& overlap, int64_t kind, double eps) {
  if (kind < 0 || kind >= kOverlapKinds) refuse("kind", "be in [0, 4)", std::to_string(kind));
  if (!(eps >= 0)) refuse("eps", "not be negative", py::str(py::float_(eps)));
  BoxIouParams params{};
  params.boxes1 = sets.boxes1.data;
  params.boxes2 = sets.boxes2.data;
  params.overlap = overlap.data;
  params.dtype = sets.boxes1.dtype;
  params.narrow = sets.narrow;
  params.kind = static_cast<OverlapKind>(kind);
  params.batch = sets.batch;
  params.rows = sets.rows();
  params.columns = sets.columns();
  params.epsilon = eps;
  return params;
}

py::object box_iou(const TensorView& boxes1, const TensorView& boxes2, int64_t kind, double eps) {
  const BoxSets sets = read_sets(boxes1, boxes2);
  const DType dtype = sets.narrow ? DType::kFloat32 : sets.boxes1.dtype;
  NewTensor overlap = new_contiguous(boxes1, dtype, sets.shape, sets.rank);
  const BoxIouParams params = make_params(sets, overlap.view, kind, eps);
  if (overlap.view.elements() > 0) FASTCV_RUN(box_iou_forward, params, boxes1);
  return std::move(overlap.object);
}

// The gradient that has arrived, of three strides. Those of several leading axes may have none in common.
TensorView checked_gradient(const TensorView& grad, const BoxSets& sets) {
  bool same = grad.rank == sets.rank;
  for (int i = 0; same && i < sets.rank; ++i) same = grad.shape[i] == sets.shape[i];
  if (!same) refuse("grad", "have the shape of the overlaps", describe_shape(grad));
  check_floating({grad, "grad"});
  check_same_device({grad, "grad"}, {sets.boxes1, "boxes1"});
  if (grad.dtype != sets.boxes1.dtype) return converted(grad, sets.boxes1.dtype);
  return sets.rank > 3 ? contiguous(grad) : grad;
}

py::tuple box_iou_backward(const TensorView& grad, const TensorView& boxes1, const TensorView& boxes2, int64_t kind,
                           double eps, bool needs1, bool needs2) {
  const BoxSets sets = read_sets(boxes1, boxes2);
  const TensorView arrived = checked_gradient(grad, sets);
  BoxIouParams params = make_params(sets, arrived, kind, eps);
  const int64_t* strides = arrived.strides + sets.rank - 2;
  params.grad_strides[0] = sets.rank == 3 ? arrived.strides[0] : params.rows * params.columns;
  params.grad_strides[1] = strides[0];
  params.grad_strides[2] = strides[1];
  NewTensor grad1, grad2;
  if (needs1) grad1 = new_boxes(sets, boxes1, params.dtype, params.rows);
  if (needs2) grad2 = new_boxes(sets, boxes2, params.dtype, params.columns);
  const NewTensor workspace = new_workspace(boxes1, box_iou_workspace_bytes(params));
  params.grad_boxes1 = grad1.view.data;
  params.grad_boxes2 = grad2.view.data;
  params.workspace = workspace.view.data;
  if (sets.boxes1.elements() + sets.boxes2.elements() > 0) FASTCV_RUN(box_iou_backward, params, boxes1);
  return py::make_tuple(as_gradient_of(boxes1, grad1), as_gradient_of(boxes2, grad2));
}

}  // namespace

void bind_box_iou(py::module_& module) {
  module.def("box_iou", &box_iou);
  module.def("box_iou_backward", &box_iou_backward);
}

}  // namespace fastcv

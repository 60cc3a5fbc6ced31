#include "core/dispatch.h"
#include "core/tensor.h"
#include "ops/box_iou/box_iou.h"

namespace py = pybind11;

namespace fastcv {
namespace {

// Shapes are (N, 4), (M, 4) and (N, M), or all with one leading axis.
void check_boxes(Argument boxes, int rank, const char* meaning) {
  if (rank == 3) {
    check_shape(boxes, {kAny, kAny, 4}, meaning);
  } else {
    check_shape(boxes, {kAny, 4}, meaning);
  }
  if (boxes.view.dtype != DType::kFloat32 && boxes.view.dtype != DType::kFloat64) {
    throw py::type_error(std::string(boxes.name) + " must be float32 or float64, got " + name_of(boxes.view.dtype));
  }
  check_contiguous(boxes);
}

// Returns the number of axes of either.
int check_both(const TensorView& boxes1, const TensorView& boxes2) {
  const int rank = boxes1.rank == 3 ? 3 : 2;
  check_boxes({boxes1, "boxes1"}, rank, "(..., N, 4)");
  check_boxes({boxes2, "boxes2"}, rank, "(..., M, 4)");
  check_same_dtype({boxes2, "boxes2"}, {boxes1, "boxes1"});
  check_same_device({boxes2, "boxes2"}, {boxes1, "boxes1"});
  return rank;
}

BoxIouParams make_params(const TensorView& boxes1, const TensorView& boxes2, Argument overlap, int64_t kind,
                         double epsilon) {
  const int rank = check_both(boxes1, boxes2);
  check_same_device(overlap, {boxes1, "boxes1"});
  BoxIouParams params{};
  params.batch = rank == 3 ? boxes1.shape[0] : 1;
  params.rows = boxes1.shape[rank - 2];
  params.columns = boxes2.shape[rank - 2];
  if (rank == 3) {
    check_shape({boxes2, "boxes2"}, {params.batch, kAny, 4}, "(B, M, 4)");
    check_shape(overlap, {params.batch, params.rows, params.columns}, "(B, N, M)");
  } else {
    check_shape(overlap, {params.rows, params.columns}, "(N, M)");
  }
  if (kind < 0 || kind >= kOverlapKinds) {
    throw py::value_error("kind must be in [0, 4), got " + std::to_string(kind));
  }
  params.kind = static_cast<OverlapKind>(kind);
  params.epsilon = epsilon;
  params.boxes1 = boxes1.data;
  params.boxes2 = boxes2.data;
  params.overlap = overlap.view.data;
  params.dtype = boxes1.dtype;
  return params;
}

// With `narrow`, float64 boxes give float32 overlaps.
py::object box_iou_forward(const TensorView& boxes1, const TensorView& boxes2, int64_t kind, double epsilon,
                           bool narrow) {
  const int rank = check_both(boxes1, boxes2);
  const DType dtype = narrow ? DType::kFloat32 : boxes1.dtype;
  const int64_t n = boxes1.shape[rank - 2], m = boxes2.shape[rank - 2];
  NewTensor output =
      rank == 3 ? new_contiguous(boxes1, dtype, {boxes1.shape[0], n, m}) : new_contiguous(boxes1, dtype, {n, m});
  BoxIouParams params = make_params(boxes1, boxes2, {output.view, "output"}, kind, epsilon);
  params.narrow = narrow && boxes1.dtype == DType::kFloat64;
  if (output.view.elements() > 0) FASTCV_RUN(box_iou_forward, params, boxes1);
  return std::move(output.object);
}

int64_t box_iou_workspace(int64_t batch, int64_t rows, int64_t columns) {
  const int64_t row_chunks = (rows + kRowChunk - 1) / kRowChunk;
  const int64_t column_chunks = (columns + kColumnChunk - 1) / kColumnChunk;
  return batch * (column_chunks * rows + row_chunks * columns) * 4;
}

void check_gradient(Argument gradient, Argument boxes) {
  const int64_t* shape = boxes.view.shape;
  if (boxes.view.rank == 3) {
    check_shape(gradient, {shape[0], shape[1], 4}, "that of the boxes");
  } else {
    check_shape(gradient, {shape[0], 4}, "that of the boxes");
  }
  check_same_dtype(gradient, boxes);
  check_same_device(gradient, boxes);
  check_contiguous(gradient);
}

void box_iou_backward(const TensorView& grad_boxes1, const TensorView& grad_boxes2, const TensorView& grad,
                      const TensorView& boxes1, const TensorView& boxes2, const TensorView& workspace, int64_t kind,
                      double epsilon, bool needs1, bool needs2) {
  BoxIouParams params = make_params(boxes1, boxes2, {grad, "grad"}, kind, epsilon);
  check_same_dtype({grad, "grad"}, {boxes1, "boxes1"});
  if (needs1) check_gradient({grad_boxes1, "grad_boxes1"}, {boxes1, "boxes1"});
  if (needs2) check_gradient({grad_boxes2, "grad_boxes2"}, {boxes2, "boxes2"});
  check_shape({workspace, "workspace"}, {box_iou_workspace(params.batch, params.rows, params.columns)}, "(size)");
  check_same_dtype({workspace, "workspace"}, {boxes1, "boxes1"});
  check_same_device({workspace, "workspace"}, {boxes1, "boxes1"});
  check_contiguous({workspace, "workspace"});
  params.grad_boxes1 = needs1 ? grad_boxes1.data : nullptr;
  params.grad_boxes2 = needs2 ? grad_boxes2.data : nullptr;
  params.workspace = workspace.data;
  for (int i = 0; i < 3; ++i)
    params.grad_strides[i] = grad.rank == 3 ? grad.strides[i] : i > 0 ? grad.strides[i - 1] : 0;
  if (boxes1.elements() + boxes2.elements() == 0) return;
  FASTCV_RUN(box_iou_backward, params, boxes1);
}

}  // namespace

void bind_box_iou(py::module_& module) {
  module.def("box_iou_forward", &box_iou_forward);
  module.def("box_iou_workspace", &box_iou_workspace);
  module.def("box_iou_backward", &box_iou_backward);
}

}  // namespace fastcv

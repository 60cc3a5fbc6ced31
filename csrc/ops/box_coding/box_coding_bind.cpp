#include "core/dispatch.h"
#include "core/tensor.h"
#include "ops/box_coding/box_coding.h"

namespace py = pybind11;

namespace fastcv {
namespace {

// Rows of 4 * classes that go with `rows` (a tensor of the call already checked).
void check_rows(Argument argument, Argument rows, int64_t classes, const char* meaning) {
  check_shape(argument, {rows.view.shape[0], 4 * classes}, meaning);
  check_same_dtype(argument, rows);
  check_same_device(argument, rows);
  check_contiguous(argument);
}

void check_first(Argument argument) {
  check_floating(argument);
  check_contiguous(argument);
}

BoxCoding make_coding(double x, double y, double w, double h, double clip) {
  return {{x, y, w, h}, clip};
}

EncodeBoxesParams encode_params(const TensorView& deltas, const TensorView& reference, const TensorView& proposals,
                                const BoxCoding& coding) {
  check_shape({reference, "reference_boxes"}, {kAny, 4}, "(N, 4)");
  check_first({reference, "reference_boxes"});
  check_rows({proposals, "proposals"}, {reference, "reference_boxes"}, 1, "(N, 4)");
  check_rows({deltas, "deltas"}, {reference, "reference_boxes"}, 1, "(N, 4)");
  EncodeBoxesParams params{};
  params.reference = reference.data;
  params.proposals = proposals.data;
  params.deltas = deltas.data;
  params.dtype = reference.dtype;
  params.count = reference.shape[0];
  params.coding = coding;
  return params;
}

void encode_boxes_forward(const TensorView& deltas, const TensorView& reference, const TensorView& proposals, double wx,
                          double wy, double ww, double wh) {
  const EncodeBoxesParams params = encode_params(deltas, reference, proposals, make_coding(wx, wy, ww, wh, 0));
  if (params.count == 0) return;
  FASTCV_RUN(encode_boxes_forward, params, reference);
}

void encode_boxes_backward(const TensorView& grad_reference, const TensorView& grad_proposals, const TensorView& grad,
                           const TensorView& reference, const TensorView& proposals, double wx, double wy, double ww,
                           double wh) {
  EncodeBoxesParams params = encode_params(grad, reference, proposals, make_coding(wx, wy, ww, wh, 0));
  check_rows({grad_reference, "grad_reference_boxes"}, {reference, "reference_boxes"}, 1, "(N, 4)");
  check_rows({grad_proposals, "grad_proposals"}, {reference, "reference_boxes"}, 1, "(N, 4)");
  params.grad_reference = grad_reference.data;
  params.grad_proposals = grad_proposals.data;
  if (params.count == 0) return;
  FASTCV_RUN(encode_boxes_backward, params, reference);
}

DecodeBoxesParams decode_params(const TensorView& decoded, const TensorView& deltas, const TensorView& boxes,
                                const BoxCoding& coding) {
  check_shape({deltas, "deltas"}, {kAny, kAny}, "(N, 4 C)");
  if (deltas.shape[1] % 4 != 0) {
    throw py::value_error("deltas must have shape (N, 4 C), got " + std::to_string(deltas.shape[1]) + " columns");
  }
  check_first({deltas, "deltas"});
  check_rows({boxes, "boxes"}, {deltas, "deltas"}, 1, "(N, 4)");
  check_rows({decoded, "decoded"}, {deltas, "deltas"}, deltas.shape[1] / 4, "(N, 4 C)");
  if (deltas.elements() / 4 > 0x7fffffff) {
    throw py::value_error("deltas must be fewer than 2^31 boxes, got " + std::to_string(deltas.elements() / 4));
  }
  DecodeBoxesParams params{};
  params.deltas = deltas.data;
  params.boxes = boxes.data;
  params.decoded = decoded.data;
  params.dtype = deltas.dtype;
  params.count = deltas.shape[0];
  params.classes = deltas.shape[1] / 4;
  params.coding = coding;
  return params;
}

void decode_boxes_forward(const TensorView& decoded, const TensorView& deltas, const TensorView& boxes, double wx,
                          double wy, double ww, double wh, double clip) {
  const DecodeBoxesParams params = decode_params(decoded, deltas, boxes, make_coding(wx, wy, ww, wh, clip));
  if (params.count * params.classes == 0) return;
  FASTCV_RUN(decode_boxes_forward, params, deltas);
}

void decode_boxes_backward(const TensorView& grad_deltas, const TensorView& grad_boxes, const TensorView& grad,
                           const TensorView& deltas, const TensorView& boxes, double wx, double wy, double ww,
                           double wh, double clip) {
  DecodeBoxesParams params = decode_params(grad, deltas, boxes, make_coding(wx, wy, ww, wh, clip));
  check_rows({grad_deltas, "grad_deltas"}, {deltas, "deltas"}, params.classes, "(N, 4 C)");
  check_rows({grad_boxes, "grad_boxes"}, {deltas, "deltas"}, 1, "(N, 4)");
  params.grad_deltas = grad_deltas.data;
  params.grad_boxes = grad_boxes.data;
  if (params.count == 0) return;
  FASTCV_RUN(decode_boxes_backward, params, deltas);
}

}  // namespace

void bind_box_coding(py::module_& module) {
  module.def("encode_boxes_forward", &encode_boxes_forward);
  module.def("encode_boxes_backward", &encode_boxes_backward);
  module.def("decode_boxes_forward", &decode_boxes_forward);
  module.def("decode_boxes_backward", &decode_boxes_backward);
}

}  // namespace fastcv

#include "core/dispatch.h"
#include "ops/box_coding/box_coding.h"

namespace py = pybind11;

namespace fastcv {
namespace {

// The arguments as kernels read them; `params` points into them.
struct Encoding {
  TensorView reference, proposals;
  EncodeBoxesParams params;
};

Encoding checked_encoding(const TensorView& reference, const TensorView& proposals, const BoxCoding& coding) {
  const Argument first{reference, "reference_boxes"};
  check_shape(first, {kAny, 4}, "(N, 4)");
  check_floating(first);
  Encoding made{
      contiguous(reference), checked_like({proposals, "proposals"}, {reference.shape[0], 4}, "(N, 4)", first), {}};
  made.params.reference = made.reference.data;
  made.params.proposals = made.proposals.data;
  made.params.dtype = reference.dtype;
  made.params.count = reference.shape[0];
  made.params.coding = coding;
  return made;
}

py::object encode_boxes(const TensorView& reference_boxes, const TensorView& proposals, double weight_x,
                        double weight_y, double weight_w, double weight_h) {
  Encoding made = checked_encoding(reference_boxes, proposals, {{weight_x, weight_y, weight_w, weight_h}, 0});
  NewTensor deltas = new_like(reference_boxes);
  made.params.deltas = deltas.view.data;
  if (made.params.count > 0) FASTCV_RUN(encode_boxes_forward, made.params, reference_boxes);
  return std::move(deltas.object);
}

py::tuple encode_boxes_backward(const TensorView& grad_output, const TensorView& reference_boxes,
                                const TensorView& proposals, double weight_x, double weight_y, double weight_w,
                                double weight_h) {
  Encoding made = checked_encoding(reference_boxes, proposals, {{weight_x, weight_y, weight_w, weight_h}, 0});
  const TensorView grad = checked_like({grad_output, "grad_output"}, {made.params.count, 4}, "(N, 4)",
                                       {reference_boxes, "reference_boxes"});
  const NewTensor grad_reference = new_like(reference_boxes), grad_proposals = new_like(proposals);
  made.params.deltas = grad.data;
  made.params.grad_reference = grad_reference.view.data;
  made.params.grad_proposals = grad_proposals.view.data;
  if (made.params.count > 0) FASTCV_RUN(encode_boxes_backward, made.params, reference_boxes);
  return py::make_tuple(grad_reference.object, grad_proposals.object);
}

struct Decoding {
  TensorView deltas, boxes;
  DecodeBoxesParams params;
};

Decoding checked_decoding(const TensorView& deltas, const TensorView& boxes, const BoxCoding& coding) {
  const Argument first{deltas, "deltas"};
  if (deltas.rank != 2 || deltas.shape[1] % 4 != 0) refuse("deltas", "have shape (N, 4 C)", describe_shape(deltas));
  check_floating(first);
  check_fewer("deltas", "boxes", deltas.elements() / 4, int64_t{1} << 31);
  Decoding made{contiguous(deltas), checked_like({boxes, "boxes"}, {deltas.shape[0], 4}, "(N, 4)", first), {}};
  made.params.deltas = made.deltas.data;
  made.params.boxes = made.boxes.data;
  made.params.dtype = deltas.dtype;
  made.params.count = deltas.shape[0];
  made.params.classes = deltas.shape[1] / 4;
  made.params.coding = coding;
  return made;
}

py::object decode_boxes(const TensorView& deltas, const TensorView& boxes, double weight_x, double weight_y,
                        double weight_w, double weight_h, double clip) {
  Decoding made = checked_decoding(deltas, boxes, {{weight_x, weight_y, weight_w, weight_h}, clip});
  NewTensor decoded = new_like(deltas);
  made.params.decoded = decoded.view.data;
  if (deltas.elements() > 0) FASTCV_RUN(decode_boxes_forward, made.params, deltas);
  return std::move(decoded.object);
}

py::tuple decode_boxes_backward(const TensorView& grad_output, const TensorView& deltas, const TensorView& boxes,
                                double weight_x, double weight_y, double weight_w, double weight_h, double clip) {
  Decoding made = checked_decoding(deltas, boxes, {{weight_x, weight_y, weight_w, weight_h}, clip});
  const TensorView grad =
      checked_like({grad_output, "grad_output"}, {deltas.shape[0], deltas.shape[1]}, "(N, 4 C)", {deltas, "deltas"});
  const NewTensor grad_deltas = new_like(deltas), grad_boxes = new_like(boxes);
  made.params.decoded = grad.data;
  made.params.grad_deltas = grad_deltas.view.data;
  made.params.grad_boxes = grad_boxes.view.data;
  if (made.params.count > 0) FASTCV_RUN(decode_boxes_backward, made.params, deltas);
  return py::make_tuple(grad_deltas.object, grad_boxes.object);
}

}  // namespace

void bind_box_coding(py::module_& module) {
  module.def("encode_boxes", &encode_boxes);
  module.def("encode_boxes_backward", &encode_boxes_backward);
  module.def("decode_boxes", &decode_boxes);
  module.def("decode_boxes_backward", &decode_boxes_backward);
}

}  // namespace fastcv

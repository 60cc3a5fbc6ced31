#include "core/dispatch.h"
#include "ops/sigmoid_focal_loss/sigmoid_focal_loss.h"

namespace py = pybind11;

namespace fastcv {
namespace {

// Logits and labels as the kernels read them: contiguous and of one dtype, that of the loss.
struct Logits {
  Logits(const TensorView& given_inputs, const TensorView& given_targets) {
    check_floating({given_inputs, "inputs"});
    check_floating({given_targets, "targets"});
    check_same_shape({given_targets, "targets"}, {given_inputs, "inputs"});
    check_same_device({given_targets, "targets"}, {given_inputs, "inputs"});
    dtype = promoted(given_inputs.dtype, given_targets.dtype);
    inputs = converted(given_inputs, dtype);
    targets = converted(given_targets, dtype);
  }

  DType dtype;
  TensorView inputs, targets;
};

SigmoidFocalLossParams make_params(const Logits& logits, const TensorView& loss, double alpha, double gamma) {
  if (!((alpha >= 0 && alpha <= 1) || alpha == -1)) {
    refuse("alpha", "be in [0, 1], or -1 for no weights", py::str(py::float_(alpha)));
  }
  if (!(gamma >= 0)) refuse("gamma", "not be negative", py::str(py::float_(gamma)));
  SigmoidFocalLossParams params{};
  params.inputs = logits.inputs.data;
  params.targets = logits.targets.data;
  params.loss = loss.data;
  params.dtype = logits.dtype;
  params.count = loss.elements();
  params.alpha = alpha;
  params.gamma = gamma;
  return params;
}

py::object sigmoid_focal_loss(const TensorView& inputs, const TensorView& targets, double alpha, double gamma) {
  const Logits logits(inputs, targets);
  NewTensor loss = new_like(logits.inputs);
  const SigmoidFocalLossParams params = make_params(logits, loss.view, alpha, gamma);
  if (params.count > 0) FASTCV_RUN(sigmoid_focal_loss_forward, params, inputs);
  return std::move(loss.object);
}

py::tuple sigmoid_focal_loss_backward(const TensorView& grad, const TensorView& inputs, const TensorView& targets,
                                      double alpha, double gamma, bool needs_inputs, bool needs_targets) {
  const Logits logits(inputs, targets);
  check_same_shape({grad, "grad"}, {inputs, "inputs"});
  check_same_dtype({grad, "grad"}, {logits.inputs, "the loss"});
  check_same_device({grad, "grad"}, {inputs, "inputs"});
  // The gradient of a mean or a sum is one number, seen through strides of zero.
  int64_t step = 1;
  const TensorView arrived = evenly_spaced(grad, step);
  SigmoidFocalLossParams params = make_params(logits, arrived, alpha, gamma);
  NewTensor grad_inputs, grad_targets;
  if (needs_inputs) grad_inputs = new_like(logits.inputs);
  if (needs_targets) grad_targets = new_like(logits.targets);
  params.grad_stride = step;
  params.grad_inputs = grad_inputs.view.data;
  params.grad_targets = grad_targets.view.data;
  if (params.count > 0) FASTCV_RUN(sigmoid_focal_loss_backward, params, inputs);
  return py::make_tuple(as_gradient_of(inputs, grad_inputs), as_gradient_of(targets, grad_targets));
}

}  // namespace

void bind_sigmoid_focal_loss(py::module_& module) {
  module.def("sigmoid_focal_loss", &sigmoid_focal_loss);
  module.def("sigmoid_focal_loss_backward", &sigmoid_focal_loss_backward);
}

}  // namespace fastcv

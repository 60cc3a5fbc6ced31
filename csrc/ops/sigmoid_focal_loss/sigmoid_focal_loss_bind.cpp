#include "core/dispatch.h"
#include "core/tensor.h"
#include "ops/sigmoid_focal_loss/sigmoid_focal_loss.h"

namespace py = pybind11;

namespace fastcv {
namespace {

void check_like(Argument argument, Argument inputs) {
  bool same = argument.view.rank == inputs.view.rank;
  for (int i = 0; same && i < inputs.view.rank; ++i) same = argument.view.shape[i] == inputs.view.shape[i];
  if (!same) throw py::value_error(std::string(argument.name) + " must have the shape of " + inputs.name);
  check_same_dtype(argument, inputs);
  check_same_device(argument, inputs);
  check_contiguous(argument);
}

SigmoidFocalLossParams make_params(const TensorView& inputs, const TensorView& targets, double alpha, double gamma) {
  check_floating({inputs, "inputs"});
  check_contiguous({inputs, "inputs"});
  check_like({targets, "targets"}, {inputs, "inputs"});
  SigmoidFocalLossParams params{};
  params.inputs = inputs.data;
  params.targets = targets.data;
  params.dtype = inputs.dtype;
  params.count = inputs.elements();
  params.alpha = alpha;
  params.gamma = gamma;
  return params;
}

void sigmoid_focal_loss_forward(const TensorView& output, const TensorView& inputs, const TensorView& targets,
                                double alpha, double gamma) {
  SigmoidFocalLossParams params = make_params(inputs, targets, alpha, gamma);
  check_like({output, "output"}, {inputs, "inputs"});
  params.loss = output.data;
  if (params.count == 0) return;
  FASTCV_RUN(sigmoid_focal_loss_forward, params, output);
}

void sigmoid_focal_loss_backward(const TensorView& grad_inputs, const TensorView& grad_targets, const TensorView& grad,
                                 const TensorView& inputs, const TensorView& targets, double alpha, double gamma,
                                 bool needs_inputs, bool needs_targets) {
  SigmoidFocalLossParams params = make_params(inputs, targets, alpha, gamma);
  check_shape({grad, "grad"}, {params.count}, "(elements,)");
  check_same_dtype({grad, "grad"}, {inputs, "inputs"});
  check_same_device({grad, "grad"}, {inputs, "inputs"});
  if (needs_inputs) check_like({grad_inputs, "grad_inputs"}, {inputs, "inputs"});
  if (needs_targets) check_like({grad_targets, "grad_targets"}, {inputs, "inputs"});
  params.loss = grad.data;
  params.grad_stride = grad.strides[0];
  params.grad_inputs = needs_inputs ? grad_inputs.data : nullptr;
  params.grad_targets = needs_targets ? grad_targets.data : nullptr;
  if (params.count == 0) return;
  FASTCV_RUN(sigmoid_focal_loss_backward, params, inputs);
}

}  // namespace

void bind_sigmoid_focal_loss(py::module_& module) {
  module.def("sigmoid_focal_loss_forward", &sigmoid_focal_loss_forward);
  module.def("sigmoid_focal_loss_backward", &sigmoid_focal_loss_backward);
}

}  // namespace fastcv

#include "core/dispatch.h"
#include "core/position_sensitive_bind.h"
#include "ops/ps_roi_pool/ps_roi_pool.h"

namespace py = pybind11;

namespace fastcv {
namespace {

py::object ps_roi_pool_forward(const TensorView& input, const TensorView& boxes, int64_t pooled_height,
                               int64_t pooled_width, double spatial_scale) {
  const Rois rois({boxes, "boxes"}, {input, "input"});
  NewTensor output = new_pooled({input, "input"}, rois, pooled_height, pooled_width, true);
  const PositionSensitiveParams params = position_sensitive_params(input, output.view, rois.view, spatial_scale);
  if (output.view.elements() > 0) FASTCV_RUN(ps_roi_pool_forward, params, input);
  return std::move(output.object);
}

void ps_roi_pool_backward(const TensorView& grad_input, const TensorView& grad_output, const TensorView& boxes,
                          double spatial_scale) {
  const Rois rois({boxes, "boxes"}, {grad_input, "input"});
  PositionSensitiveParams params = position_sensitive_params(grad_input, grad_output, rois.view, spatial_scale);
  check_dense({grad_input, "grad_input"}, params.feature_strides);
  if (grad_input.elements() == 0) return;
  FASTCV_RUN(ps_roi_pool_backward, params, grad_input);
}

}  // namespace

void bind_ps_roi_pool(py::module_& module) {
  module.def("ps_roi_pool_forward", &ps_roi_pool_forward);
  module.def("ps_roi_pool_backward", &ps_roi_pool_backward);
}

}  // namespace fastcv

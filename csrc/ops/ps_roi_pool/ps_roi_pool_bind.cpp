#include "core/dispatch.h"
#include "families/roi/position_sensitive_bind.h"
#include "ops/ps_roi_pool/ps_roi_pool.h"

namespace py = pybind11;

namespace fastcv {
namespace {

py::object ps_roi_pool(const TensorView& input, const TensorView& boxes, int64_t pooled_height, int64_t pooled_width,
                       double spatial_scale) {
  const TensorView rois = checked_rois({boxes, "boxes"}, {input, "input"});
  NewTensor output = new_pooled({input, "input"}, rois, pooled_height, pooled_width, true);
  RoiParams params = roi_params(input, output.view, rois, spatial_scale);
  if (output.view.elements() > 0) FASTCV_RUN(ps_roi_pool_forward, params, input);
  return std::move(output.object);
}

py::object ps_roi_pool_backward(const TensorView& grad_output, const TensorView& boxes, int64_t batch, int64_t channels,
                                int64_t height, int64_t width, double spatial_scale) {
  const TensorView rois = checked_rois({boxes, "boxes"}, {grad_output, "grad_output"});
  const TensorView pooled = checked_position_sensitive_grad(grad_output, rois, channels);
  NewTensor grad_input = new_dense(grad_output, grad_output.dtype, batch, channels, height, width);
  RoiParams params = roi_params(dense(grad_input.view), pooled, rois, spatial_scale);
  if (grad_input.view.elements() > 0) FASTCV_RUN(ps_roi_pool_backward, params, grad_output);
  return std::move(grad_input.object);
}

}  // namespace

void bind_ps_roi_pool(py::module_& module) {
  module.def("ps_roi_pool", &ps_roi_pool);
  module.def("ps_roi_pool_backward", &ps_roi_pool_backward);
}

}  // namespace fastcv

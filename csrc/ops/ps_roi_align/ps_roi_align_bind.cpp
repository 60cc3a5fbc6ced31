#include "core/dispatch.h"
#include "families/roi/position_sensitive_bind.h"
#include "ops/ps_roi_align/ps_roi_align.h"

namespace py = pybind11;

namespace fastcv {
namespace {

py::object ps_roi_align(const TensorView& input, const TensorView& boxes, int64_t pooled_height, int64_t pooled_width,
                        double spatial_scale, int64_t sampling_ratio) {
  const TensorView rois = checked_rois({boxes, "boxes"}, {input, "input"});
  check_sampling_ratio(sampling_ratio);
  NewTensor output = new_pooled({input, "input"}, rois, pooled_height, pooled_width, true);
  RoiParams params = roi_params(input, output.view, rois, spatial_scale);
  params.sampling.sampling_ratio = sampling_ratio;
  if (output.view.elements() > 0) FASTCV_RUN(ps_roi_align_forward, params, input);
  return std::move(output.object);
}

py::object ps_roi_align_backward(const TensorView& grad_output, const TensorView& boxes, int64_t batch,
                                 int64_t channels, int64_t height, int64_t width, double spatial_scale,
                                 int64_t sampling_ratio) {
  const TensorView rois = checked_rois({boxes, "boxes"}, {grad_output, "grad_output"});
  check_sampling_ratio(sampling_ratio);
  const TensorView pooled = checked_position_sensitive_grad(grad_output, rois, channels);
  NewTensor grad_input = new_dense(grad_output, grad_output.dtype, batch, channels, height, width);
  RoiParams params = roi_params(dense(grad_input.view), pooled, rois, spatial_scale);
  params.sampling.sampling_ratio = sampling_ratio;
  if (grad_input.view.elements() > 0) FASTCV_RUN(ps_roi_align_backward, params, grad_output);
  return std::move(grad_input.object);
}

}  // namespace

void bind_ps_roi_align(py::module_& module) {
  module.def("ps_roi_align", &ps_roi_align);
  module.def("ps_roi_align_backward", &ps_roi_align_backward);
}

}  // namespace fastcv

#include "core/dispatch.h"
#include "core/position_sensitive_bind.h"
#include "ops/ps_roi_align/ps_roi_align.h"

namespace py = pybind11;

namespace fastcv {
namespace {

PositionSensitiveParams make_params(const TensorView& features, const TensorView& pooled, const TensorView& boxes,
                                    double spatial_scale, int64_t sampling_ratio) {
  PositionSensitiveParams params = position_sensitive_params(features, pooled, boxes, spatial_scale);
  if (sampling_ratio > kMaxRoiGrid) {
    throw py::value_error("sampling_ratio must be at most 65536, got " + std::to_string(sampling_ratio));
  }
  params.sampling.sampling_ratio = sampling_ratio;
  return params;
}

py::object ps_roi_align_forward(const TensorView& input, const TensorView& boxes, int64_t pooled_height,
                                int64_t pooled_width, double spatial_scale, int64_t sampling_ratio) {
  const Rois rois({boxes, "boxes"}, {input, "input"});
  NewTensor output = new_pooled({input, "input"}, rois, pooled_height, pooled_width, true);
  const PositionSensitiveParams params = make_params(input, output.view, rois.view, spatial_scale, sampling_ratio);
  if (output.view.elements() > 0) FASTCV_RUN(ps_roi_align_forward, params, input);
  return std::move(output.object);
}

void ps_roi_align_backward(const TensorView& grad_input, const TensorView& grad_output, const TensorView& boxes,
                           double spatial_scale, int64_t sampling_ratio) {
  const Rois rois({boxes, "boxes"}, {grad_input, "input"});
  PositionSensitiveParams params = make_params(grad_input, grad_output, rois.view, spatial_scale, sampling_ratio);
  check_dense({grad_input, "grad_input"}, params.feature_strides);
  if (grad_input.elements() == 0) return;
  FASTCV_RUN(ps_roi_align_backward, params, grad_input);
}

}  // namespace

void bind_ps_roi_align(py::module_& module) {
  module.def("ps_roi_align_forward", &ps_roi_align_forward);
  module.def("ps_roi_align_backward", &ps_roi_align_backward);
}

}  // namespace fastcv

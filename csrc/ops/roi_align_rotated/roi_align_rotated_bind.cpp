#include "core/dispatch.h"
#include "families/roi/roi_bind.h"
#include "ops/roi_align_rotated/roi_align_rotated.h"

namespace py = pybind11;

namespace fastcv {
namespace {

py::object roi_align_rotated(const TensorView& input, const TensorView& boxes, int64_t pooled_height,
                             int64_t pooled_width, double spatial_scale, int64_t sampling_ratio) {
  const TensorView rois = checked_rois({boxes, "boxes"}, {input, "input"}, kRotatedColumns);
  check_sampling_ratio(sampling_ratio, kMaxRotatedGrid);
  NewTensor output = new_pooled({input, "input"}, rois, pooled_height, pooled_width);
  RoiParams params = roi_params(input, output.view, rois, spatial_scale);
  params.sampling.sampling_ratio = sampling_ratio;
  if (output.view.elements() > 0) FASTCV_RUN(roi_align_rotated_forward, params, input);
  return std::move(output.object);
}

py::object roi_align_rotated_backward(const TensorView& grad_output, const TensorView& boxes, int64_t batch,
                                      int64_t channels, int64_t height, int64_t width, double spatial_scale,
                                      int64_t sampling_ratio) {
  const TensorView rois = checked_rois({boxes, "boxes"}, {grad_output, "grad_output"}, kRotatedColumns);
  check_sampling_ratio(sampling_ratio, kMaxRotatedGrid);
  const TensorView pooled = checked_grad_output(grad_output, rois, channels);
  NewTensor grad_input = new_dense(grad_output, grad_output.dtype, batch, channels, height, width);
  RoiParams params = roi_params(dense(grad_input.view), pooled, rois, spatial_scale);
  params.sampling.sampling_ratio = sampling_ratio;
  if (grad_input.view.elements() > 0) FASTCV_RUN(roi_align_rotated_backward, params, grad_output);
  return std::move(grad_input.object);
}

}  // namespace

void bind_roi_align_rotated(py::module_& module) {
  module.def("roi_align_rotated", &roi_align_rotated);
  module.def("roi_align_rotated_backward", &roi_align_rotated_backward);
}

}  // namespace fastcv

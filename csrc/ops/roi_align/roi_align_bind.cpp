#include "core/dispatch.h"
#include "core/roi_bind.h"
#include "ops/roi_align/roi_align.h"

namespace py = pybind11;

namespace fastcv {
namespace {

RoiPyramid make_params(const TensorView& features, const TensorView& pooled, const TensorView& boxes,
                       double spatial_scale, int64_t sampling_ratio, bool aligned) {
  check_shape({pooled, "output"}, {boxes.shape[0], features.shape[1], kAny, kAny}, "(K, C, P, Q)");
  check_same_dtype({pooled, "output"}, {features, "input"});
  check_same_device({pooled, "output"}, {features, "input"});
  if (sampling_ratio > kMaxRoiGrid) {
    throw py::value_error("sampling_ratio must be at most 65536, got " + std::to_string(sampling_ratio));
  }
  RoiPyramid params{};
  params.level_count = 1;
  RoiLevel& level = params.levels[0];
  level.features = features.data;
  level.height = features.shape[2];
  level.width = features.shape[3];
  level.spatial_scale = spatial_scale;
  params.pooled = pooled.data;
  params.boxes = boxes.data;
  params.dtype = features.dtype;
  params.batch = features.shape[0];
  params.channels = features.shape[1];
  params.rois = boxes.shape[0];
  params.sampling = {pooled.shape[2], pooled.shape[3], sampling_ratio, aligned};
  for (int i = 0; i < 4; ++i) {
    level.strides[i] = features.strides[i];
    params.pooled_strides[i] = pooled.strides[i];
  }
  return params;
}

py::object roi_align_forward(const TensorView& input, const TensorView& boxes, int64_t pooled_height,
                             int64_t pooled_width, double spatial_scale, int64_t sampling_ratio, bool aligned) {
  const Rois rois({boxes, "boxes"}, {input, "input"});
  NewTensor output = new_pooled({input, "input"}, rois, pooled_height, pooled_width);
  const RoiPyramid params = make_params(input, output.view, rois.view, spatial_scale, sampling_ratio, aligned);
  if (output.view.elements() > 0) FASTCV_RUN(roi_align_forward, params, input);
  return std::move(output.object);
}

void roi_align_backward(const TensorView& grad_input, const TensorView& grad_output, const TensorView& boxes,
                        double spatial_scale, int64_t sampling_ratio, bool aligned) {
  const Rois rois({boxes, "boxes"}, {grad_input, "input"});
  RoiPyramid params = make_params(grad_input, grad_output, rois.view, spatial_scale, sampling_ratio, aligned);
  check_dense({grad_input, "grad_input"}, params.levels[0].strides);
  check_dense({grad_output, "grad_output"}, params.pooled_strides);
  if (grad_input.elements() == 0) return;
  FASTCV_RUN(roi_align_backward, params, grad_input);
}

}  // namespace

void bind_roi_align(py::module_& module) {
  module.def("roi_align_forward", &roi_align_forward);
  module.def("roi_align_backward", &roi_align_backward);
}

}  // namespace fastcv

#include "core/dispatch.h"
#include "families/roi/roi_bind.h"
#include "ops/roi_align/roi_align.h"

namespace py = pybind11;

namespace fastcv {
namespace {

RoiLevel make_level(const TensorView& features, double spatial_scale) {
  RoiLevel level{features.data, features.shape[2], features.shape[3], {}, spatial_scale};
  for (int i = 0; i < 4; ++i) level.strides[i] = features.strides[i];
  return level;
}

// All but the levels; `features` is any of them.
RoiPyramid make_pyramid(const TensorView& features, const TensorView& rois, const TensorView& pooled,
                        int64_t sampling_ratio, bool aligned) {
  check_sampling_ratio(sampling_ratio);
  RoiPyramid params{};
  params.level_count = 1;
  params.pooled = pooled.data;
  params.boxes = rois.data;
  params.dtype = features.dtype;
  params.batch = features.shape[0];
  params.channels = features.shape[1];
  params.rois = rois.shape[0];
  params.sampling = {pooled.shape[2], pooled.shape[3], sampling_ratio, aligned};
  for (int i = 0; i < 4; ++i) params.pooled_strides[i] = pooled.strides[i];
  return params;
}

// Runs the backward; on CUDA with its workspace, which lives as long as the call.
void run_backward(RoiPyramid& params, const TensorView& grad_output) {
  NewTensor workspace;
  if (!runs_on_cpu(grad_output)) {
    workspace = new_workspace(grad_output, roi_workspace_bytes(params));
    params.workspace = workspace.view.data;
  }
  FASTCV_RUN(roi_align_backward, params, grad_output);
}

py::object roi_align(const TensorView& input, const TensorView& boxes, int64_t pooled_height, int64_t pooled_width,
                     double spatial_scale, int64_t sampling_ratio, bool aligned) {
  const TensorView rois = checked_rois({boxes, "boxes"}, {input, "input"});
  NewTensor output = new_pooled({input, "input"}, rois, pooled_height, pooled_width);
  RoiPyramid params = make_pyramid(input, rois, output.view, sampling_ratio, aligned);
  params.levels[0] = make_level(input, spatial_scale);
  if (output.view.elements() > 0) FASTCV_RUN(roi_align_forward, params, input);
  return std::move(output.object);
}

py::object roi_align_backward(const TensorView& grad_output, const TensorView& boxes, int64_t batch, int64_t channels,
                              int64_t height, int64_t width, double spatial_scale, int64_t sampling_ratio,
                              bool aligned) {
  const TensorView rois = checked_rois({boxes, "boxes"}, {grad_output, "grad_output"});
  const TensorView pooled = checked_grad_output(grad_output, rois, channels);
  NewTensor grad_input = new_dense(grad_output, grad_output.dtype, batch, channels, height, width);
  RoiPyramid params = make_pyramid(grad_input.view, rois, pooled, sampling_ratio, aligned);
  params.levels[0] = make_level(dense(grad_input.view), spatial_scale);
  if (grad_input.view.elements() > 0) run_backward(params, grad_output);
  return std::move(grad_input.object);
}

void check_levels(int levels, const Floats& scales) {
  if (levels < 1 || levels > kMaxRoiLevels) refuse("features", "hold 1 to 8 tensors", std::to_string(levels));
  if (scales.count != levels) {
    refuse("scales", "hold one number per level, " + std::to_string(levels), std::to_string(scales.count));
  }
}

py::object multiscale_roi_align(const TensorList& features, const TensorView& boxes, int64_t pooled_height,
                                int64_t pooled_width, const Floats& scales, int64_t sampling_ratio, bool aligned,
                                double canonical_scale, int64_t canonical_level, int64_t min_level, int64_t max_level) {
  check_levels(features.count, scales);
  const Argument first{features.views[0], "features[0]"};
  const TensorView rois = checked_rois({boxes, "boxes"}, first);
  NewTensor output = new_pooled(first, rois, pooled_height, pooled_width);
  RoiPyramid params = make_pyramid(first.view, rois, output.view, sampling_ratio, aligned);
  params.level_count = features.count;
  for (int l = 0; l < features.count; ++l) {
    const std::string name = "features[" + std::to_string(l) + "]";
    const Argument map{features.views[l], name.c_str()};
    check_shape(map, {params.batch, params.channels, kAny, kAny}, "(N, C, H, W)");
    check_same_dtype(map, first);
    check_same_device(map, first);
    params.levels[l] = make_level(map.view, scales[l]);
  }
  params.canonical_scale = canonical_scale;
  params.canonical_level = canonical_level;
  params.min_level = min_level;
  params.max_level = max_level;
  if (output.view.elements() > 0) FASTCV_RUN(roi_align_forward, params, first.view);
  return std::move(output.object);
}

py::object multiscale_roi_align_backward(const TensorView& grad_output, const TensorView& boxes, int64_t batch,
                                         int64_t channels, const Ints& heights, const Ints& widths,
                                         const Floats& scales, int64_t sampling_ratio, bool aligned,
                                         double canonical_scale, int64_t canonical_level, int64_t min_level,
                                         int64_t max_level) {
  check_levels(heights.count, scales);
  const TensorView rois = checked_rois({boxes, "boxes"}, {grad_output, "grad_output"});
  const TensorView pooled = checked_grad_output(grad_output, rois, channels);
  RoiPyramid params{};
  py::list gradients;
  int64_t elements = 0;
  for (int l = 0; l < heights.count; ++l) {
    const NewTensor gradient = new_dense(grad_output, grad_output.dtype, batch, channels, heights[l], widths[l]);
    if (l == 0) params = make_pyramid(gradient.view, rois, pooled, sampling_ratio, aligned);
    params.levels[l] = make_level(dense(gradient.view), scales[l]);
    elements += gradient.view.elements();
    gradients.append(gradient.object);
  }
  params.level_count = heights.count;
  params.canonical_scale = canonical_scale;
  params.canonical_level = canonical_level;
  params.min_level = min_level;
  params.max_level = max_level;
  if (elements > 0) run_backward(params, grad_output);
  return std::move(gradients);
}

}  // namespace

void bind_roi_align(py::module_& module) {
  module.def("roi_align", &roi_align);
  module.def("roi_align_backward", &roi_align_backward);
  module.def("multiscale_roi_align", &multiscale_roi_align);
  module.def("multiscale_roi_align_backward", &multiscale_roi_align_backward);
}

}  // namespace fastcv

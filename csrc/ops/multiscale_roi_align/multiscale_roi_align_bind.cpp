#include <pybind11/stl.h>

#include <vector>

#include "core/dispatch.h"
#include "core/roi_bind.h"
#include "ops/multiscale_roi_align/multiscale_roi_align.h"

namespace py = pybind11;

namespace fastcv {
namespace {

using Tensors = std::vector<TensorView>;

// One of the maps, under the name the user knows it by.
struct Name {
  Name(const char* list, size_t level) : text(std::string(list) + "[" + std::to_string(level) + "]") {}
  std::string text;
};

Rois rois_of(const TensorView& boxes, const Tensors& features, const char* list) {
  if (features.empty() || features.size() > kMaxRoiLevels) {
    throw py::value_error(std::string(list) + " must hold 1 to 8 tensors, got " + std::to_string(features.size()));
  }
  return Rois({boxes, "boxes"}, {features[0], Name(list, 0).text.c_str()});
}

RoiPyramid make_params(const Tensors& features, const char* list, const TensorView& pooled, const Rois& rois,
                       const std::vector<double>& scales, int64_t sampling_ratio, bool aligned, double canonical_scale,
                       int64_t canonical_level, int64_t min_level, int64_t max_level) {
  if (scales.size() != features.size()) {
    throw py::value_error("scales must hold one number per level, " + std::to_string(features.size()) + ", got " +
                          std::to_string(scales.size()));
  }
  const Name first(list, 0);
  const Argument reference{features[0], first.text.c_str()};
  RoiPyramid params{};
  params.level_count = static_cast<int>(features.size());
  for (size_t l = 0; l < features.size(); ++l) {
    const Name name(list, l);
    const Argument map{features[l], name.text.c_str()};
    if (l > 0) {
      check_shape(map, {features[0].shape[0], features[0].shape[1], kAny, kAny}, "(N, C, H, W)");
      check_same_dtype(map, reference);
      check_same_device(map, reference);
    }
    RoiLevel& level = params.levels[l];
    level.features = features[l].data;
    level.height = features[l].shape[2];
    level.width = features[l].shape[3];
    level.spatial_scale = scales[l];
    for (int i = 0; i < 4; ++i) level.strides[i] = features[l].strides[i];
  }
  check_shape({pooled, "output"}, {rois.view.shape[0], features[0].shape[1], kAny, kAny}, "(K, C, P, Q)");
  check_same_dtype({pooled, "output"}, reference);
  check_same_device({pooled, "output"}, reference);
  if (sampling_ratio > kMaxRoiGrid) {
    throw py::value_error("sampling_ratio must be at most 65536, got " + std::to_string(sampling_ratio));
  }
  params.pooled = pooled.data;
  params.boxes = rois.view.data;
  params.dtype = features[0].dtype;
  params.batch = features[0].shape[0];
  params.channels = features[0].shape[1];
  params.rois = rois.view.shape[0];
  params.sampling = {pooled.shape[2], pooled.shape[3], sampling_ratio, aligned};
  params.canonical_scale = canonical_scale;
  params.canonical_level = canonical_level;
  params.min_level = min_level;
  params.max_level = max_level;
  return params;
}

void multiscale_roi_align_forward(const TensorView& output, const Tensors& features, const TensorView& boxes,
                                  const std::vector<double>& scales, int64_t sampling_ratio, bool aligned,
                                  double canonical_scale, int64_t canonical_level, int64_t min_level,
                                  int64_t max_level) {
  const Rois rois = rois_of(boxes, features, "features");
  RoiPyramid params = make_params(features, "features", output, rois, scales, sampling_ratio, aligned, canonical_scale,
                                  canonical_level, min_level, max_level);
  check_dense({output, "output"}, params.pooled_strides);
  if (output.elements() == 0) return;
  FASTCV_RUN(multiscale_roi_align_forward, params, output);
}

void multiscale_roi_align_backward(const Tensors& grad_features, const TensorView& grad_output, const TensorView& boxes,
                                   const std::vector<double>& scales, int64_t sampling_ratio, bool aligned,
                                   double canonical_scale, int64_t canonical_level, int64_t min_level,
                                   int64_t max_level) {
  const Rois rois = rois_of(boxes, grad_features, "grad_features");
  RoiPyramid params = make_params(grad_features, "grad_features", grad_output, rois, scales, sampling_ratio, aligned,
                                  canonical_scale, canonical_level, min_level, max_level);
  int64_t elements = 0;
  for (size_t l = 0; l < grad_features.size(); ++l) {
    check_dense({grad_features[l], Name("grad_features", l).text.c_str()}, params.levels[l].strides);
    elements += grad_features[l].elements();
  }
  check_dense({grad_output, "grad_output"}, params.pooled_strides);
  if (elements == 0) return;
  FASTCV_RUN(multiscale_roi_align_backward, params, grad_output);
}

}  // namespace

void bind_multiscale_roi_align(py::module_& module) {
  module.def("multiscale_roi_align_forward", &multiscale_roi_align_forward);
  module.def("multiscale_roi_align_backward", &multiscale_roi_align_backward);
}

}  // namespace fastcv

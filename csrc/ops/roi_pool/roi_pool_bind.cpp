#include "core/dispatch.h"
#include "core/roi_bind.h"
#include "ops/roi_pool/roi_pool.h"

namespace py = pybind11;

namespace fastcv {
namespace {

RoiPoolParams make_params(const TensorView& features, const TensorView& pooled, const TensorView* argmax,
                          const TensorView& boxes, double spatial_scale) {
  check_shape({pooled, "output"}, {boxes.shape[0], features.shape[1], kAny, kAny}, "(K, C, P, Q)");
  check_same_dtype({pooled, "output"}, {features, "input"});
  check_same_device({pooled, "output"}, {features, "input"});
  if (features.shape[2] * features.shape[3] > INT32_MAX) {
    throw py::value_error("input must have at most 2^31 - 1 pixels, got " +
                          std::to_string(features.shape[2] * features.shape[3]));
  }
  RoiPoolParams params{};
  check_dense({pooled, "output"}, params.pooled_strides);
  if (argmax != nullptr) {
    check_shape({*argmax, "argmax"}, {pooled.shape[0], pooled.shape[1], pooled.shape[2], pooled.shape[3]},
                "(K, C, P, Q)");
    check_dtype({*argmax, "argmax"}, DType::kInt32);
    check_same_device({*argmax, "argmax"}, {features, "input"});
    for (int i = 0; i < 4; ++i) {
      if (argmax->shape[i] == 1 || argmax->strides[i] == params.pooled_strides[i]) continue;
      if (argmax->elements() > 0) throw py::value_error("argmax must have the strides of output");
    }
    params.argmax = static_cast<int32_t*>(argmax->data);
  }
  params.features = features.data;
  params.pooled = pooled.data;
  params.boxes = boxes.data;
  params.dtype = features.dtype;
  params.batch = features.shape[0];
  params.channels = features.shape[1];
  params.height = features.shape[2];
  params.width = features.shape[3];
  params.rois = boxes.shape[0];
  params.pooled_height = pooled.shape[2];
  params.pooled_width = pooled.shape[3];
  params.spatial_scale = spatial_scale;
  for (int i = 0; i < 4; ++i) params.feature_strides[i] = features.strides[i];
  return params;
}

py::object roi_pool_forward(const TensorView& input, const TensorView& boxes, int64_t pooled_height,
                            int64_t pooled_width, double spatial_scale, bool with_argmax) {
  const Rois rois({boxes, "boxes"}, {input, "input"});
  NewTensor output = new_pooled({input, "input"}, rois, pooled_height, pooled_width), argmax;
  const int64_t* shape = output.view.shape;
  if (with_argmax) argmax = new_dense(output.view, DType::kInt32, shape[0], shape[1], shape[2], shape[3]);
  const RoiPoolParams params =
      make_params(input, output.view, with_argmax ? &argmax.view : nullptr, rois.view, spatial_scale);
  if (output.view.elements() > 0) FASTCV_RUN(roi_pool_forward, params, input);
  if (with_argmax) return py::make_tuple(output.object, argmax.object);
  return py::make_tuple(output.object);
}

void roi_pool_backward(const TensorView& grad_input, const TensorView& grad_output, const TensorView& argmax,
                       const TensorView& boxes, double spatial_scale) {
  const Rois rois({boxes, "boxes"}, {grad_input, "input"});
  RoiPoolParams params = make_params(grad_input, grad_output, &argmax, rois.view, spatial_scale);
  check_dense({grad_input, "grad_input"}, params.feature_strides);
  if (grad_input.elements() == 0) return;
  FASTCV_RUN(roi_pool_backward, params, grad_input);
}

}  // namespace

void bind_roi_pool(py::module_& module) {
  module.def("roi_pool_forward", &roi_pool_forward);
  module.def("roi_pool_backward", &roi_pool_backward);
}

}  // namespace fastcv

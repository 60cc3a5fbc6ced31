#include "core/dispatch.h"
#include "families/roi/roi_bind.h"
#include "ops/roi_pool/roi_pool.h"

namespace py = pybind11;

namespace fastcv {
namespace {

// `pooled` has the strides of a dense layout, and `argmax`, where there is one, has the same.
RoiPoolParams make_params(const TensorView& features, const TensorView& pooled, const TensorView* argmax,
                          const TensorView& rois, double spatial_scale) {
  const int64_t pixels = multiply_sizes(features.shape[2], features.shape[3]);
  check_fewer("input", "pixels", pixels, int64_t{1} << 31);
  RoiPoolParams params{};
  params.features = features.data;
  params.pooled = pooled.data;
  params.argmax = argmax != nullptr ? argmax->as<int32_t>() : nullptr;
  params.boxes = rois.data;
  params.dtype = features.dtype;
  params.batch = features.shape[0];
  params.channels = features.shape[1];
  params.height = features.shape[2];
  params.width = features.shape[3];
  params.rois = rois.shape[0];
  params.pooled_height = pooled.shape[2];
  params.pooled_width = pooled.shape[3];
  params.spatial_scale = spatial_scale;
  for (int i = 0; i < 4; ++i) {
    params.feature_strides[i] = features.strides[i];
    params.pooled_strides[i] = pooled.strides[i];
  }
  return params;
}

// Output, and argmax unless a null pointer is given.
NewTensor pool(const TensorView& input, const TensorView& boxes, int64_t height, int64_t width, double spatial_scale,
               NewTensor* argmax) {
  const TensorView rois = checked_rois({boxes, "boxes"}, {input, "input"});
  NewTensor output = new_pooled({input, "input"}, rois, height, width);
  const int64_t* shape = output.view.shape;
  if (argmax != nullptr) *argmax = new_dense(output.view, DType::kInt32, shape[0], shape[1], shape[2], shape[3]);
  const RoiPoolParams params =
      make_params(input, dense(output.view), argmax != nullptr ? &argmax->view : nullptr, rois, spatial_scale);
  if (output.view.elements() > 0) FASTCV_RUN(roi_pool_forward, params, input);
  return output;
}

py::tuple roi_pool(const TensorView& input, const TensorView& boxes, int64_t pooled_height, int64_t pooled_width,
                   double spatial_scale) {
  NewTensor argmax;
  const NewTensor output = pool(input, boxes, pooled_height, pooled_width, spatial_scale, &argmax);
  return py::make_tuple(output.object, argmax.object);
}

// Without argmax, which only gradients need.
py::tuple roi_pool_values(const TensorView& input, const TensorView& boxes, int64_t pooled_height, int64_t pooled_width,
                          double spatial_scale) {
  return py::make_tuple(pool(input, boxes, pooled_height, pooled_width, spatial_scale, nullptr).object);
}

py::object roi_pool_backward(const TensorView& grad_output, const TensorView& boxes, const TensorView& argmax,
                             int64_t batch, int64_t channels, int64_t height, int64_t width, double spatial_scale) {
  const TensorView rois = checked_rois({boxes, "boxes"}, {grad_output, "grad_output"});
  const TensorView pooled = checked_grad_output(grad_output, rois, channels);
  const int64_t* shape = pooled.shape;
  check_shape({argmax, "argmax"}, {shape[0], shape[1], shape[2], shape[3]}, "(K, C, P, Q)");
  check_dtype({argmax, "argmax"}, DType::kInt32);
  check_same_device({argmax, "argmax"}, {grad_output, "grad_output"});
  const TensorView where = with_strides_of(argmax, pooled);
  NewTensor grad_input = new_dense(grad_output, grad_output.dtype, batch, channels, height, width);
  const RoiPoolParams params = make_params(dense(grad_input.view), pooled, &where, rois, spatial_scale);
  if (grad_input.view.elements() > 0) FASTCV_RUN(roi_pool_backward, params, grad_output);
  return std::move(grad_input.object);
}

}  // namespace

void bind_roi_pool(py::module_& module) {
  module.def("roi_pool", &roi_pool);
  module.def("roi_pool_values", &roi_pool_values);
  module.def("roi_pool_backward", &roi_pool_backward);
}

}  // namespace fastcv

#include "core/dispatch.h"
#include "core/image_bind.h"
#include "ops/unpool/unpool.h"

namespace py = pybind11;

namespace fastcv {
namespace {

UnpoolParams make_params(Argument small, Argument large, int64_t scale_y, int64_t scale_x, bool nails) {
  check_shape(small, {kAny, kAny, kAny, kAny}, "(N, C, H, W)");
  check_floating(small);
  constexpr int64_t kMost = 0x7fffffff;
  if (scale_y < 1 || scale_x < 1 || scale_y > kMost || scale_x > kMost) {
    throw py::value_error("scale must be positive and below 2^31, got (" + std::to_string(scale_y) + ", " +
                          std::to_string(scale_x) + ")");
  }
  const int64_t* shape = small.view.shape;
  int64_t height, width;
  if (__builtin_mul_overflow(shape[2], scale_y, &height) || __builtin_mul_overflow(shape[3], scale_x, &width)) {
    throw py::value_error("scale gives an image of more than 2^63 pixels a side");
  }
  check_shape(large, {shape[0], shape[1], height, width}, "(N, C, H * scale, W * scale)");
  check_same_dtype(large, small);
  check_same_device(large, small);
  const bool channels_last = shared_layout_is_channels_last({small, large});
  UnpoolParams params{};
  params.small = small.view.data;
  params.large = large.view.data;
  params.dtype = small.view.dtype;
  params.shape = image_shape(small, channels_last);
  image_shape(large, channels_last);  // its limits
  params.scale_y = scale_y;
  params.scale_x = scale_x;
  params.nails = nails;
  return params;
}

void unpool_forward(const TensorView& output, const TensorView& input, int64_t scale_y, int64_t scale_x, bool nails) {
  const UnpoolParams params = make_params({input, "input"}, {output, "output"}, scale_y, scale_x, nails);
  if (output.elements() == 0) return;
  FASTCV_RUN(unpool_forward, params, input);
}

void unpool_backward(const TensorView& grad_input, const TensorView& grad_output, int64_t scale_y, int64_t scale_x,
                     bool nails) {
  const UnpoolParams params =
      make_params({grad_input, "grad_input"}, {grad_output, "grad_output"}, scale_y, scale_x, nails);
  if (grad_input.elements() == 0) return;
  FASTCV_RUN(unpool_backward, params, grad_input);
}

}  // namespace

void bind_unpool(py::module_& module) {
  module.def("unpool_forward", &unpool_forward);
  module.def("unpool_backward", &unpool_backward);
}

}  // namespace fastcv

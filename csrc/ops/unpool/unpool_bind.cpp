#include "core/dispatch.h"
#include "families/image/image_bind.h"
#include "ops/unpool/unpool.h"

namespace py = pybind11;

namespace fastcv {
namespace {

void check_scale(int64_t height, int64_t width) {
  constexpr int64_t kLimit = int64_t{1} << 31;
  if (height >= 1 && width >= 1 && height < kLimit && width < kLimit) return;
  refuse("scale", "be positive and less than 2^31", describe_pair(height, width));
}

UnpoolParams make_params(const TensorView& small, const TensorView& large, ImageShape shape, int64_t scale_y,
                         int64_t scale_x, bool nails) {
  UnpoolParams params{};
  params.small = small.data;
  params.large = large.data;
  params.dtype = small.dtype;
  params.shape = shape;
  params.scale_y = scale_y;
  params.scale_x = scale_x;
  params.nails = nails;
  return params;
}

py::object unpool(const TensorView& input, int64_t scale_height, int64_t scale_width, bool nails) {
  check_shape({input, "input"}, {kAny, kAny, kAny, kAny}, "(N, C, H, W)");
  check_floating({input, "input"});
  check_scale(scale_height, scale_width);
  const bool channels_last = gives_channels_last(input);
  const int64_t sizes[] = {input.shape[0], input.shape[1], multiply_sizes(input.shape[2], scale_height),
                           multiply_sizes(input.shape[3], scale_width)};
  image_shape("output", sizes, channels_last);  // its limits
  const ImageShape shape = image_shape("input", input.shape, channels_last);
  NewTensor output = new_dense(input, input.dtype, sizes);
  const TensorView small = as_images(input);
  const UnpoolParams params = make_params(small, output.view, shape, scale_height, scale_width, nails);
  if (output.view.elements() > 0) FASTCV_RUN(unpool_forward, params, input);
  return std::move(output.object);
}

py::object unpool_backward(const TensorView& grad_output, int64_t scale_height, int64_t scale_width, bool nails) {
  check_scale(scale_height, scale_width);
  const int64_t* large = grad_output.shape;
  if (grad_output.rank != 4 || large[2] % scale_height != 0 || large[3] % scale_width != 0) {
    refuse("grad_output",
           "have shape (N, C, H * " + std::to_string(scale_height) + ", W * " + std::to_string(scale_width) + ")",
           describe_shape(grad_output));
  }
  check_floating({grad_output, "grad_output"});
  const bool channels_last = gives_channels_last(grad_output);
  const int64_t sizes[] = {large[0], large[1], large[2] / scale_height, large[3] / scale_width};
  image_shape("grad_output", large, channels_last);  // its limits
  const ImageShape shape = image_shape("grad_input", sizes, channels_last);
  NewTensor grad_input = new_dense(grad_output, grad_output.dtype, sizes);
  const TensorView source = as_images(grad_output);
  const UnpoolParams params = make_params(grad_input.view, source, shape, scale_height, scale_width, nails);
  if (grad_input.view.elements() > 0) FASTCV_RUN(unpool_backward, params, grad_output);
  return std::move(grad_input.object);
}

}  // namespace

void bind_unpool(py::module_& module) {
  module.def("unpool", &unpool);
  module.def("unpool_backward", &unpool_backward);
}

}  // namespace fastcv

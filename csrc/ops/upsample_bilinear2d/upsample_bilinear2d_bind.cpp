#include "core/dispatch.h"
#include "families/image/image_bind.h"
#include "ops/upsample_bilinear2d/upsample_bilinear2d.h"

namespace py = pybind11;

namespace fastcv {
namespace {

// The input's pixels per output pixel; `given` counts unless it is 0 or corners are aligned.
double step_of(int64_t size, int64_t output, bool align_corners, double given) {
  if (!(given >= 0 && given <= 2147483648.0)) {  // and NaN
    refuse("step", "be from 0 to 2^31 input pixels per output pixel", std::to_string(given));
  }
  if (align_corners) {
    return output > 1 ? static_cast<double>(size - 1) / static_cast<double>(output - 1) : 0.0;
  }
  return given > 0 ? given : static_cast<double>(size) / static_cast<double>(output);
}

// `input` and `output` are shapes.
UpsampleParams make_params(const char* input_name, const int64_t* input, const char* output_name, const int64_t* output,
                           DType dtype, bool channels_last, bool align_corners, double step_y, double step_x) {
  UpsampleParams params{};
  params.dtype = dtype;
  params.shape = image_shape(input_name, input, channels_last);
  image_shape(output_name, output, channels_last);  // its limits
  params.output_height = output[2];
  params.output_width = output[3];
  params.scale[0] = step_of(input[2], output[2], align_corners, step_y);
  params.scale[1] = step_of(input[3], output[3], align_corners, step_x);
  params.align_corners = align_corners;
  return params;
}

void check_images(Argument argument, const char* meaning) {
  check_shape(argument, {kAny, kAny, kAny, kAny}, meaning);
  check_floating(argument);
  const TensorView& view = argument.view;
  if (view.shape[2] == 0 || view.shape[3] == 0) refuse(argument.name, "have pixels", describe_shape(view));
}

void check_size(const char* name, int64_t height, int64_t width) {
  if (height < 1 || width < 1) refuse(name, "be positive", describe_pair(height, width));
}

py::object upsample_bilinear2d(const TensorView& input, int64_t height, int64_t width, bool align_corners,
                               double step_height, double step_width) {
  check_images({input, "input"}, "(N, C, H, W)");
  check_size("output_size", height, width);
  const int64_t shape[] = {input.shape[0], input.shape[1], height, width};
  UpsampleParams params = make_params("input", input.shape, "output", shape, input.dtype, gives_channels_last(input),
                                      align_corners, step_height, step_width);
  NewTensor output = new_dense(input, input.dtype, shape);
  const TensorView images = as_images(input);
  params.input = images.data;
  params.output = output.view.data;
  if (output.view.elements() > 0) FASTCV_RUN(upsample_bilinear2d_forward, params, input);
  return std::move(output.object);
}

py::object upsample_bilinear2d_backward(const TensorView& grad_output, int64_t height, int64_t width,
                                        bool align_corners, double step_height, double step_width) {
  check_images({grad_output, "grad_output"}, "(N, C, P, Q)");
  check_size("input", height, width);
  const int64_t shape[] = {grad_output.shape[0], grad_output.shape[1], height, width};
  UpsampleParams params = make_params("grad_input", shape, "grad_output", grad_output.shape, grad_output.dtype,
                                      gives_channels_last(grad_output), align_corners, step_height, step_width);
  NewTensor grad_input = new_dense(grad_output, grad_output.dtype, shape);
  const TensorView images = as_images(grad_output);
  params.input = grad_input.view.data;
  params.output = images.data;
  if (grad_input.view.elements() > 0) FASTCV_RUN(upsample_bilinear2d_backward, params, grad_output);
  return std::move(grad_input.object);
}

}  // namespace

void bind_upsample_bilinear2d(py::module_& module) {
  module.def("upsample_bilinear2d", &upsample_bilinear2d);
  module.def("upsample_bilinear2d_backward", &upsample_bilinear2d_backward);
}

}  // namespace fastcv

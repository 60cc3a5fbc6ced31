#include "core/dispatch.h"
#include "core/image_bind.h"
#include "ops/upsample_bilinear2d/upsample_bilinear2d.h"

namespace py = pybind11;

namespace fastcv {
namespace {

UpsampleParams make_params(Argument input, Argument output, bool align_corners, double scale_y, double scale_x) {
  check_shape(input, {kAny, kAny, kAny, kAny}, "(N, C, H, W)");
  check_floating(input);
  check_shape(output, {input.view.shape[0], input.view.shape[1], kAny, kAny}, "(N, C, P, Q)");
  check_same_dtype(output, input);
  check_same_device(output, input);
  for (double scale : {scale_y, scale_x}) {
    if (!(scale >= 0 && scale <= 2147483648.0)) {  // and NaN
      throw py::value_error("scale must lie in [0, 2^31] input pixels per output pixel, got " + std::to_string(scale));
    }
  }
  const bool channels_last = shared_layout_is_channels_last({input, output});
  UpsampleParams params{};
  params.input = input.view.data;
  params.output = output.view.data;
  params.dtype = input.view.dtype;
  params.shape = image_shape(input, channels_last);
  image_shape(output, channels_last);  // its limits
  params.output_height = output.view.shape[2];
  params.output_width = output.view.shape[3];
  params.scale[0] = scale_y;
  params.scale[1] = scale_x;
  params.align_corners = align_corners;
  if (output.view.elements() > 0 && input.view.elements() == 0) {
    throw py::value_error(std::string(input.name) + " must have pixels where the output has some");
  }
  return params;
}

void upsample_bilinear2d_forward(const TensorView& output, const TensorView& input, bool align_corners, double scale_y,
                                 double scale_x) {
  const UpsampleParams params = make_params({input, "input"}, {output, "output"}, align_corners, scale_y, scale_x);
  if (output.elements() == 0) return;
  FASTCV_RUN(upsample_bilinear2d_forward, params, input);
}

void upsample_bilinear2d_backward(const TensorView& grad_input, const TensorView& grad_output, bool align_corners,
                                  double scale_y, double scale_x) {
  const UpsampleParams params =
      make_params({grad_input, "grad_input"}, {grad_output, "grad_output"}, align_corners, scale_y, scale_x);
  if (grad_input.elements() == 0) return;
  FASTCV_RUN(upsample_bilinear2d_backward, params, grad_input);
}

}  // namespace

void bind_upsample_bilinear2d(py::module_& module) {
  module.def("upsample_bilinear2d_forward", &upsample_bilinear2d_forward);
  module.def("upsample_bilinear2d_backward", &upsample_bilinear2d_backward);
}

}  // namespace fastcv

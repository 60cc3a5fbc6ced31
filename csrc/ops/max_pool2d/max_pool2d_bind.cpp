#include "core/dispatch.h"
#include "core/image_bind.h"
#include "ops/max_pool2d/max_pool2d.h"

namespace py = pybind11;

namespace fastcv {
namespace {

MaxPool2dParams make_params(Argument large, Argument small, const TensorView* indices) {
  check_shape(large, {kAny, kAny, kAny, kAny}, "(N, C, H, W)");
  check_floating(large);
  check_shape(small, {large.view.shape[0], large.view.shape[1], kAny, kAny}, "(N, C, P, Q)");
  check_same_dtype(small, large);
  check_same_device(small, large);
  bool channels_last;
  MaxPool2dParams params{};
  if (indices != nullptr) {
    const Argument argument{*indices, "indices"};
    const int64_t* shape = small.view.shape;
    check_shape(argument, {shape[0], shape[1], shape[2], shape[3]}, "(N, C, P, Q)");
    check_dtype(argument, DType::kInt64);
    check_same_device(argument, large);
    channels_last = shared_layout_is_channels_last({large, small, argument});
    params.indices = static_cast<int64_t*>(indices->data);
  } else {
    channels_last = shared_layout_is_channels_last({large, small});
  }
  params.large = large.view.data;
  params.small = small.view.data;
  params.dtype = large.view.dtype;
  params.shape = image_shape(large, channels_last);
  image_shape(small, channels_last);  // its limits
  for (const Argument& argument : {large, small}) {
    if (argument.view.shape[2] * argument.view.shape[3] <= 0x7fffffff) continue;
    throw py::value_error(std::string(argument.name) + " must have fewer than 2^31 pixels an image");
  }
  params.pooled_height = small.view.shape[2];
  params.pooled_width = small.view.shape[3];
  return params;
}

struct WindowSizes {
  int64_t kernel_y, kernel_x, stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x;
};

void set_window(MaxPool2dParams& params, const WindowSizes& sizes) {
  constexpr int64_t kMost = int64_t{1} << 30;
  const int64_t kernel[] = {sizes.kernel_y, sizes.kernel_x}, stride[] = {sizes.stride_y, sizes.stride_x};
  const int64_t padding[] = {sizes.padding_y, sizes.padding_x}, dilation[] = {sizes.dilation_y, sizes.dilation_x};
  const int64_t map[] = {params.shape.height, params.shape.width};
  const int64_t pooled[] = {params.pooled_height, params.pooled_width};
  for (int axis = 0; axis < 2; ++axis) {
    const auto check = [](const char* name, int64_t value, int64_t least) {
      if (value >= least && value <= kMost) return;
      throw py::value_error(std::string(name) + " must lie in [" + std::to_string(least) + ", 2^30], got " +
                            std::to_string(value));
    };
    check("kernel_size", kernel[axis], 1);
    check("stride", stride[axis], 1);
    check("padding", padding[axis], 0);
    check("dilation", dilation[axis], 1);
    if ((kernel[axis] - 1) * dilation[axis] > kMost) {
      throw py::value_error("kernel_size and dilation must span at most 2^30 pixels, got kernel_size " +
                            std::to_string(kernel[axis]) + " and dilation " + std::to_string(dilation[axis]));
    }
    if (pooled[axis] > 0 && (pooled[axis] - 1) * stride[axis] - padding[axis] >= map[axis]) {
      throw py::value_error("output must have no windows that begin behind the map, got " +
                            std::to_string(pooled[axis]) + " windows for " + std::to_string(map[axis]) + " pixels");
    }
    params.kernel[axis] = static_cast<int>(kernel[axis]);
    params.stride[axis] = static_cast<int>(stride[axis]);
    params.padding[axis] = static_cast<int>(padding[axis]);
    params.dilation[axis] = static_cast<int>(dilation[axis]);
  }
}

void max_pool2d_forward(const TensorView& output, const TensorView* indices, const TensorView& input, int64_t kernel_y,
                        int64_t kernel_x, int64_t stride_y, int64_t stride_x, int64_t padding_y, int64_t padding_x,
                        int64_t dilation_y, int64_t dilation_x) {
  MaxPool2dParams params = make_params({input, "input"}, {output, "output"}, indices);
  set_window(params, {kernel_y, kernel_x, stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x});
  if (output.elements() == 0) return;
  FASTCV_RUN(max_pool2d_forward, params, input);
}

void max_pool2d_backward(const TensorView& grad_input, const TensorView& grad_output, const TensorView& indices,
                         int64_t kernel_y, int64_t kernel_x, int64_t stride_y, int64_t stride_x, int64_t padding_y,
                         int64_t padding_x, int64_t dilation_y, int64_t dilation_x) {
  MaxPool2dParams params = make_params({grad_input, "grad_input"}, {grad_output, "grad_output"}, &indices);
  set_window(params, {kernel_y, kernel_x, stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x});
  if (grad_input.elements() == 0) return;
  FASTCV_RUN(max_pool2d_backward, params, grad_input);
}

void max_pool2d_gather(const TensorView& output, const TensorView& input, const TensorView& indices) {
  const MaxPool2dParams params = make_params({input, "input"}, {output, "output"}, &indices);
  if (output.elements() == 0) return;
  FASTCV_RUN(max_pool2d_gather, params, output);
}

// How many int32 the CUDA kernel needs beside an output of so many elements.
int64_t max_unpool2d_workspace(int64_t elements, bool on_cuda) {
  return on_cuda || !kHasCpuKernels ? elements : 0;
}

void max_unpool2d(const TensorView& output, const TensorView& values, const TensorView& indices,
                  const TensorView& workspace) {
  MaxPool2dParams params = make_params({output, "output"}, {values, "values"}, &indices);
  const int64_t needed = max_unpool2d_workspace(output.elements(), output.on_cuda);
  check_shape({workspace, "workspace"}, {needed}, "(max_unpool2d_workspace(...),)");
  check_dtype({workspace, "workspace"}, DType::kInt32);
  check_same_device({workspace, "workspace"}, {output, "output"});
  check_contiguous({workspace, "workspace"});
  params.winners = static_cast<int32_t*>(workspace.data);
  if (output.elements() == 0 && values.elements() == 0) return;
  FASTCV_RUN(max_unpool2d, params, output);
}

}  // namespace

void bind_max_pool2d(py::module_& module) {
  module.def("max_pool2d_forward", &max_pool2d_forward);
  module.def("max_pool2d_backward", &max_pool2d_backward);
  module.def("max_pool2d_gather", &max_pool2d_gather);
  module.def("max_unpool2d", &max_unpool2d);
  module.def("max_unpool2d_workspace", &max_unpool2d_workspace);
}

}  // namespace fastcv

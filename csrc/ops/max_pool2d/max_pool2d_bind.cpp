#include "core/dispatch.h"
#include "families/image/image_bind.h"
#include "ops/max_pool2d/max_pool2d.h"

namespace py = pybind11;

namespace fastcv {
namespace {

// Of both axes, y and x.
struct Window {
  int64_t kernel[2], stride[2], padding[2], dilation[2];
};

void check_range(const char* name, const int64_t (&sizes)[2], int64_t least) {
  constexpr int64_t kMost = int64_t{1} << 30;
  for (int64_t size : sizes) {
    if (size >= least && size <= kMost) continue;
    refuse(name, "be from " + std::to_string(least) + " to 2^30", describe_pair(sizes[0], sizes[1]));
  }
}

void check_window(const Window& window) {
  check_range("kernel_size", window.kernel, 1);
  check_range("stride", window.stride, 1);
  check_range("padding", window.padding, 0);
  check_range("dilation", window.dilation, 1);
  const std::string kernel = describe_pair(window.kernel[0], window.kernel[1]);
  for (int axis = 0; axis < 2; ++axis) {
    if (2 * window.padding[axis] > window.kernel[axis]) {
      refuse("padding", "be at most half of kernel_size " + kernel,
             describe_pair(window.padding[0], window.padding[1]));
    }
    if ((window.kernel[axis] - 1) * window.dilation[axis] > int64_t{1} << 30) {
      refuse("kernel_size and dilation", "span at most 2^30 pixels",
             kernel + " and " + describe_pair(window.dilation[0], window.dilation[1]));
    }
  }
}

// Along one axis; not positive where the map is smaller than a window.
int64_t pooled_size(int64_t size, const Window& window, int axis, bool ceil_mode) {
  const int64_t stride = window.stride[axis];
  const int64_t span = size + 2 * window.padding[axis] - window.dilation[axis] * (window.kernel[axis] - 1) - 1;
  if (size == 0 || (span < 0 && (!ceil_mode || span <= -stride))) return 0;
  const int64_t pooled = (span + (ceil_mode ? stride - 1 : 0)) / stride + 1;
  // the last window has to begin inside
  return ceil_mode && (pooled - 1) * stride >= size + window.padding[axis] ? pooled - 1 : pooled;
}

void set_window(MaxPool2dParams& params, const Window& window) {
  for (int axis = 0; axis < 2; ++axis) {
    params.kernel[axis] = static_cast<int>(window.kernel[axis]);
    params.stride[axis] = static_cast<int>(window.stride[axis]);
    params.padding[axis] = static_cast<int>(window.padding[axis]);
    params.dilation[axis] = static_cast<int>(window.dilation[axis]);
  }
}

// `large` and `small` are shapes.
MaxPool2dParams make_params(const char* large_name, const int64_t* large, const char* small_name, const int64_t* small,
                            DType dtype, bool channels_last) {
  MaxPool2dParams params{};
  params.dtype = dtype;
  params.shape = image_shape(large_name, large, channels_last);
  image_shape(small_name, small, channels_last);  // its limits
  check_fewer(large_name, "pixels an image", multiply_sizes(large[2], large[3]), int64_t{1} << 31);
  check_fewer(small_name, "pixels an image", multiply_sizes(small[2], small[3]), int64_t{1} << 31);
  params.pooled_height = small[2];
  params.pooled_width = small[3];
  return params;
}

py::tuple max_pool2d_with_indices(const TensorView& input, int64_t kernel_height, int64_t kernel_width,
                                  int64_t stride_height, int64_t stride_width, int64_t padding_height,
                                  int64_t padding_width, int64_t dilation_height, int64_t dilation_width,
                                  bool ceil_mode) {
  check_shape({input, "input"}, {kAny, kAny, kAny, kAny}, "(N, C, H, W) or (C, H, W)");
  check_floating({input, "input"});
  const Window window{{kernel_height, kernel_width},
                      {stride_height, stride_width},
                      {padding_height, padding_width},
                      {dilation_height, dilation_width}};
  check_window(window);
  const int64_t* shape = input.shape;
  const int64_t height = pooled_size(shape[2], window, 0, ceil_mode);
  const int64_t width = pooled_size(shape[3], window, 1, ceil_mode);
  if (height < 1 || width < 1) {
    refuse("input",
           "be larger than a window of kernel_size " + describe_pair(kernel_height, kernel_width) + ", padding " +
               describe_pair(padding_height, padding_width) + " and dilation " +
               describe_pair(dilation_height, dilation_width),
           "shape " + describe_shape(input));
  }
  const int64_t pooled[] = {shape[0], shape[1], height, width};
  MaxPool2dParams params = make_params("input", shape, "output", pooled, input.dtype, gives_channels_last(input));
  set_window(params, window);
  NewTensor values = new_dense(input, input.dtype, pooled);
  NewTensor indices = new_dense(input, DType::kInt64, pooled);
  const TensorView images = as_images(input);
  params.large = images.data;
  params.small = values.view.data;
  params.indices = indices.view.as<int64_t>();
  if (values.view.elements() > 0) FASTCV_RUN(max_pool2d_forward, params, input);
  return py::make_tuple(values.object, indices.object);
}

// Where the values of a small map lie in a large one, with the strides of `small`.
TensorView checked_indices(const TensorView& indices, const TensorView& small, Argument first) {
  const int64_t* shape = small.shape;
  check_shape({indices, "indices"}, {shape[0], shape[1], shape[2], shape[3]}, "(N, C, P, Q)");
  check_dtype({indices, "indices"}, DType::kInt64);
  check_same_device({indices, "indices"}, first);
  return with_strides_of(indices, small);
}

py::object max_pool2d_backward(const TensorView& grad_output, const TensorView& indices, int64_t height, int64_t width,
                               int64_t kernel_height, int64_t kernel_width, int64_t stride_height, int64_t stride_width,
                               int64_t padding_height, int64_t padding_width, int64_t dilation_height,
                               int64_t dilation_width) {
  check_shape({grad_output, "grad_output"}, {kAny, kAny, kAny, kAny}, "(N, C, P, Q)");
  check_floating({grad_output, "grad_output"});
  const Window window{{kernel_height, kernel_width},
                      {stride_height, stride_width},
                      {padding_height, padding_width},
                      {dilation_height, dilation_width}};
  check_window(window);
  const int64_t* pooled = grad_output.shape;
  const int64_t shape[] = {pooled[0], pooled[1], height, width};
  MaxPool2dParams params =
      make_params("grad_input", shape, "grad_output", pooled, grad_output.dtype, gives_channels_last(grad_output));
  for (int axis = 0; axis < 2; ++axis) {
    const int64_t windows = pooled[2 + axis], size = shape[2 + axis];
    if (size < 0 || (windows > 0 && (windows - 1) * window.stride[axis] - window.padding[axis] >= size)) {
      refuse("grad_output", "have no windows that begin behind the map of " + describe_pair(height, width) + " pixels",
             "shape " + describe_shape(grad_output));
    }
  }
  set_window(params, window);
  const TensorView small = as_images(grad_output);
  const TensorView places = checked_indices(indices, small, {grad_output, "grad_output"});
  NewTensor grad_input = new_dense(grad_output, grad_output.dtype, shape);
  params.large = grad_input.view.data;
  params.small = small.data;
  params.indices = places.as<int64_t>();
  if (grad_input.view.elements() > 0) FASTCV_RUN(max_pool2d_backward, params, grad_output);
  return std::move(grad_input.object);
}

py::object max_pool2d_gather(const TensorView& input, const TensorView& indices) {
  check_shape({input, "input"}, {kAny, kAny, kAny, kAny}, "(N, C, H, W)");
  check_floating({input, "input"});
  check_shape({indices, "indices"}, {input.shape[0], input.shape[1], kAny, kAny}, "(N, C, P, Q)");
  MaxPool2dParams params =
      make_params("input", input.shape, "indices", indices.shape, input.dtype, gives_channels_last(input));
  NewTensor output = new_dense(input, input.dtype, indices.shape);
  const TensorView images = as_images(input);
  const TensorView places = checked_indices(indices, output.view, {input, "input"});
  params.large = images.data;
  params.small = output.view.data;
  params.indices = places.as<int64_t>();
  if (output.view.elements() > 0) FASTCV_RUN(max_pool2d_gather, params, input);
  return std::move(output.object);
}

py::object max_unpool2d(const TensorView& values, const TensorView& indices, int64_t height, int64_t width) {
  check_shape({values, "values"}, {kAny, kAny, kAny, kAny}, "(N, C, P, Q) or (C, P, Q)");
  check_floating({values, "values"});
  if (height < 0 || width < 0) refuse("output_size", "be at least 0", describe_pair(height, width));
  const int64_t shape[] = {values.shape[0], values.shape[1], height, width};
  MaxPool2dParams params =
      make_params("output", shape, "values", values.shape, values.dtype, gives_channels_last(values));
  const TensorView small = as_images(values);
  const TensorView places = checked_indices(indices, small, {values, "values"});
  NewTensor output = new_dense(values, values.dtype, shape);
  NewTensor workspace;
  if (!runs_on_cpu(values)) {
    workspace = new_contiguous(values, DType::kInt32, {output.view.elements()});
    params.winners = workspace.view.as<int32_t>();
  }
  params.large = output.view.data;
  params.small = small.data;
  params.indices = places.as<int64_t>();
  if (output.view.elements() > 0 || values.elements() > 0) FASTCV_RUN(max_unpool2d, params, values);
  return std::move(output.object);
}

}  // namespace

void bind_max_pool2d(py::module_& module) {
  module.def("max_pool2d_with_indices", &max_pool2d_with_indices);
  module.def("max_pool2d_backward", &max_pool2d_backward);
  module.def("max_pool2d_gather", &max_pool2d_gather);
  module.def("max_unpool2d", &max_unpool2d);
}

}  // namespace fastcv

#include <string>

#include "core/dispatch.h"
#include "ops/deform_conv2d/deform_conv2d.h"

namespace py = pybind11;

namespace fastcv {
namespace {

constexpr int64_t kMostDeformSize = (int64_t{1} << 31) - 1;

struct DeformOptions {
  const Ints &stride, &padding, &dilation;
};

void check_deform_option(const char* name, const Ints& values, int64_t least) {
  const std::string came = describe_sizes(values.values, values.count);
  if (values.count != 2) refuse(name, "have two values (height, width)", came);
  for (int i = 0; i < 2; ++i) {
    if (values[i] >= least && values[i] <= kMostDeformSize) continue;
    refuse(name, "be from " + std::to_string(least) + " to 2^31 - 1 along each axis", came);
  }
}

DeformAxis make_deform_axis(int i, int64_t input, int64_t kernel, const DeformOptions& options) {
  const int64_t stride = options.stride[i], padding = options.padding[i], dilation = options.dilation[i];
  // Rounded down, so that what is too small for the kernel has no output.
  const int64_t room = input + 2 * padding - dilation * (kernel - 1) - 1;
  return {input, room < 0 ? 0 : room / stride + 1, kernel, stride, padding, dilation};
}

// The channels of the weight say how many groups there are; without channels there is one.
int64_t find_deform_groups(const TensorView& input, const TensorView& weight) {
  const int64_t channels = input.shape[1], in_group = weight.shape[1];
  if (channels == 0 && in_group == 0) return 1;
  const int64_t groups = in_group == 0 ? 0 : channels / in_group;
  if (groups < 1 || channels % in_group != 0) {
    refuse("weight", "have C / groups channels, a divisor of C = " + std::to_string(channels),
           "shape " + describe_shape(weight));
  }
  if (weight.shape[0] % groups != 0) {
    refuse("weight", "have output channels that its " + std::to_string(groups) + " groups divide",
           "shape " + describe_shape(weight));
  }
  return groups;
}

// All that follows from the shapes of the arguments, after their checks.
DeformGeometry make_deform_geometry(const TensorView& input, const TensorView& offset, const TensorView& weight,
                                    const OptionalTensor& mask, const DeformOptions& options) {
  const Argument first{input, "input"};
  check_shape(first, {kAny, kAny, kAny, kAny}, "(N, C, H, W)");
  check_floating(first);
  check_shape({offset, "offset"}, {kAny, kAny, kAny, kAny}, "(N, 2 * offset groups * kH * kW, H', W')");
  check_shape({weight, "weight"}, {kAny, kAny, kAny, kAny}, "(O, C / groups, kH, kW)");
  check_same_dtype({offset, "offset"}, first);
  check_same_dtype({weight, "weight"}, first);
  check_same_device({offset, "offset"}, first);
  check_same_device({weight, "weight"}, first);
  check_deform_option("stride", options.stride, 1);
  check_deform_option("padding", options.padding, 0);
  check_deform_option("dilation", options.dilation, 1);
  DeformGeometry g{};
  g.dtype = input.dtype;
  g.batch = input.shape[0];
  g.in_channels = input.shape[1];
  g.out_channels = weight.shape[0];
  const int64_t kernel_y = weight.shape[2], kernel_x = weight.shape[3];
  if (kernel_y < 1 || kernel_x < 1 || kernel_y > kMostDeformSize || kernel_x > kMostDeformSize ||
      kernel_y * kernel_x > (int64_t{1} << 20)) {
    refuse("weight", "have a kernel of 1 to 2^20 elements", "shape " + describe_shape(weight));
  }
  if (input.shape[2] > kMostDeformSize || input.shape[3] > kMostDeformSize ||
      (input.shape[2] + 1) * (input.shape[3] + 1) > kMostDeformSize) {
    refuse("input", "have fewer than 2^31 pixels per image", "shape " + describe_shape(input));
  }
  g.groups = find_deform_groups(input, weight);
  g.y = make_deform_axis(0, input.shape[2], kernel_y, options);
  g.x = make_deform_axis(1, input.shape[3], kernel_x, options);
  if (g.y.output < 1 || g.x.output < 1) {
    refuse("input", "be at least as large with its padding as the dilated kernel", "shape " + describe_shape(input));
  }
  const int64_t size[] = {g.y.output, g.x.output};
  if (g.y.output > kMostDeformSize / g.x.output) {
    refuse("padding and stride", "give fewer than 2^31 output positions per image", describe_sizes(size, 2));
  }
  const int64_t per_group = 2 * kernel_y * kernel_x;
  g.offset_groups = offset.shape[1] / per_group;
  if (g.offset_groups < 1 || offset.shape[1] % per_group != 0 || g.in_channels % g.offset_groups != 0) {
    refuse("offset",
           "have 2 * offset groups * kH * kW channels, a multiple of " + std::to_string(per_group) +
               " by a divisor of C = " + std::to_string(g.in_channels),
           "shape " + describe_shape(offset));
  }
  check_shape({offset, "offset"}, {g.batch, offset.shape[1], g.y.output, g.x.output},
              "(N, 2 * offset groups * kH * kW, H', W')");
  if (mask) {
    check_shape({mask, "mask"}, {g.batch, offset.shape[1] / 2, g.y.output, g.x.output},
                "(N, offset groups * kH * kW, H', W')");
    check_same_dtype({mask, "mask"}, first);
    check_same_device({mask, "mask"}, first);
  }
  return g;
}

// What the kernels read: on CUDA with channels innermost.
TensorView as_deform_map(const TensorView& view) {
  if (runs_on_cpu(view) || view.is_description) return dense(view);
  const py::object copy = py::handle(view.object).attr("movedim")(1, -1).attr("contiguous")().attr("movedim")(-1, 1);
  TensorView map = view_of(copy.ptr());
  set_dense_strides(map.shape, map.rank, true, map.strides);
  map.copy = copy;
  return map;
}

// The weight as the kernels read it: on CUDA as (G, K, C / G, O / G) for the forward, (G, O / G, K, C / G) else.
TensorView as_deform_weight(const TensorView& view, int64_t groups, bool forward) {
  if (runs_on_cpu(view) || view.is_description) return contiguous(view);
  const py::object grouped =
      py::handle(view.object)
          .attr("reshape")(groups, view.shape[0] / groups, view.shape[1], view.shape[2] * view.shape[3]);
  const py::object moved = forward ? grouped.attr("permute")(0, 3, 2, 1) : grouped.attr("permute")(0, 1, 3, 2);
  const py::object copy = moved.attr("contiguous")();
  TensorView weight = view_of(copy.ptr());
  weight.copy = copy;
  return weight;
}

py::object deform_conv2d(const TensorView& input, const TensorView& offset, const TensorView& weight,
                         const OptionalTensor& bias, const Ints& stride, const Ints& padding, const Ints& dilation,
                         const OptionalTensor& mask) {
  DeformConv2dParams p{};
  DeformGeometry& g = p.geometry;
  g = make_deform_geometry(input, offset, weight, mask, {stride, padding, dilation});
  TensorView wide_bias, masks;
  if (bias) {
    check_shape({bias, "bias"}, {g.out_channels}, "(O,)");
    check_same_dtype({bias, "bias"}, {input, "input"});
    check_same_device({bias, "bias"}, {input, "input"});
    wide_bias = converted(bias, accumulate_dtype(input.dtype));
  }
  NewTensor output = new_dense(input, input.dtype, g.batch, g.out_channels, g.y.output, g.x.output);
  if (input.is_description || output.view.elements() == 0) return std::move(output.object);
  const TensorView map = as_deform_map(input), offsets = contiguous(offset),
                   kernel = as_deform_weight(weight, g.groups, true);
  if (mask) masks = contiguous(mask);
  g.input = map.data;
  g.offset = offsets.data;
  g.mask = masks.data;
  g.input_channels_last = gives_channels_last(map);
  g.output_channels_last = gives_channels_last(output.view);
  p.weight = kernel.data;
  p.bias = wide_bias.data;
  p.output = output.view.data;
  FASTCV_RUN(deform_conv2d, p, input);
  return std::move(output.object);
}

// Allocates what the kernels of CUDA want and runs them, with torch's stable sort of the samples between.
void run_deform_on_cuda(DeformConv2dBackwardParams p, const TensorView& input) {
  const DeformGeometry& g = p.geometry;
  const int64_t samples = g.batch * g.offset_groups * g.taps() * g.positions();
  const DType wide = accumulate_dtype(input.dtype);
  NewTensor keys, columns, pieces;
  py::object sorted;
  TensorView sorted_keys, order;
  if (p.grad_input != nullptr || p.grad_offset != nullptr || p.grad_mask != nullptr) {
    columns = new_contiguous(input, wide, {g.batch * g.positions(), g.taps(), g.in_channels});
    p.columns = columns.view.data;
  }
  if (p.grad_input != nullptr) {
    keys = new_contiguous(input, DType::kInt64, {samples});
    p.keys = keys.view.as<int64_t>();
    p.step = DeformStep::kKeys;
    FASTCV_RUN(deform_conv2d_backward, p, input);
    sorted = keys.object.attr("sort")(py::arg("stable") = true);
    const py::object values = sorted.attr("values"), indices = sorted.attr("indices");
    sorted_keys = view_of(values.ptr());
    order = view_of(indices.ptr());
    p.sorted_keys = sorted_keys.as<int64_t>();
    p.samples = order.as<int64_t>();
  }
  if (p.grad_weight != nullptr) {
    const int64_t elements = g.out_channels * (g.in_channels / g.groups) * g.taps();
    pieces = new_contiguous(input, wide, {deform_weight_pieces(g), elements});
    p.pieces = pieces.view.data;
  }
  p.step = DeformStep::kGradients;
  FASTCV_RUN(deform_conv2d_backward, p, input);
}

py::tuple deform_conv2d_backward(const TensorView& grad_output, const TensorView& input, const TensorView& offset,
                                 const TensorView& weight, const OptionalTensor& mask, const Ints& stride,
                                 const Ints& padding, const Ints& dilation, bool needs_input, bool needs_offset,
                                 bool needs_weight, bool needs_mask) {
  DeformConv2dBackwardParams p{};
  DeformGeometry& g = p.geometry;
  g = make_deform_geometry(input, offset, weight, mask, {stride, padding, dilation});
  const Argument gradient{grad_output, "grad_output"}, first{input, "input"};
  check_shape(gradient, {g.batch, g.out_channels, g.y.output, g.x.output}, "(N, O, H', W')");
  check_same_dtype(gradient, first);
  check_same_device(gradient, first);
  if (needs_mask && !mask) refuse_type("mask", "be a torch.Tensor where it needs a gradient", "None");
  const auto none = [&] { return new_contiguous(input, input.dtype, {0}); };
  NewTensor grad_input =
      needs_input ? new_dense(input, input.dtype, g.batch, g.in_channels, g.y.input, g.x.input) : none();
  NewTensor grad_offset = needs_offset ? new_like(offset) : none();
  NewTensor grad_weight = needs_weight ? new_like(weight) : none();
  NewTensor grad_mask = needs_mask ? new_like(mask) : none();
  if (!input.is_description) {
    const bool nothing = g.batch == 0 || g.in_channels == 0 || g.out_channels == 0 || g.pixels() == 0;
    if (nothing) {
      for (NewTensor* made : {&grad_input, &grad_offset, &grad_weight, &grad_mask}) made->object.attr("zero_")();
    } else {
      const TensorView map = as_deform_map(input), grads = dense(grad_output), offsets = contiguous(offset);
      const TensorView kernel = as_deform_weight(weight, g.groups, false);
      TensorView masks;
      if (mask) masks = contiguous(mask);
      g.input = map.data;
      g.offset = offsets.data;
      g.mask = masks.data;
      g.input_channels_last = runs_on_cpu(input) ? gives_channels_last(map) : gives_channels_last(grad_input.view);
      g.output_channels_last = gives_channels_last(grads);
      p.weight = kernel.data;
      p.grad_output = grads.data;
      p.grad_input = needs_input ? grad_input.view.data : nullptr;
      p.grad_offset = needs_offset ? grad_offset.view.data : nullptr;
      p.grad_weight = needs_weight ? grad_weight.view.data : nullptr;
      p.grad_mask = needs_mask ? grad_mask.view.data : nullptr;
      if (runs_on_cpu(input)) {
        FASTCV_RUN(deform_conv2d_backward, p, input);
      } else {
        run_deform_on_cuda(p, input);
      }
    }
  }
  return py::make_tuple(grad_input.object, grad_offset.object, grad_weight.object, grad_mask.object);
}

}  // namespace

void bind_deform_conv2d(py::module_& module) {
  module.def("deform_conv2d", &deform_conv2d);
  module.def("deform_conv2d_backward", &deform_conv2d_backward);
}

}  // namespace fastcv

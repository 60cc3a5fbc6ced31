#include <pybind11/stl.h>

#include <optional>

#include "core/arena.h"
#include "core/dispatch.h"
#include "core/epilogue_bind.h"
#include "ops/conv2d/conv2d.h"

namespace py = pybind11;

namespace fastcv {
namespace {

constexpr int64_t kMostPixels = (int64_t{1} << 31) - 1;

struct Conv2dOptions {
  const Ints &stride, &padding, &dilation;  // y, x; of padding: before y, before x, after y, after x
  int64_t groups;
};

void check_conv2d_option(const char* name, const Ints& values, int count, int64_t least) {
  const std::string came = describe_sizes(values.values, values.count);
  if (values.count != count) refuse(name, "have " + std::to_string(count) + " values", came);
  for (int i = 0; i < count; ++i) {
    if (values[i] >= least && values[i] <= kMostPixels) continue;
    refuse(name, "be from " + std::to_string(least) + " to 2^31 - 1 along each axis", came);
  }
}

// Channels and groups.
void check_conv2d_weight(const TensorView& weight, Argument input, int64_t groups) {
  const int64_t channels = input.view.shape[1];
  if (weight.rank != 4) {
    refuse("weight", "have shape (O, C / groups, kH, kW), 4 axes", describe_shape(weight));
  }
  check_same_dtype({weight, "weight"}, input);
  check_same_device({weight, "weight"}, input);
  if (groups < 1 || channels % groups != 0 || weight.shape[0] % groups != 0) {
    refuse("groups",
           "be positive and divide the " + std::to_string(channels) + " channels of input and the " +
               std::to_string(weight.shape[0]) + " of weight",
           std::to_string(groups));
  }
  if (weight.shape[1] != channels / groups) {
    refuse("weight", "have the channels of one group of input (" + std::to_string(channels / groups) + ")",
           "shape " + describe_shape(weight));
  }
}

// Of weight alone.
Conv2dParams weight_params(const TensorView& weight, int64_t groups) {
  Conv2dParams p{};
  p.dtype = weight.dtype;
  p.groups = groups;
  p.in_channels = weight.shape[1];
  p.out_channels = weight.shape[0] / groups;
  for (int i = 0; i < 2; ++i) {
    const int64_t kernel = weight.shape[2 + i];
    if (kernel < 1 || kernel > kMostPixels) {
      refuse("weight", "have a kernel of 1 to 2^31 - 1 elements along each axis", describe_sizes(weight.shape + 2, 2));
    }
    p.axes[i] = {1, 1, kernel, 1, 0, 1};
  }
  return p;
}

// Sizes, and all that follows from them.
Conv2dParams conv2d_params(const TensorView& input, const TensorView& weight, const Conv2dOptions& options) {
  const Argument first{input, "input"};
  if (input.rank != 4) refuse("input", "have shape (N, C, H, W), with or without N", describe_shape(input));
  check_floating(first);
  check_conv2d_weight(weight, first, options.groups);
  check_conv2d_option("stride", options.stride, 2, 1);
  check_conv2d_option("padding", options.padding, 4, 0);
  check_conv2d_option("dilation", options.dilation, 2, 1);
  Conv2dParams p = weight_params(weight, options.groups);
  p.batch = input.shape[0];
  int64_t output[2];
  bool fits = true;
  for (int i = 0; i < 2; ++i) {
    const int64_t size = input.shape[2 + i];
    if (size > kMostPixels) {
      refuse("input", "have at most 2^31 - 1 pixels along each axis", describe_shape(input));
    }
    const int64_t padded = size + options.padding[i] + options.padding[2 + i];
    const int64_t reach = (weight.shape[2 + i] - 1) * options.dilation[i] + 1;
    output[i] = padded >= reach ? (padded - reach) / options.stride[i] + 1 : 0;
    fits = fits && output[i] > 0;
    p.axes[i] = {size, output[i], weight.shape[2 + i], options.stride[i], options.padding[i], options.dilation[i]};
  }
  if (!fits) {
    refuse("input and padding", "leave an output of at least one pixel along each axis",
           "an input of size " + describe_sizes(input.shape + 2, 2) + ", padding " +
               describe_sizes(options.padding.values, 4) + ", dilation " + describe_sizes(options.dilation.values, 2) +
               " and a kernel of size " + describe_sizes(weight.shape + 2, 2));
  }
  return p;
}

int64_t conv2d_packed_bytes(const Conv2dParams& p, int tile) {
  return FASTCV_VARIANT::conv2d_packed_elements(p, tile) * size_of(accumulate_dtype(p.dtype));
}

// The tile that a packed weight was made for.
int tile_of_packed(const Conv2dParams& p, const TensorView& packed, Argument input) {
  check_dtype({packed, "packed"}, DType::kUInt8);
  check_same_device({packed, "packed"}, input);
  if (packed.rank == 1 && packed.shape[0] == conv2d_packed_bytes(p, 0)) return 0;
  for (const int tile : kTiles) {
    const bool may = FASTCV_VARIANT::conv2d_may_tile(p, tile) && packed.rank == 1;
    if (may && packed.shape[0] == conv2d_packed_bytes(p, tile)) return tile;
  }
  refuse("packed", "be what conv2d_pack makes of weight", "shape " + describe_shape(packed));
}

// The same by torch's own operations: on CUDA, where cuDNN is at home.
py::object convolve_with_torch(const TensorView& input, const TensorView& weight, const OptionalTensor& bias,
                               const Conv2dOptions& options, const OptionalTensor& residual, Activation activation,
                               double negative_slope) {
  const py::object functional = py::module_::import("torch").attr("nn").attr("functional");
  const auto list = [](const Ints& values, int first) { return py::make_tuple(values[first], values[first + 1]); };
  py::object source = py::reinterpret_borrow<py::object>(input.object);
  py::tuple padding = list(options.padding, 0);
  if (options.padding[0] != options.padding[2] || options.padding[1] != options.padding[3]) {
    const Ints& p = options.padding;
    source = functional.attr("pad")(source, py::make_tuple(p[1], p[3], p[0], p[2]));
    padding = py::make_tuple(0, 0);
  }
  const py::object added = bias ? py::reinterpret_borrow<py::object>(bias.object) : py::none();
  py::object output = functional.attr("conv2d")(source, py::handle(weight.object), added, list(options.stride, 0),
                                                padding, list(options.dilation, 0), options.groups);
  output = finish_with_torch(output, residual, activation, negative_slope);
  const char* layout = gives_channels_last(input) ? "channels_last" : "contiguous_format";
  return output.attr("contiguous")(py::arg("memory_format") = py::module_::import("torch").attr(layout));
}

// What a caller allows conv2d to do beyond the operator: write over `residual`, which nobody else needs then; and add the
// nearest pixels of a smaller one.
struct Conv2dLeave {
  bool overwrites, enlarges;
};

void check_conv2d_residual(const TensorView& residual, const int64_t* shape, Argument first, Conv2dLeave leave) {
  const Argument argument{residual, "residual"};
  const bool any = leave.enlarges && residual.rank == 4 && residual.shape[2] > 0 && residual.shape[3] > 0;
  check_shape(argument, {shape[0], shape[1], any ? kAny : shape[2], any ? kAny : shape[3]}, "(N, O, H', W')");
  check_same_dtype(argument, first);
  check_same_device(argument, first);
}

// Whether `residual` can be the output: no other memory, and not the input's.
bool is_output(const TensorView& residual, const TensorView& input, const int64_t* shape) {
  int64_t strides[4];
  set_dense_strides(shape, 4, gives_channels_last(input), strides);
  bool same = residual.data != input.data;
  for (int i = 0; i < 4; ++i) {
    same = same && residual.shape[i] == shape[i] && (shape[i] == 1 || residual.strides[i] == strides[i]);
  }
  return same;
}

// A view of `residual` with the pixels that are added one by one.
TensorView enlarged(const TensorView& residual, const int64_t* shape) {
  const py::object functional = py::module_::import("torch").attr("nn").attr("functional");
  py::object made = functional.attr("interpolate")(py::handle(residual.object), py::make_tuple(shape[2], shape[3]));
  TensorView view = view_of(made.ptr());
  view.copy = std::move(made);
  return view;
}

py::object run_conv2d(const TensorView& input, const TensorView& weight, const OptionalTensor& bias, const Ints& stride,
                      const Ints& padding, const Ints& dilation, int64_t groups, const OptionalTensor& residual,
                      const std::optional<std::string>& activation, double negative_slope, bool exact,
                      const OptionalTensor& packed, Conv2dLeave leave) {
  const Conv2dOptions options{stride, padding, dilation, groups};
  const Argument first{input, "input"};
  Conv2dParams p = conv2d_params(input, weight, options);
  p.activation = activation_of(activation);
  p.negative_slope = negative_slope;
  const int64_t shape[] = {p.batch, weight.shape[0], p.axes[0].output, p.axes[1].output};
  if (bias) {
    check_shape({bias, "bias"}, {shape[1]}, "(O,)");
    check_same_dtype({bias, "bias"}, first);
    check_same_device({bias, "bias"}, first);
  }
  if (residual) check_conv2d_residual(residual, shape, first, leave);
  p.tile = packed ? tile_of_packed(p, packed, first) : FASTCV_VARIANT::conv2d_choose_tile(p, exact, false);
  if (!runs_on_cpu(input) && !input.is_description && shape[0] != 0 && shape[1] != 0) {
    OptionalTensor added = residual;
    if (residual && (residual.shape[2] != shape[2] || residual.shape[3] != shape[3])) {
      static_cast<TensorView&>(added) = enlarged(residual, shape);
      added.object = added.copy.ptr();
    }
    return convolve_with_torch(input, weight, bias, options, added, p.activation, negative_slope);
  }
  const TensorView source = dense(input);
  p.input_channels_last = is_channels_last(source);
  p.output_channels_last = gives_channels_last(input);
  if (residual) {
    p.residual_size[0] = residual.shape[2];
    p.residual_size[1] = residual.shape[3];
  }
  const bool takes_over = residual && FASTCV_VARIANT::conv2d_takes_over(p);
  const ArenaScope scope(packed || arena_is_on());  // who keeps the weight packed runs again
  NewTensor output;
  if (takes_over && leave.overwrites && is_output(residual, input, shape)) {
    output.object = py::reinterpret_borrow<py::object>(residual.object);
    output.view = residual;
  } else {
    output = new_dense(input, input.dtype, shape);
  }
  if (input.is_description || output.view.elements() == 0) return std::move(output.object);
  TensorView kernel, wide_bias, other;
  if (packed) {
    p.packed = packed.data;
  } else {
    kernel = contiguous(weight);
    p.weight = kernel.data;
  }
  if (bias) {
    wide_bias = converted(bias, accumulate_dtype(input.dtype));
    p.bias = wide_bias.data;
  }
  if (residual) {
    const bool whole = p.residual_size[0] == shape[2] && p.residual_size[1] == shape[3];
    if (whole) {
      other = with_strides_of(residual, output.view);
    } else if (takes_over && is_channels_last(residual)) {
      other = residual;
    } else {
      other = with_strides_of(enlarged(residual, shape), output.view);
      p.residual_size[0] = shape[2];
      p.residual_size[1] = shape[3];
    }
    p.residual = other.data;
  }
  p.input = source.data;
  p.output = output.view.data;
  p.output_channels_last = is_channels_last(output.view);
  FASTCV_RUN_ON_CPU(conv2d_forward, p);
  return std::move(output.object);
}

py::object conv2d(const TensorView& input, const TensorView& weight, const OptionalTensor& bias, const Ints& stride,
                  const Ints& padding, const Ints& dilation, int64_t groups, const OptionalTensor& residual,
                  const std::optional<std::string>& activation, double negative_slope, bool exact,
                  const OptionalTensor& packed) {
  return run_conv2d(input, weight, bias, stride, padding, dilation, groups, residual, activation, negative_slope, exact,
                    packed, {false, false});
}

// The same for who needs `residual` no more: it may be written over and returned. Or it is smaller, and enlarged.
py::object conv2d_taking_over(const TensorView& input, const TensorView& weight, const OptionalTensor& bias,
                              const Ints& stride, const Ints& padding, const Ints& dilation, int64_t groups,
                              const OptionalTensor& residual, const std::optional<std::string>& activation,
                              double negative_slope, bool exact, const OptionalTensor& packed) {
  return run_conv2d(input, weight, bias, stride, padding, dilation, groups, residual, activation, negative_slope, exact,
                    packed, {true, true});
}

// The tile that conv2d takes for these sizes where the weight is packed.
int conv2d_tile(const TensorView& input, const TensorView& weight, const Ints& stride, const Ints& padding,
                const Ints& dilation, int64_t groups, bool exact) {
  return FASTCV_VARIANT::conv2d_choose_tile(conv2d_params(input, weight, {stride, padding, dilation, groups}), exact,
                                            true);
}

// The weight as the kernel reads it for a tile, for calls to come. None on CUDA.
py::object conv2d_pack(const TensorView& weight, int64_t groups, int tile) {
  if (weight.rank != 4) refuse("weight", "have shape (O, C / groups, kH, kW), 4 axes", describe_shape(weight));
  check_floating({weight, "weight"});
  if (groups < 1 || weight.shape[0] % groups != 0) {
    refuse("groups", "be positive and divide the " + std::to_string(weight.shape[0]) + " channels of weight",
           std::to_string(groups));
  }
  Conv2dParams p = weight_params(weight, groups);
  for (Conv2dAxis& axis : p.axes) axis.stride = tile == kStridedTile ? 2 : 1;
  const bool known = tile == 2 || tile == 4 || tile == 6 || tile == kStridedTile;
  if (tile != 0 && (!known || !FASTCV_VARIANT::conv2d_may_tile(p, tile))) {
    refuse("tile", "be 0, or 2, 4, 6 or 22 for a kernel of 3 x 3 in one group, not float64", std::to_string(tile));
  }
  if (!runs_on_cpu(weight)) return py::none();
  p.tile = tile;
  const ArenaScope scope(false);  // what is packed stays
  NewTensor packed = new_workspace(weight, conv2d_packed_bytes(p, tile));
  const TensorView kernel = contiguous(weight);
  p.weight = kernel.data;
  p.output = packed.view.data;
  if (!weight.is_description && weight.elements() > 0) FASTCV_RUN_ON_CPU(conv2d_pack, p);
  return std::move(packed.object);
}

}  // namespace

void bind_conv2d(py::module_& module) {
  module.def("conv2d", &conv2d);
  module.def("conv2d_taking_over", &conv2d_taking_over);
  module.def("conv2d_tile", &conv2d_tile);
  module.def("conv2d_pack", &conv2d_pack);
}

}  // namespace fastcv

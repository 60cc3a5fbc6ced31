#include "core/arena.h"
#include "core/dispatch.h"
#include "ops/conv_transpose/conv_transpose.h"

namespace py = pybind11;

namespace fastcv {
namespace {

constexpr int64_t kMostSize = (int64_t{1} << 31) - 1;

// How the kernel moves over the output, along each spatial axis, and over the channels.
struct Options {
  const Ints &stride, &padding, &output_padding, &dilation;
  int64_t groups;
};

void check_option(const char* name, const Ints& values, int spatial, int64_t least) {
  const std::string came = describe_sizes(values.values, values.count);
  if (values.count != spatial) refuse(name, "have one value per axis, " + std::to_string(spatial), came);
  for (int i = 0; i < spatial; ++i) {
    if (values[i] >= least && values[i] <= kMostSize) continue;
    refuse(name, "be from " + std::to_string(least) + " to 2^31 - 1 along each axis", came);
  }
}

void check_options(int spatial, const Options& options) {
  check_option("stride", options.stride, spatial, 1);
  check_option("padding", options.padding, spatial, 0);
  check_option("output_padding", options.output_padding, spatial, 0);
  check_option("dilation", options.dilation, spatial, 1);
  for (int i = 0; i < spatial; ++i) {
    const int64_t extra = options.output_padding[i];
    if (extra < options.stride[i] || extra < options.dilation[i]) continue;
    refuse("output_padding",
           "be smaller than stride " + describe_sizes(options.stride.values, spatial) + " or dilation " +
               describe_sizes(options.dilation.values, spatial) + " along each axis",
           describe_sizes(options.output_padding.values, spatial));
  }
}

// (N, C, ...), of a floating dtype, with the spatial axes that the options are for.
void check_map(Argument map, const Options& options) {
  const int spatial = options.stride.count;
  const char* const meanings[] = {"(N, C, L)", "(N, C, H, W)", "(N, C, D, H, W)"};
  if (spatial < 1 || spatial > 3) refuse("stride", "be 1 to 3 ints", std::to_string(spatial));
  if (map.view.rank != spatial + 2) {
    refuse(map.name, std::string("have shape ") + meanings[spatial - 1] + ", with or without N",
           describe_shape(map.view));
  }
  check_floating(map);
}

void check_weight(const TensorView& weight, Argument map) {
  if (weight.rank != map.view.rank) {
    refuse("weight", "have shape (C, O / groups, *kernel size), " + std::to_string(map.view.rank) + " axes",
           describe_shape(weight));
  }
  check_same_dtype({weight, "weight"}, map);
  check_same_device({weight, "weight"}, map);
}

void check_groups(const char* name, int64_t channels, int64_t groups) {
  if (groups >= 1 && channels % groups == 0) return;
  refuse("groups", "be positive and divide the " + std::to_string(channels) + " channels of " + name,
         std::to_string(groups));
}

// Sizes, and all that follows from them. `input`, `kernel` are spatial sizes; of an output that is given, `output` is
// what came.
ConvTransposeParams make_params(int spatial, int64_t batch, int64_t in_channels, int64_t out_channels,
                                const int64_t* input, const int64_t* kernel, const Options& options, DType dtype) {
  ConvTransposeParams params{};
  params.dtype = dtype;
  params.batch = batch;
  params.groups = options.groups;
  params.in_channels = in_channels / options.groups;
  params.out_channels = out_channels / options.groups;
  for (ConvAxis& axis : params.axes) axis = {1, 1, 1, 1, 0, 1};
  int64_t output[3];
  bool fits = true;
  for (int i = 0; i < spatial; ++i) {
    if (kernel[i] < 1 || kernel[i] > kMostSize) {
      refuse("weight", "have a kernel of 1 to 2^31 - 1 elements along each axis", describe_sizes(kernel, spatial));
    }
    if (input[i] < 0 || input[i] > kMostSize) {
      refuse("input", "have 0 to 2^31 - 1 pixels along each axis", describe_sizes(input, spatial));
    }
    const int64_t stride = options.stride[i], padding = options.padding[i], dilation = options.dilation[i];
    output[i] = (input[i] - 1) * stride - 2 * padding + dilation * (kernel[i] - 1) + options.output_padding[i] + 1;
    fits = fits && output[i] >= 1;
    params.axes[3 - spatial + i] = {input[i], output[i], kernel[i], stride, padding, dilation};
  }
  if (!fits) {
    refuse("padding", "leave an output of at least one element along each axis",
           describe_sizes(options.padding.values, spatial) + ": an output of size " + describe_sizes(output, spatial));
  }
  for (int i = 0; i < spatial; ++i) {
    if (output[i] <= kMostSize) continue;
    refuse("stride and dilation", "give an output of at most 2^31 - 1 elements along each axis",
           describe_sizes(output, spatial));
  }
  return params;
}

// grad_output must be as large as the output.
void check_output(const TensorView& grad_output, const ConvTransposeParams& params) {
  int64_t shape[] = {params.batch, params.groups * params.out_channels, 0, 0, 0};
  const int spatial = grad_output.rank - 2;
  bool matches = grad_output.shape[0] == shape[0] && grad_output.shape[1] == shape[1];
  for (int i = 0; i < spatial; ++i) {
    shape[2 + i] = params.axes[3 - spatial + i].output;
    matches = matches && grad_output.shape[2 + i] == shape[2 + i];
  }
  if (matches) return;
  refuse("grad_output", "have the shape of the output, " + describe_sizes(shape, grad_output.rank),
         describe_shape(grad_output));
}

// ---- memory ---------------------------------------------------------------------------------------------------------

// What a kernel reads. Tensor cores read only sources that have channels innermost.
TensorView as_source(const TensorView& view, int64_t groups, bool tf32) {
  TensorView source = dense(view);
  if (runs_on_cpu(view) || view.is_description || is_channels_last(source)) return source;
  const int64_t unit = size_of(view.dtype) == 2 ? 8 : 4;
  if ((!tf32 && unit != 8) || view.shape[1] % (unit * groups) != 0) return source;
  py::object copy = py::handle(source.object).attr("movedim")(1, -1).attr("contiguous")().attr("movedim")(-1, 1);
  source = view_of(copy.ptr());
  source.copy = std::move(copy);
  return source;
}

int64_t packed_size(const ConvTransposeParams& params, bool forward) {
  const int64_t taps = params.axes[0].kernel * params.axes[1].kernel * params.axes[2].kernel;
  const int64_t depth = forward ? params.in_channels : params.out_channels;
  const int64_t columns = forward ? params.out_channels : params.in_channels;
  return packed_bytes(params.dtype, params.groups, taps, depth, columns);
}

// The weight as its kernel reads it.
NewTensor pack(ConvTransposeParams params, const TensorView& weight, bool forward) {
  NewTensor packed = new_workspace(weight, packed_size(params, forward));
  params.weight = weight.data;
  params.packs_forward = forward;
  params.packed = packed.view.data;
  if (weight.elements() > 0) FASTCV_RUN(conv_transpose_pack, params, weight);
  return packed;
}

// ---- the three products ---------------------------------------------------------------------------------------------

py::object conv_transpose(const TensorView& input, const TensorView& weight, const OptionalTensor& bias,
                          const Ints& stride, const Ints& padding, const Ints& output_padding, int64_t groups,
                          const Ints& dilation, bool relu, const OptionalTensor& packed) {
  const Options options{stride, padding, output_padding, dilation, groups};
  const Argument first{input, "input"};
  check_map(first, options);
  check_weight(weight, first);
  if (weight.shape[0] != input.shape[1]) {
    refuse("weight", "have one row per channel of input (" + std::to_string(input.shape[1]) + ")",
           "shape " + describe_shape(weight));
  }
  check_groups("input", input.shape[1], groups);
  const int spatial = stride.count;
  check_options(spatial, options);
  int64_t shape[TensorView::kMaxRank] = {input.shape[0], multiply_sizes(weight.shape[1], groups)};
  ConvTransposeParams params =
      make_params(spatial, shape[0], input.shape[1], shape[1], input.shape + 2, weight.shape + 2, options, input.dtype);
  for (int i = 0; i < spatial; ++i) shape[2 + i] = params.axes[3 - spatial + i].output;
  TensorView wide_bias;
  if (bias) {
    check_shape({bias, "bias"}, {shape[1]}, "(O,)");
    check_same_dtype({bias, "bias"}, first);
    check_same_device({bias, "bias"}, first);
    wide_bias = converted(bias, accumulate_dtype(input.dtype));
    params.bias = wide_bias.data;
  }
  if (packed) {
    check_shape({packed, "packed"}, {packed_size(params, true)}, "(bytes,)");
    check_dtype({packed, "packed"}, DType::kUInt8);
    check_same_device({packed, "packed"}, first);
  }
  const ArenaScope scope(packed || arena_is_on());  // who keeps the weight packed runs again
  NewTensor output = new_dense(input, input.dtype, shape);
  if (input.is_description || output.view.elements() == 0) return std::move(output.object);
  params.tf32 = may_use_tf32(input);
  const TensorView source = as_source(input, groups, params.tf32), kernel = contiguous(weight);
  NewTensor made;  // on CUDA; on the CPU the kernel packs into memory that lives between calls
  if (packed) {
    params.packed = packed.data;
  } else if (!runs_on_cpu(weight)) {
    made = pack(params, kernel, true);
    params.packed = made.view.data;
  }
  params.input = source.data;
  params.weight = kernel.data;
  params.output = output.view.data;
  params.relu = relu;
  params.input_channels_last = is_channels_last(source);
  params.output_channels_last = is_channels_last(output.view);
  FASTCV_RUN(conv_transpose_forward, params, input);
  return std::move(output.object);
}

py::object conv_transpose_backward_input(const TensorView& grad_output, const TensorView& weight, const Ints& size,
                                         const Ints& stride, const Ints& padding, const Ints& output_padding,
                                         int64_t groups, const Ints& dilation) {
  const Options options{stride, padding, output_padding, dilation, groups};
  const Argument first{grad_output, "grad_output"};
  check_map(first, options);
  check_weight(weight, first);
  check_groups("input", weight.shape[0], groups);
  const int spatial = stride.count;
  check_options(spatial, options);
  check_option("size", size, spatial, 0);
  ConvTransposeParams params =
      make_params(spatial, grad_output.shape[0], weight.shape[0], multiply_sizes(weight.shape[1], groups), size.values,
                  weight.shape + 2, options, grad_output.dtype);
  check_output(grad_output, params);
  int64_t shape[TensorView::kMaxRank] = {grad_output.shape[0], weight.shape[0]};
  for (int i = 0; i < spatial; ++i) shape[2 + i] = size[i];
  NewTensor grad_input = new_dense(grad_output, grad_output.dtype, shape);
  if (grad_output.is_description || grad_input.view.elements() == 0) return std::move(grad_input.object);
  params.tf32 = may_use_tf32(grad_output);
  const TensorView source = as_source(grad_output, groups, params.tf32), kernel = contiguous(weight);
  NewTensor made;
  if (!runs_on_cpu(weight)) {
    made = pack(params, kernel, false);
    params.packed = made.view.data;
  }
  params.input = grad_input.view.data;
  params.weight = kernel.data;
  params.output = source.data;
  params.input_channels_last = is_channels_last(grad_input.view);
  params.output_channels_last = is_channels_last(source);
  FASTCV_RUN(conv_transpose_backward_input, params, grad_output);
  return std::move(grad_input.object);
}

py::object conv_transpose_backward_weight(const TensorView& input, const TensorView& grad_output,
                                          const Ints& kernel_size, const Ints& stride, const Ints& padding,
                                          const Ints& output_padding, int64_t groups, const Ints& dilation) {
  const Options options{stride, padding, output_padding, dilation, groups};
  const Argument first{input, "input"};
  check_map(first, options);
  check_map({grad_output, "grad_output"}, options);
  check_same_dtype({grad_output, "grad_output"}, first);
  check_same_device({grad_output, "grad_output"}, first);
  check_groups("input", input.shape[1], groups);
  check_groups("grad_output", grad_output.shape[1], groups);
  const int spatial = stride.count;
  check_options(spatial, options);
  check_option("kernel_size", kernel_size, spatial, 1);
  ConvTransposeParams params = make_params(spatial, input.shape[0], input.shape[1], grad_output.shape[1],
                                           input.shape + 2, kernel_size.values, options, input.dtype);
  check_output(grad_output, params);
  int64_t shape[TensorView::kMaxRank] = {input.shape[1], params.out_channels};
  for (int i = 0; i < spatial; ++i) shape[2 + i] = kernel_size[i];
  NewTensor grad_weight = new_contiguous(input, input.dtype, shape, input.rank);
  if (input.is_description || grad_weight.view.elements() == 0) return std::move(grad_weight.object);
  params.tf32 = may_use_tf32(input);
  const TensorView left = as_source(input, groups, params.tf32), right = as_source(grad_output, groups, params.tf32);
  NewTensor workspace;
  if (const int64_t pieces = runs_on_cpu(input) ? 1 : conv_weight_pieces(params); pieces > 1) {
    workspace = new_contiguous(input, accumulate_dtype(input.dtype), {pieces, grad_weight.view.elements()});
    params.workspace = workspace.view.data;
  }
  params.input = left.data;
  params.weight = grad_weight.view.data;
  params.output = right.data;
  params.input_channels_last = is_channels_last(left);
  params.output_channels_last = is_channels_last(right);
  FASTCV_RUN(conv_transpose_backward_weight, params, input);
  return std::move(grad_weight.object);
}

// The weight as the kernel of conv_transpose reads it, for calls to come.
py::object conv_transpose_pack(const TensorView& weight, int64_t groups) {
  if (weight.rank < 3 || weight.rank > 5) refuse("weight", "have 3 to 5 axes", describe_shape(weight));
  check_floating({weight, "weight"});
  check_groups("input", weight.shape[0], groups);
  ConvTransposeParams params{};
  params.dtype = weight.dtype;
  params.groups = groups;
  params.in_channels = weight.shape[0] / groups;
  params.out_channels = weight.shape[1];
  for (ConvAxis& axis : params.axes) axis = {1, 1, 1, 1, 0, 1};
  for (int i = 2; i < weight.rank; ++i) params.axes[i - 2].kernel = weight.shape[i];
  const ArenaScope scope(false);  // what is packed stays
  return std::move(pack(params, contiguous(weight), true).object);
}

}  // namespace

void bind_conv_transpose(py::module_& module) {
  module.def("conv_transpose", &conv_transpose);
  module.def("conv_transpose_backward_input", &conv_transpose_backward_input);
  module.def("conv_transpose_backward_weight", &conv_transpose_backward_weight);
  module.def("conv_transpose_pack", &conv_transpose_pack);
}

}  // namespace fastcv

#include "core/dispatch.h"
#include "core/tensor.h"
#include "ops/conv_transpose/conv_transpose.h"

namespace py = pybind11;

namespace fastcv {
namespace {

constexpr int64_t kMostSize = (int64_t{1} << 31) - 1;

[[noreturn]] void refuse(const char* name, const std::string& expected) {
  throw py::value_error(std::string(name) + " must " + expected);
}

// Whether the channels lie innermost; else the tensor must be contiguous.
bool is_channels_last(Argument argument) {
  const TensorView& view = argument.view;
  const auto matches = [&](bool channels_last) {
    int64_t stride = 1;
    if (channels_last) {
      if (view.shape[1] != 1 && view.strides[1] != 1) return false;
      stride = view.shape[1];
    }
    for (int i = view.rank - 1; i >= 0; --i) {
      if (channels_last && i == 1) continue;
      if (view.shape[i] != 1 && view.strides[i] != stride) return false;
      stride *= view.shape[i];
    }
    return true;
  };
  if (view.elements() == 0 || matches(true)) return true;
  if (!matches(false)) refuse(argument.name, "be contiguous or channels_last");
  return false;
}

// `geometry` holds stride, padding and dilation of each spatial axis, in this order.
ConvTransposeParams make_params(const TensorView& input, const TensorView& weight, const TensorView& output,
                                const py::tuple& geometry, int64_t groups) {
  const int rank = input.rank, spatial = rank - 2;
  if (rank < 3 || rank > 5) refuse("input", "have 3, 4 or 5 axes, got " + std::to_string(rank));
  if (weight.rank != rank) refuse("weight", "have as many axes as input, got " + std::to_string(weight.rank));
  if (output.rank != rank) refuse("output", "have as many axes as input, got " + std::to_string(output.rank));
  check_floating({input, "input"});
  check_same_dtype({weight, "weight"}, {input, "input"});
  check_same_dtype({output, "output"}, {input, "input"});
  check_same_device({weight, "weight"}, {input, "input"});
  check_same_device({output, "output"}, {input, "input"});
  check_contiguous({weight, "weight"});
  if (groups < 1 || input.shape[1] % groups != 0) refuse("groups", "divide the channels of input");
  if (weight.shape[0] != input.shape[1]) refuse("weight", "have one row per channel of input");
  if (output.shape[0] != input.shape[0]) refuse("output", "have the batch of input");
  if (output.shape[1] != weight.shape[1] * groups) refuse("output", "have groups times the channels of weight");
  if (geometry.size() != static_cast<size_t>(3 * spatial)) refuse("geometry", "have three numbers per axis");
  ConvTransposeParams params{};
  for (ConvAxis& axis : params.axes) axis = {1, 1, 1, 1, 0, 1};
  for (int i = 0; i < spatial; ++i) {
    ConvAxis& axis = params.axes[3 - spatial + i];
    axis = {input.shape[2 + i],
            output.shape[2 + i],
            weight.shape[2 + i],
            geometry[i].cast<int64_t>(),
            geometry[spatial + i].cast<int64_t>(),
            geometry[2 * spatial + i].cast<int64_t>()};
    for (int64_t size : {axis.input, axis.output, axis.kernel, axis.stride, axis.padding, axis.dilation}) {
      if (size < 0 || size > kMostSize) refuse("geometry", "have sizes from 0 to 2^31 - 1");
    }
    if (axis.kernel < 1 || axis.stride < 1 || axis.dilation < 1) refuse("geometry", "have positive steps");
  }
  params.input = input.data;
  params.weight = weight.data;
  params.output = output.data;
  params.dtype = input.dtype;
  params.batch = input.shape[0];
  params.groups = groups;
  params.in_channels = input.shape[1] / groups;
  params.out_channels = weight.shape[1];
  params.input_channels_last = is_channels_last({input, "input"});
  params.output_channels_last = is_channels_last({output, "output"});
  return params;
}

// Looks at the packed weight, which has no layout that a user knows of.
void take_packed(ConvTransposeParams& params, const py::object& packed, const TensorView& weight, bool forward) {
  if (packed.is_none()) {
    if (!runs_on_cpu(weight)) refuse("packed", "be given for the kernels of this device");
    return;
  }
  const TensorView view = view_of(packed.ptr());
  const int64_t taps = params.axes[0].kernel * params.axes[1].kernel * params.axes[2].kernel;
  const int64_t depth = forward ? params.in_channels : params.out_channels;
  const int64_t columns = forward ? params.out_channels : params.in_channels;
  check_shape({view, "packed"}, {packed_bytes(weight.dtype, params.groups, taps, depth, columns)}, "(bytes,)");
  check_dtype({view, "packed"}, DType::kUInt8);
  check_contiguous({view, "packed"});
  check_same_device({view, "packed"}, {weight, "weight"});
  params.packed = view.data;
}

ConvTransposeParams weight_params(const TensorView& weight, int64_t groups) {
  if (weight.rank < 3 || weight.rank > 5) refuse("weight", "have 3, 4 or 5 axes, got " + std::to_string(weight.rank));
  check_floating({weight, "weight"});
  check_contiguous({weight, "weight"});
  if (groups < 1 || weight.shape[0] % groups != 0) refuse("groups", "divide the rows of weight");
  ConvTransposeParams params{};
  for (ConvAxis& axis : params.axes) axis = {1, 1, 1, 1, 0, 1};
  for (int i = 2; i < weight.rank; ++i) params.axes[i - 2].kernel = weight.shape[i];
  params.weight = weight.data;
  params.dtype = weight.dtype;
  params.groups = groups;
  params.in_channels = weight.shape[0] / groups;
  params.out_channels = weight.shape[1];
  return params;
}

// The size of the packed weight.
int64_t conv_transpose_packed_bytes(const TensorView& weight, int64_t groups, bool forward) {
  const ConvTransposeParams params = weight_params(weight, groups);
  const int64_t taps = params.axes[0].kernel * params.axes[1].kernel * params.axes[2].kernel;
  return packed_bytes(params.dtype, groups, taps, forward ? params.in_channels : params.out_channels,
                      forward ? params.out_channels : params.in_channels);
}

void conv_transpose_pack(const TensorView& packed, const TensorView& weight, int64_t groups, bool forward) {
  ConvTransposeParams params = weight_params(weight, groups);
  params.packs_forward = forward;
  check_shape({packed, "packed"}, {conv_transpose_packed_bytes(weight, groups, forward)}, "(bytes,)");
  check_dtype({packed, "packed"}, DType::kUInt8);
  check_contiguous({packed, "packed"});
  check_same_device({packed, "packed"}, {weight, "weight"});
  params.packed = packed.data;
  if (weight.elements() == 0) return;
  FASTCV_RUN(conv_transpose_pack, params, weight);
}

void conv_transpose_forward(const TensorView& output, const TensorView& input, const TensorView& weight,
                            const py::object& packed, const py::object& bias, const py::tuple& geometry, int64_t groups,
                            bool relu, bool tf32) {
  ConvTransposeParams params = make_params(input, weight, output, geometry, groups);
  params.relu = relu;
  params.tf32 = tf32;
  take_packed(params, packed, weight, true);
  if (!bias.is_none()) {
    const TensorView view = view_of(bias.ptr());
    check_shape({view, "bias"}, {output.shape[1]}, "(O,)");
    check_dtype({view, "bias"}, accumulate_dtype(input.dtype));
    check_same_device({view, "bias"}, {input, "input"});
    check_contiguous({view, "bias"});
    params.bias = view.data;
  }
  if (output.elements() == 0) return;
  FASTCV_RUN(conv_transpose_forward, params, output);
}

void conv_transpose_backward_input(const TensorView& input, const TensorView& output, const TensorView& weight,
                                   const py::object& packed, const py::tuple& geometry, int64_t groups, bool tf32) {
  ConvTransposeParams params = make_params(input, weight, output, geometry, groups);
  params.tf32 = tf32;
  take_packed(params, packed, weight, false);
  if (input.elements() == 0) return;
  FASTCV_RUN(conv_transpose_backward_input, params, input);
}

// How many elements the workspace of the kernel below has, in the dtype of the sums; 0 where it needs none.
int64_t workspace_elements(const ConvTransposeParams& params, const TensorView& weight) {
  if (runs_on_cpu(weight)) return 0;
  const int64_t pieces = conv_weight_pieces(params);
  return pieces == 1 ? 0 : pieces * weight.elements();
}

int64_t conv_transpose_workspace(const TensorView& weight, const TensorView& input, const TensorView& output,
                                 const py::tuple& geometry, int64_t groups) {
  return workspace_elements(make_params(input, weight, output, geometry, groups), weight);
}

void conv_transpose_backward_weight(const TensorView& weight, const TensorView& input, const TensorView& output,
                                    const py::tuple& geometry, int64_t groups, const py::object& workspace, bool tf32) {
  ConvTransposeParams params = make_params(input, weight, output, geometry, groups);
  params.tf32 = tf32;
  if (weight.elements() == 0) return;
  if (const int64_t elements = workspace_elements(params, weight); elements > 0) {
    const TensorView view = view_of(workspace.ptr());
    check_shape({view, "workspace"}, {elements}, "(elements,)");
    check_dtype({view, "workspace"}, accumulate_dtype(weight.dtype));
    check_contiguous({view, "workspace"});
    check_same_device({view, "workspace"}, {weight, "weight"});
    params.workspace = view.data;
  }
  FASTCV_RUN(conv_transpose_backward_weight, params, weight);
}

}  // namespace

void bind_conv_transpose(py::module_& module) {
  module.def("conv_transpose_packed_bytes", &conv_transpose_packed_bytes);
  module.def("conv_transpose_pack", &conv_transpose_pack);
  module.def("conv_transpose_forward", &conv_transpose_forward);
  module.def("conv_transpose_backward_input", &conv_transpose_backward_input);
  module.def("conv_transpose_workspace", &conv_transpose_workspace);
  module.def("conv_transpose_backward_weight", &conv_transpose_backward_weight);
}

}  // namespace fastcv

#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "core/arena.h"
#include "core/dispatch.h"
#include "core/epilogue_bind.h"
#include "ops/sparse_conv/sparse_conv.h"

namespace py = pybind11;

namespace fastcv {
namespace {

constexpr int64_t kMaxConvRows = int64_t{1} << 31;

// Checks features (N, C) with C = groups * channels, and returns the channels of a group.
int64_t check_conv_features(Argument features, int64_t groups, const char* meaning) {
  check_shape(features, {kAny, kAny}, meaning);
  check_floating(features);
  const int64_t channels = features.view.shape[1];
  if (groups < 1 || channels % groups != 0) {
    refuse(
        "groups",
        std::string("be positive and divide the channels of ") + features.name + " (" + std::to_string(channels) + ")",
        std::to_string(groups));
  }
  check_fewer(features.name, "rows", features.view.shape[0], kMaxConvRows);
  return channels / groups;
}

void check_conv_map(Argument map, std::initializer_list<int64_t> shape, const char* meaning, Argument features) {
  check_shape(map, shape, meaning);
  check_dtype(map, DType::kInt32);
  check_same_device(map, features);
  check_fewer(map.name, "columns", map.view.shape[1], kMaxConvRows);
}

// Checks neighbours (K, M), and returns them as kernels read them.
TensorView read_neighbours(const TensorView& neighbours, Argument features) {
  check_conv_map({neighbours, "neighbours"}, {kAny, kAny}, "(K, M)", features);
  if (neighbours.shape[0] < 1) {
    refuse("neighbours", "have a row for each kernel element, one at least", describe_shape(neighbours));
  }
  return contiguous(neighbours);
}

// The same where gradients may be wanted: with reverse, (K, N) or without rows.
TensorView checked_neighbours(const TensorView& neighbours, const OptionalTensor& reverse, Argument features) {
  TensorView map = read_neighbours(neighbours, features);
  const int64_t volume = neighbours.shape[0], rows = features.view.shape[0];
  if (reverse && reverse.rank == 2 && reverse.shape[0] == 0) {
    check_conv_map({reverse, "reverse"}, {0, rows}, "(0, N)", features);
  } else if (reverse) {
    check_conv_map({reverse, "reverse"}, {volume, rows}, "(K, N)", features);
  } else if (volume % 2 == 0 || neighbours.shape[1] != rows) {
    refuse_type("reverse", "be a torch.Tensor where neighbours cannot be its own mirror image", "None");
  }
  return map;
}

// The stride of the three kernel axes of a weight (C_out, kz, ky, kx, C_in / groups) as one axis; false if there is no
// such stride.
bool find_element_stride(const TensorView& weight, int64_t& stride) {
  bool found = false;
  int64_t expected = 0;
  stride = 0;
  for (int axis = 3; axis >= 1; --axis) {
    if (weight.shape[axis] == 1) continue;
    if (found && weight.strides[axis] != expected) return false;
    if (!found) stride = weight.strides[axis];
    found = true;
    expected = weight.strides[axis] * weight.shape[axis];
  }
  return true;
}

// The weight with kernel axes that can be viewed as one, and for CUDA, whose kernels copy runs of input channels, with
// these side by side.
TensorView readable_weight(const TensorView& weight, int64_t& element_stride) {
  if (find_element_stride(weight, element_stride) && (runs_on_cpu(weight) || weight.strides[4] == 1)) return weight;
  const TensorView made = contiguous(weight);
  find_element_stride(made, element_stride);
  return made;
}

int64_t kernel_elements(const TensorView& weight) {
  return multiply_sizes(multiply_sizes(weight.shape[1], weight.shape[2]), weight.shape[3]);
}

int64_t packed_bytes(const TensorView& weight, int64_t groups) {
  return FASTCV_VARIANT::sparse_conv_packed_bytes(groups, kernel_elements(weight), weight.shape[4],
                                                  weight.shape[0] / groups, size_of(accumulate_dtype(weight.dtype)));
}

// The rows (K, M) of a map, and the weight over them, whose group has so many input channels.
void check_conv_weight(const TensorView& weight, const TensorView& map, int64_t in_channels, int64_t groups,
                       Argument like) {
  check_shape({weight, "weight"}, {kAny, kAny, kAny, kAny, in_channels}, "(C_out, kz, ky, kx, C_in / groups)");
  check_same_dtype({weight, "weight"}, like);
  check_same_device({weight, "weight"}, like);
  if (kernel_elements(weight) != map.shape[0]) {
    refuse("weight", "have as many kernel elements as neighbours has rows (" + std::to_string(map.shape[0]) + ")",
           std::to_string(kernel_elements(weight)));
  }
  if (weight.shape[0] % groups != 0) {
    refuse("groups", "divide the output channels of weight (" + std::to_string(weight.shape[0]) + ")",
           std::to_string(groups));
  }
}

// Sets what a kernel needs of a weight that readable_weight gave.
void set_weight(SparseConvParams& p, const TensorView& kernel, int64_t groups) {
  p.weight = kernel.data;
  p.groups = groups;
  p.out_channels = kernel.shape[0] / groups;
  p.out_stride = kernel.strides[0];
  p.group_stride = kernel.strides[0] * p.out_channels;
  p.in_stride = kernel.strides[4];
}

// Convolves over a map that has been checked.
py::object run_sparse_conv(const TensorView& features, const TensorView& weight, const OptionalTensor& bias,
                           const TensorView& map, int64_t groups, const OptionalTensor& order) {
  const Argument like{features, "features"};
  SparseConvParams p{};
  p.in_channels = features.shape[1] / groups;
  p.volume = map.shape[0];
  check_conv_weight(weight, map, p.in_channels, groups, like);
  const TensorView input = contiguous(features), kernel = readable_weight(weight, p.element_stride);
  TensorView offsets, rows;
  if (bias) offsets = checked_like({bias, "bias"}, {weight.shape[0]}, "(C_out,)", like);
  if (order) rows = checked({order, "order"}, {map.shape[1]}, "(M,)", DType::kInt32, like);
  NewTensor output = new_contiguous(features, features.dtype, {map.shape[1], weight.shape[0]});
  p.input = input.data;
  set_weight(p, kernel, groups);
  p.bias = offsets.data;
  p.neighbours = map.as<int32_t>();
  p.order = rows.as<int32_t>();
  p.output = output.view.data;
  p.dtype = features.dtype;
  p.tf32 = may_use_tf32(features);
  p.inputs = features.shape[0];
  p.outputs = map.shape[1];
  if (output.view.elements() > 0) FASTCV_RUN(sparse_conv, p, features);
  return std::move(output.object);
}

py::object sparse_conv(const TensorView& features, const TensorView& weight, const OptionalTensor& bias,
                       const TensorView& neighbours, const OptionalTensor& reverse, int64_t groups,
                       const OptionalTensor& order, const OptionalTensor& reverse_order) {
  const Argument like{features, "features"};
  check_conv_features(like, groups, "(N, C_in)");
  const TensorView map = checked_neighbours(neighbours, reverse, like);
  if (reverse_order) {
    check_shape({reverse_order, "reverse_order"}, {features.shape[0]}, "(N,)");
    check_dtype({reverse_order, "reverse_order"}, DType::kInt32);
    check_same_device({reverse_order, "reverse_order"}, like);
  }
  return run_sparse_conv(features, weight, bias, map, groups, order);
}

// ---- inference ----

// The same where there is no kernel: by torch around sparse_conv.
py::object infer_with_torch(const TensorView& features, const OptionalTensor& beside, const TensorView& weight,
                            const OptionalTensor& bias, const TensorView& map, int64_t groups,
                            const OptionalTensor& order, const OptionalTensor& residual, Activation activation,
                            double negative_slope) {
  py::object output;
  if (beside) {
    const py::object both = py::module_::import("torch").attr("cat")(
        py::make_tuple(py::handle(features.object), py::handle(beside.object)), 1);
    output = run_sparse_conv(view_of(both.ptr()), weight, bias, map, groups, order);
  } else {
    output = run_sparse_conv(features, weight, bias, map, groups, order);
  }
  return finish_with_torch(std::move(output), residual, activation, negative_slope);
}

// activation(sparse_conv([features, beside], weight, bias, neighbours) + residual), without derivatives. With `packed`,
// what sparse_conv_pack has made of `weight`, that is only looked at for its shape.
py::object sparse_conv_inference(const TensorView& features, const OptionalTensor& beside, const TensorView& weight,
                                 const OptionalTensor& bias, const TensorView& neighbours, int64_t groups,
                                 const OptionalTensor& order, const OptionalTensor& residual,
                                 const std::optional<std::string>& activation, double negative_slope,
                                 const OptionalTensor& packed) {
  const Argument like{features, "features"};
  SparseConvInferenceParams params{};
  SparseConvParams& p = params.conv;
  params.activation = activation_of(activation);
  params.negative_slope = negative_slope;
  p.in_channels = check_conv_features(like, groups, "(N, C_in)");
  TensorView more, other, offsets;
  if (beside) {
    more = checked_like({beside, "beside"}, {features.shape[0], features.shape[1]}, "(N, C_in)", like);
    if (groups != 1) refuse("groups", "be 1 where there is beside", std::to_string(groups));
  }
  const TensorView map = read_neighbours(neighbours, like);
  check_conv_weight(weight, map, p.in_channels * (beside ? 2 : 1), groups, like);
  if (bias) offsets = checked_like({bias, "bias"}, {weight.shape[0]}, "(C_out,)", like);
  if (residual) {
    other = checked_like({residual, "residual"}, {map.shape[1], weight.shape[0]}, "(M, C_out)", like);
  }
  if (!runs_on_cpu(features) || features.is_description) {
    return infer_with_torch(features, beside, weight, bias, map, groups, order, residual, params.activation,
                            negative_slope);
  }
  const TensorView input = contiguous(features);
  const ArenaScope scope(packed || arena_is_on());  // who keeps the weight packed runs again
  NewTensor output = new_contiguous(features, features.dtype, {map.shape[1], weight.shape[0]});
  p.volume = map.shape[0];
  TensorView kernel = weight;
  if (packed) {
    check_dtype({packed, "packed"}, DType::kUInt8);
    check_shape({packed, "packed"}, {packed_bytes(weight, groups)}, "what sparse_conv_pack makes of weight");
  } else {
    kernel = readable_weight(weight, p.element_stride);
  }
  set_weight(p, kernel, groups);
  p.input = input.data;
  p.bias = offsets.data;
  p.neighbours = map.as<int32_t>();
  p.output = output.view.data;
  p.dtype = features.dtype;
  p.inputs = features.shape[0];
  p.outputs = map.shape[1];
  params.beside = more.data;
  params.packed = packed.data;
  params.residual = other.data;
  if (output.view.elements() > 0) FASTCV_RUN_ON_CPU(sparse_conv_inference, params);
  return std::move(output.object);
}

// The weight as sparse_conv_inference reads it, with or without `beside`. None on CUDA.
py::object sparse_conv_pack(const TensorView& weight, int64_t groups, bool has_beside) {
  const int64_t parts = has_beside ? 2 : 1;
  check_shape({weight, "weight"}, {kAny, kAny, kAny, kAny, kAny}, "(C_out, kz, ky, kx, C_in / groups)");
  check_floating({weight, "weight"});
  if (groups < 1 || weight.shape[0] % groups != 0 || weight.shape[4] % parts != 0) {
    refuse("groups", "divide the output channels of weight, of an even number of input channels with beside",
           std::to_string(groups) + " and a weight of shape " + describe_shape(weight));
  }
  if (!runs_on_cpu(weight)) return py::none();
  const ArenaScope scope(false);  // what is packed stays
  NewTensor packed = new_workspace(weight, packed_bytes(weight, groups));
  SparseConvInferenceParams params{};
  const TensorView kernel = readable_weight(weight, params.conv.element_stride);
  set_weight(params.conv, kernel, groups);
  params.conv.in_channels = weight.shape[4] / parts;
  params.conv.volume = kernel_elements(weight);
  params.conv.dtype = weight.dtype;
  params.conv.output = packed.view.data;
  if (has_beside) params.beside = kernel.data;  // any: what it points to is not read
  if (!weight.is_description && weight.elements() > 0) FASTCV_RUN_ON_CPU(sparse_conv_pack, params);
  return std::move(packed.object);
}

py::object sparse_conv_weight(const TensorView& features, const TensorView& grad_output, const TensorView& neighbours,
                              const OptionalTensor& reverse, int64_t kz, int64_t ky, int64_t kx, int64_t groups) {
  const Argument like{features, "features"};
  SparseConvWeightParams p{};
  p.in_channels = check_conv_features(like, groups, "(N, C_in)");
  p.out_channels = check_conv_features({grad_output, "grad_output"}, groups, "(M, C_out)");
  const TensorView input = contiguous(features), map = checked_neighbours(neighbours, reverse, like);
  p.volume = map.shape[0];
  p.outputs = map.shape[1];
  const TensorView gradient =
      checked_like({grad_output, "grad_output"}, {p.outputs, grad_output.shape[1]}, "(M, C_out)", like);
  check_at_least("kz", kz, 1);
  check_at_least("ky", ky, 1);
  check_at_least("kx", kx, 1);
  if (multiply_sizes(multiply_sizes(kz, ky), kx) != p.volume) {
    refuse("kz * ky * kx", "be the number of rows of neighbours (" + std::to_string(p.volume) + ")",
           std::to_string(kz * ky * kx));
  }
  NewTensor grad_weight = new_contiguous(features, features.dtype, {gradient.shape[1], kz, ky, kx, p.in_channels});
  NewTensor workspace;
  if (!runs_on_cpu(features) && grad_weight.view.elements() > 0) {
    const int64_t each = sparse_conv_weight_workspace_bytes(p.outputs, size_of(accumulate_dtype(features.dtype)));
    workspace = new_workspace(features, multiply_sizes(grad_weight.view.elements(), each));
  }
  p.input = input.data;
  p.grad_output = gradient.data;
  p.neighbours = map.as<int32_t>();
  p.grad_weight = grad_weight.view.data;
  p.workspace = workspace.view.data;
  p.dtype = features.dtype;
  p.tf32 = may_use_tf32(features);
  p.inputs = features.shape[0];
  p.groups = groups;
  if (grad_weight.view.elements() > 0) FASTCV_RUN(sparse_conv_weight, p, features);
  return std::move(grad_weight.object);
}

}  // namespace

void bind_sparse_conv(py::module_& module) {
  module.def("sparse_conv", &sparse_conv);
  module.def("sparse_conv_inference", &sparse_conv_inference);
  module.def("sparse_conv_pack", &sparse_conv_pack);
  module.def("sparse_conv_weight", &sparse_conv_weight);
}

}  // namespace fastcv

#include <string>

#include "core/dispatch.h"
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

// Checks neighbours (K, M) and reverse, (K, N) or without rows, and returns the first as kernels read it.
TensorView checked_neighbours(const TensorView& neighbours, const OptionalTensor& reverse, Argument features) {
  check_conv_map({neighbours, "neighbours"}, {kAny, kAny}, "(K, M)", features);
  const int64_t volume = neighbours.shape[0], rows = features.view.shape[0];
  if (volume < 1) refuse("neighbours", "have a row for each kernel element, one at least", describe_shape(neighbours));
  if (reverse && reverse.rank == 2 && reverse.shape[0] == 0) {
    check_conv_map({reverse, "reverse"}, {0, rows}, "(0, N)", features);
  } else if (reverse) {
    check_conv_map({reverse, "reverse"}, {volume, rows}, "(K, N)", features);
  } else if (volume % 2 == 0 || neighbours.shape[1] != rows) {
    refuse_type("reverse", "be a torch.Tensor where neighbours cannot be its own mirror image", "None");
  }
  return contiguous(neighbours);
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

py::object sparse_conv(const TensorView& features, const TensorView& weight, const OptionalTensor& bias,
                       const TensorView& neighbours, const OptionalTensor& reverse, int64_t groups,
                       const OptionalTensor& order, const OptionalTensor& reverse_order) {
  const Argument like{features, "features"};
  SparseConvParams p{};
  p.in_channels = check_conv_features(like, groups, "(N, C_in)");
  const TensorView input = contiguous(features), map = checked_neighbours(neighbours, reverse, like);
  p.volume = map.shape[0];
  check_shape({weight, "weight"}, {kAny, kAny, kAny, kAny, p.in_channels}, "(C_out, kz, ky, kx, C_in / groups)");
  check_same_dtype({weight, "weight"}, like);
  check_same_device({weight, "weight"}, like);
  if (kernel_elements(weight) != p.volume) {
    refuse("weight", "have as many kernel elements as neighbours has rows (" + std::to_string(p.volume) + ")",
           std::to_string(kernel_elements(weight)));
  }
  const int64_t channels = weight.shape[0];
  if (channels % groups != 0) {
    refuse("groups", "divide the output channels of weight (" + std::to_string(channels) + ")", std::to_string(groups));
  }
  const TensorView kernel = readable_weight(weight, p.element_stride);
  TensorView offsets, rows;
  if (bias) offsets = checked_like({bias, "bias"}, {channels}, "(C_out,)", like);
  if (order) rows = checked({order, "order"}, {map.shape[1]}, "(M,)", DType::kInt32, like);
  if (reverse_order) {
    check_shape({reverse_order, "reverse_order"}, {features.shape[0]}, "(N,)");
    check_dtype({reverse_order, "reverse_order"}, DType::kInt32);
    check_same_device({reverse_order, "reverse_order"}, like);
  }
  NewTensor output = new_contiguous(features, features.dtype, {map.shape[1], channels});
  p.input = input.data;
  p.weight = kernel.data;
  p.out_channels = channels / groups;
  p.out_stride = kernel.strides[0];
  p.group_stride = kernel.strides[0] * p.out_channels;
  p.in_stride = kernel.strides[4];
  p.bias = offsets.data;
  p.neighbours = map.as<int32_t>();
  p.order = rows.as<int32_t>();
  p.output = output.view.data;
  p.dtype = features.dtype;
  p.tf32 = may_use_tf32(features);
  p.inputs = features.shape[0];
  p.outputs = map.shape[1];
  p.groups = groups;
  if (output.view.elements() > 0) FASTCV_RUN(sparse_conv, p, features);
  return std::move(output.object);
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
  module.def("sparse_conv_weight", &sparse_conv_weight);
}

}  // namespace fastcv

#include <string>

#include "core/dispatch.h"
#include "core/tensor.h"
#include "ops/sparse_conv/sparse_conv.h"

namespace py = pybind11;

namespace fastcv {
namespace {

constexpr int64_t kMaxRows = int64_t{1} << 31;

// Checks features (N, C) with C = groups * channels, and returns the channels of a group.
int64_t check_features(Argument features, int64_t groups, const char* meaning) {
  check_shape(features, {kAny, kAny}, meaning);
  check_floating(features);
  check_contiguous(features);
  const int64_t channels = features.view.shape[1];
  if (groups < 1 || channels % groups != 0) {
    throw py::value_error("groups must be positive and divide the channels of " + std::string(features.name) + " (" +
                          std::to_string(channels) + "), got " + std::to_string(groups));
  }
  if (features.view.shape[0] >= kMaxRows) {
    throw py::value_error(std::string(features.name) + " must have fewer than 2^31 rows");
  }
  return channels / groups;
}

void check_map(Argument map, Argument features) {
  check_shape(map, {kAny, kAny}, "(K, M)");
  check_dtype(map, DType::kInt32);
  check_contiguous(map);
  check_same_device(map, features);
  if (map.view.shape[1] >= kMaxRows) throw py::value_error("neighbours must have fewer than 2^31 columns");
}

// weight is (C_out, kz, ky, kx, C_in / groups); its three kernel axes must be one axis with one stride.
void sparse_conv_forward(const TensorView& output, const TensorView& features, const TensorView& weight,
                         const py::object& bias, const TensorView& neighbours, int64_t groups, const py::object& order,
                         bool tf32) {
  SparseConvParams p{};
  p.in_channels = check_features({features, "features"}, groups, "(N, C_in)");
  check_map({neighbours, "neighbours"}, {features, "features"});
  p.volume = neighbours.shape[0];
  check_shape({weight, "weight"}, {kAny, kAny, kAny, kAny, p.in_channels}, "(C_out, kz, ky, kx, C_in / groups)");
  check_same_dtype({weight, "weight"}, {features, "features"});
  check_same_device({weight, "weight"}, {features, "features"});
  const int64_t* size = weight.shape;
  if (size[1] * size[2] * size[3] != p.volume) {
    throw py::value_error("weight must have as many kernel elements as neighbours has rows (" +
                          std::to_string(p.volume) + "), got " + std::to_string(size[1] * size[2] * size[3]));
  }
  const int64_t channels = size[0];
  if (channels % groups != 0) {
    throw py::value_error("groups must divide the output channels of weight (" + std::to_string(channels) + "), got " +
                          std::to_string(groups));
  }
  int64_t stride = 0, expected = 0;  // of the three kernel axes as one
  for (int axis = 3; axis >= 1; --axis) {
    if (size[axis] == 1) continue;
    if (stride == 0) {
      stride = weight.strides[axis];
    } else if (weight.strides[axis] != expected) {
      throw py::value_error("weight must have kernel axes that can be viewed as one");
    }
    expected = weight.strides[axis] * size[axis];
  }
  p.out_channels = channels / groups;
  p.out_stride = weight.strides[0];
  p.group_stride = weight.strides[0] * p.out_channels;
  p.element_stride = stride;
  p.in_stride = weight.strides[4];
  if (!bias.is_none()) {
    const TensorView view = view_of(bias.ptr());
    check_shape({view, "bias"}, {channels}, "(C_out,)");
    check_same_dtype({view, "bias"}, {features, "features"});
    check_contiguous({view, "bias"});
    check_same_device({view, "bias"}, {features, "features"});
    p.bias = view.data;
  }
  if (!order.is_none()) {
    const TensorView view = view_of(order.ptr());
    check_shape({view, "order"}, {neighbours.shape[1]}, "(M,)");
    check_dtype({view, "order"}, DType::kInt32);
    check_contiguous({view, "order"});
    check_same_device({view, "order"}, {features, "features"});
    p.order = static_cast<const int32_t*>(view.data);
  }
  p.tf32 = tf32;
  check_shape({output, "output"}, {neighbours.shape[1], channels}, "(M, C_out)");
  check_same_dtype({output, "output"}, {features, "features"});
  check_contiguous({output, "output"});
  check_same_device({output, "output"}, {features, "features"});
  if (output.elements() == 0) return;
  p.input = features.data;
  p.weight = weight.data;
  p.neighbours = static_cast<const int32_t*>(neighbours.data);
  p.output = output.data;
  p.dtype = features.dtype;
  p.inputs = features.shape[0];
  p.outputs = neighbours.shape[1];
  p.groups = groups;
  FASTCV_RUN(sparse_conv, p, features);
}

// On CUDA `workspace` holds sparse_conv_workspace() elements of the accumulating dtype.
void sparse_conv_weight(const TensorView& grad_weight, const TensorView& features, const TensorView& grad_output,
                        const TensorView& neighbours, int64_t groups, const py::object& workspace, bool tf32) {
  SparseConvWeightParams p{};
  p.tf32 = tf32;
  p.in_channels = check_features({features, "features"}, groups, "(N, C_in)");
  p.out_channels = check_features({grad_output, "grad_output"}, groups, "(M, C_out)");
  check_same_dtype({grad_output, "grad_output"}, {features, "features"});
  check_same_device({grad_output, "grad_output"}, {features, "features"});
  check_map({neighbours, "neighbours"}, {features, "features"});
  p.volume = neighbours.shape[0];
  p.outputs = neighbours.shape[1];
  p.groups = groups;
  if (grad_output.shape[0] != p.outputs) {
    throw py::value_error("grad_output must have as many rows as neighbours has columns (" + std::to_string(p.outputs) +
                          "), got " + std::to_string(grad_output.shape[0]));
  }
  check_shape({grad_weight, "grad_weight"}, {grad_output.shape[1], p.volume, p.in_channels}, "(C_out, K, C_in / G)");
  check_same_dtype({grad_weight, "grad_weight"}, {features, "features"});
  check_contiguous({grad_weight, "grad_weight"});
  check_same_device({grad_weight, "grad_weight"}, {features, "features"});
  if (grad_weight.elements() == 0) return;
  if (!workspace.is_none()) {
    const TensorView view = view_of(workspace.ptr());
    check_shape({view, "workspace"}, {grad_weight.elements() * FASTCV_VARIANT::weight_gradient_pieces(p.outputs)},
                "(elements,)");
    check_dtype({view, "workspace"}, accumulate_dtype(features.dtype));
    check_contiguous({view, "workspace"});
    check_same_device({view, "workspace"}, {features, "features"});
    p.workspace = view.data;
  }
  p.input = features.data;
  p.grad_output = grad_output.data;
  p.neighbours = static_cast<const int32_t*>(neighbours.data);
  p.grad_weight = grad_weight.data;
  p.dtype = features.dtype;
  p.inputs = features.shape[0];
  if (!runs_on_cpu(features) && p.workspace == nullptr) throw py::value_error("workspace must be a tensor");
  FASTCV_RUN(sparse_conv_weight, p, features);
}

}  // namespace

void bind_sparse_conv(py::module_& module) {
  module.def("sparse_conv_forward", &sparse_conv_forward);
  module.def("sparse_conv_weight", &sparse_conv_weight);
  module.def("sparse_conv_weight_pieces",
             [](int64_t outputs) { return FASTCV_VARIANT::weight_gradient_pieces(outputs); });
}

}  // namespace fastcv

#include "core/dispatch.h"
#include "core/tensor.h"
#include "ops/group_points/group_points.h"

namespace py = pybind11;

namespace fastcv {
namespace {

// `indices` is (B, P) for grouping; with weights (B, P, K).
GroupPointsParams make_params(const TensorView& features, const TensorView& grouped, const TensorView& indices,
                              const py::object& weights_object, const char* features_name, const char* grouped_name) {
  check_shape({features, features_name}, {kAny, kAny, kAny}, "(B, N, C)");
  check_floating({features, features_name});
  check_contiguous({features, features_name});
  GroupPointsParams params{};
  params.batch = features.shape[0];
  params.count = features.shape[1];
  params.channels = features.shape[2];
  params.terms = 1;
  if (weights_object.is_none()) {
    check_shape({indices, "indices"}, {params.batch, kAny}, "(B, P)");
  } else {
    check_shape({indices, "indices"}, {params.batch, kAny, kAny}, "(B, P, K)");
    params.terms = indices.shape[2];
    const TensorView weights = view_of(weights_object.ptr());
    check_shape({weights, "weights"}, {params.batch, indices.shape[1], params.terms}, "(B, P, K)");
    check_dtype({weights, "weights"}, accumulate_dtype(features.dtype));
    check_contiguous({weights, "weights"});
    check_same_device({weights, "weights"}, {features, features_name});
    params.weights = weights.data;
  }
  params.groups = indices.shape[1];
  check_dtype({indices, "indices"}, DType::kInt64);
  check_contiguous({indices, "indices"});
  check_same_device({indices, "indices"}, {features, features_name});
  check_shape({grouped, grouped_name}, {params.batch, params.groups, params.channels}, "(B, P, C)");
  check_same_dtype({grouped, grouped_name}, {features, features_name});
  check_contiguous({grouped, grouped_name});
  check_same_device({grouped, grouped_name}, {features, features_name});
  if (params.terms > INT32_MAX) throw py::value_error("indices must have fewer than 2^31 columns");
  params.features = features.data;
  params.indices = static_cast<const int64_t*>(indices.data);
  params.grouped = grouped.data;
  params.dtype = features.dtype;
  return params;
}

void group_points_forward(const TensorView& output, const TensorView& features, const TensorView& indices,
                          const py::object& weights) {
  const GroupPointsParams params = make_params(features, output, indices, weights, "features", "output");
  if (output.elements() == 0) return;
  FASTCV_RUN(group_points_forward, params, output);
}

const int64_t* sorted_entries(const py::object& tensor, const char* name, int64_t entries, const TensorView& like) {
  if (tensor.is_none()) throw py::type_error(std::string(name) + " must be a torch.Tensor here, got None");
  const TensorView view = view_of(tensor.ptr());
  check_shape({view, name}, {entries}, "(B * P * K,)");
  check_dtype({view, name}, DType::kInt64);
  check_contiguous({view, name});
  check_same_device({view, name}, {like, "grad_output"});
  return static_cast<const int64_t*>(view.data);
}

void group_points_backward(const TensorView& grad_features, const TensorView& grad_output, const TensorView& indices,
                           const py::object& weights, const py::object& sorted_rows, const py::object& order) {
  GroupPointsParams params = make_params(grad_features, grad_output, indices, weights, "grad_features", "grad_output");
  const int64_t entries = params.batch * params.groups * params.terms;
  if (entries > INT32_MAX) {
    throw py::value_error("indices must have fewer than 2^31 elements for a gradient, got " + std::to_string(entries));
  }
  if (!runs_on_cpu(grad_output)) {
    params.sorted_rows = sorted_entries(sorted_rows, "sorted_rows", entries, grad_output);
    params.order = sorted_entries(order, "order", entries, grad_output);
  }
  if (grad_features.elements() == 0) return;
  FASTCV_RUN(group_points_backward, params, grad_features);
}

}  // namespace

void bind_group_points(py::module_& module) {
  module.def("group_points_forward", &group_points_forward);
  module.def("group_points_backward", &group_points_backward);
}

}  // namespace fastcv

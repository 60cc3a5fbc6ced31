#include "core/dispatch.h"
#include "core/tensor.h"
#include "ops/sparse_pool/sparse_pool.h"

namespace py = pybind11;

namespace fastcv {
namespace {

// int32 (K, rows) of a map, or (rows, C) of an argmax, with fewer than 2^31 rows.
void check_index(Argument argument, std::initializer_list<int64_t> shape, const char* meaning, Argument other) {
  check_shape(argument, shape, meaning);
  check_dtype(argument, DType::kInt32);
  check_contiguous(argument);
  check_same_device(argument, other);
}

SparsePoolParams make_params(Argument target, Argument source, Argument map) {
  check_shape(source, {kAny, kAny}, "(rows, C)");
  check_floating(source);
  check_contiguous(source);
  check_index(map, {kAny, kAny}, "(K, rows)", source);
  check_shape(target, {map.view.shape[1], source.view.shape[1]}, "(rows of the map, C)");
  check_same_dtype(target, source);
  check_same_device(target, source);
  check_contiguous(target);
  for (const Argument argument : {target, source}) {
    if (argument.view.shape[0] > 0x7fffffff) {
      throw py::value_error(std::string(argument.name) + " must have fewer than 2^31 rows, got " +
                            std::to_string(argument.view.shape[0]));
    }
  }
  SparsePoolParams params{};
  params.target = target.view.data;
  params.source = source.view.data;
  params.map = static_cast<const int32_t*>(map.view.data);
  params.dtype = source.view.dtype;
  params.targets = target.view.shape[0];
  params.sources = source.view.shape[0];
  params.channels = source.view.shape[1];
  params.offsets = map.view.shape[0];
  return params;
}

// `argmax` is null where only the values are wanted.
void sparse_max_pool_forward(const TensorView& output, const TensorView* argmax, const TensorView& features,
                             const TensorView& neighbours) {
  SparsePoolParams params = make_params({output, "output"}, {features, "features"}, {neighbours, "neighbours"});
  if (argmax != nullptr) {
    check_index({*argmax, "argmax"}, {output.shape[0], output.shape[1]}, "(M, C)", {features, "features"});
    params.argmax = static_cast<int32_t*>(argmax->data);
  }
  if (output.elements() == 0) return;
  FASTCV_RUN(sparse_max_pool_forward, params, output);
}

void sparse_max_pool_backward(const TensorView& grad_features, const TensorView& grad_output, const TensorView& argmax,
                              const TensorView& reverse) {
  SparsePoolParams params =
      make_params({grad_features, "grad_features"}, {grad_output, "grad_output"}, {reverse, "reverse"});
  check_index({argmax, "argmax"}, {grad_output.shape[0], grad_output.shape[1]}, "(M, C)", {grad_output, "grad_output"});
  params.argmax = static_cast<int32_t*>(argmax.data);
  if (grad_features.elements() == 0) return;
  FASTCV_RUN(sparse_max_pool_backward, params, grad_features);
}

void sparse_avg_pool_forward(const TensorView& output, const TensorView& features, const TensorView& neighbours,
                             bool count_missing) {
  SparsePoolParams params = make_params({output, "output"}, {features, "features"}, {neighbours, "neighbours"});
  params.count_missing = count_missing;
  if (output.elements() == 0) return;
  FASTCV_RUN(sparse_avg_pool_forward, params, output);
}

void sparse_avg_pool_backward(const TensorView& grad_features, const TensorView& grad_output, const TensorView& counts,
                              const TensorView& neighbours, const TensorView& reverse, bool count_missing) {
  SparsePoolParams params =
      make_params({grad_features, "grad_features"}, {grad_output, "grad_output"}, {reverse, "reverse"});
  const Argument other{grad_output, "grad_output"};
  check_index({counts, "counts"}, {grad_output.shape[0]}, "(M,)", other);
  check_index({neighbours, "neighbours"}, {kAny, grad_output.shape[0]}, "(K, M)", other);
  params.counts = static_cast<int32_t*>(counts.data);
  params.neighbours = static_cast<const int32_t*>(neighbours.data);
  params.count_offsets = neighbours.shape[0];
  params.count_missing = count_missing;
  if (grad_features.elements() == 0) return;
  FASTCV_RUN(sparse_avg_pool_backward, params, grad_features);
}

}  // namespace

void bind_sparse_pool(py::module_& module) {
  module.def("sparse_max_pool_forward",
             [](const TensorView& output, const TensorView& argmax, const TensorView& features,
                const TensorView& neighbours) { sparse_max_pool_forward(output, &argmax, features, neighbours); });
  module.def("sparse_max_pool_values",
             [](const TensorView& output, const TensorView& features, const TensorView& neighbours) {
               sparse_max_pool_forward(output, nullptr, features, neighbours);
             });
  module.def("sparse_max_pool_backward", &sparse_max_pool_backward);
  module.def("sparse_avg_pool_forward", &sparse_avg_pool_forward);
  module.def("sparse_avg_pool_backward", &sparse_avg_pool_backward);
}

}  // namespace fastcv

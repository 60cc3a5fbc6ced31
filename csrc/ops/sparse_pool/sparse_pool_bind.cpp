#include "core/dispatch.h"
#include "ops/sparse_pool/sparse_pool.h"

namespace py = pybind11;

namespace fastcv {
namespace {

constexpr int64_t kMaxPoolRows = int64_t{1} << 31;

void check_pool_rows(Argument argument, const char* meaning) {
  check_shape(argument, {kAny, kAny}, meaning);
  check_floating(argument);
  check_fewer(argument.name, "rows", argument.view.shape[0], kMaxPoolRows);
}

// A map (K, rows); kAny for any number of rows.
TensorView checked_map(Argument map, int64_t rows, const char* meaning, Argument like) {
  const TensorView made = checked(map, {kAny, rows}, meaning, DType::kInt32, like);
  check_fewer(map.name, "columns", made.shape[1], kMaxPoolRows);
  return made;
}

// The arguments of a call, contiguous, and its result.
struct SparsePool {
  // target (rows of the map, C) from source (rows, C).
  SparsePool(const TensorView& from, const TensorView& over)
      : source(contiguous(from)), map(over), target(new_contiguous(from, from.dtype, {over.shape[1], from.shape[1]})) {
    params.target = target.view.data;
    params.source = source.data;
    params.map = map.as<int32_t>();
    params.dtype = from.dtype;
    params.targets = map.shape[1];
    params.sources = source.shape[0];
    params.channels = source.shape[1];
    params.volume = map.shape[0];
  }
  bool has_work() const { return target.view.elements() > 0; }

  TensorView source, map;
  NewTensor target;
  SparsePoolParams params{};
};

SparsePool forward_pool(const TensorView& features, const TensorView& neighbours, const TensorView& reverse) {
  const Argument like{features, "features"};
  check_pool_rows(like, "(N, C)");
  const TensorView map = checked_map({neighbours, "neighbours"}, kAny, "(K, M)", like);
  check_shape({reverse, "reverse"}, {kAny, features.shape[0]}, "(K, N)");
  check_dtype({reverse, "reverse"}, DType::kInt32);
  check_same_device({reverse, "reverse"}, like);
  return SparsePool(features, map);
}

SparsePool backward_pool(const TensorView& grad_output, const TensorView& reverse) {
  const Argument like{grad_output, "grad_output"};
  check_pool_rows(like, "(M, C)");
  return SparsePool(grad_output, checked_map({reverse, "reverse"}, kAny, "(K, N)", like));
}

// Where a gradient may be asked for; none is by sparse_max_pool_values, which takes a reverse without rows too.
void check_has_reverse(const TensorView& neighbours, const TensorView& reverse) {
  if (reverse.shape[0] > 0 || neighbours.shape[0] == 0) return;
  refuse("reverse", "be the map seen from the input where a gradient is wanted", describe_shape(reverse));
}

py::tuple sparse_max_pool(const TensorView& features, const TensorView& neighbours, const TensorView& reverse) {
  SparsePool pool = forward_pool(features, neighbours, reverse);
  check_has_reverse(neighbours, reverse);
  const int64_t* shape = pool.target.view.shape;
  const NewTensor argmax = new_contiguous(features, DType::kInt32, {shape[0], shape[1]});
  pool.params.argmax = argmax.view.as<int32_t>();
  if (pool.has_work()) FASTCV_RUN(sparse_max_pool_forward, pool.params, features);
  return py::make_tuple(pool.target.object, argmax.object);
}

// Without argmax, which only gradients need.
py::tuple sparse_max_pool_values(const TensorView& features, const TensorView& neighbours, const TensorView& reverse) {
  const SparsePool pool = forward_pool(features, neighbours, reverse);
  if (pool.has_work()) FASTCV_RUN(sparse_max_pool_forward, pool.params, features);
  return py::make_tuple(pool.target.object);
}

py::object sparse_max_pool_backward(const TensorView& grad_output, const TensorView& argmax,
                                    const TensorView& reverse) {
  SparsePool pool = backward_pool(grad_output, reverse);
  const TensorView rows = checked({argmax, "argmax"}, {grad_output.shape[0], grad_output.shape[1]}, "(M, C)",
                                  DType::kInt32, {grad_output, "grad_output"});
  pool.params.argmax = rows.as<int32_t>();
  if (pool.has_work()) FASTCV_RUN(sparse_max_pool_backward, pool.params, grad_output);
  return std::move(pool.target.object);
}

py::object sparse_avg_pool(const TensorView& features, const TensorView& neighbours, const TensorView& reverse,
                           bool count_include_missing) {
  SparsePool pool = forward_pool(features, neighbours, reverse);
  pool.params.count_missing = count_include_missing;
  if (pool.has_work()) FASTCV_RUN(sparse_avg_pool_forward, pool.params, features);
  return std::move(pool.target.object);
}

py::object sparse_avg_pool_backward(const TensorView& grad_output, const TensorView& neighbours,
                                    const TensorView& reverse, bool count_include_missing) {
  SparsePool pool = backward_pool(grad_output, reverse);
  check_has_reverse(neighbours, reverse);
  const TensorView counted =
      checked_map({neighbours, "neighbours"}, grad_output.shape[0], "(K, M)", {grad_output, "grad_output"});
  const NewTensor counts = new_contiguous(grad_output, DType::kInt32, {grad_output.shape[0]});
  pool.params.counts = counts.view.as<int32_t>();
  pool.params.neighbours = counted.as<int32_t>();
  pool.params.count_volume = counted.shape[0];
  pool.params.count_missing = count_include_missing;
  if (pool.has_work()) FASTCV_RUN(sparse_avg_pool_backward, pool.params, grad_output);
  return std::move(pool.target.object);
}

}  // namespace

void bind_sparse_pool(py::module_& module) {
  module.def("sparse_max_pool", &sparse_max_pool);
  module.def("sparse_max_pool_values", &sparse_max_pool_values);
  module.def("sparse_max_pool_backward", &sparse_max_pool_backward);
  module.def("sparse_avg_pool", &sparse_avg_pool);
  module.def("sparse_avg_pool_backward", &sparse_avg_pool_backward);
}

}  // namespace fastcv

#include "core/dispatch.h"
#include "families/point/point_bind.h"
#include "ops/knn/knn.h"

namespace py = pybind11;

namespace fastcv {
namespace {

py::tuple knn(const TensorView& query, const TensorView& points, int64_t k, const OptionalTensor& query_lengths,
              const OptionalTensor& lengths) {
  const NeighbourSearch search = checked_search(query, points, k, query_lengths, lengths);
  const NewTensor distances = new_contiguous(points, accumulate_dtype(points.dtype), {search.batch, search.queries, k});
  const NewTensor indices = new_contiguous(points, DType::kInt64, {search.batch, search.queries, k});
  auto params = search.make_params<KnnParams>();
  params.distances = distances.view.data;
  params.indices = indices.view.as<int64_t>();
  if (indices.view.elements() > 0) FASTCV_RUN(knn, params, points);
  return py::make_tuple(distances.object, indices.object);
}

}  // namespace

void bind_knn(py::module_& module) {
  module.def("knn", &knn);
}

}  // namespace fastcv

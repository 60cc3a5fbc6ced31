#include "core/dispatch.h"
#include "core/point_bind.h"
#include "ops/knn/knn.h"

namespace py = pybind11;

namespace fastcv {
namespace {

void knn(const TensorView& distances, const TensorView& indices, const TensorView& query, const TensorView& points,
         const py::object& query_lengths, const py::object& lengths) {
  check_cloud({points, "points"}, "(B, N, 3)");
  check_cloud_like({query, "query"}, {points, "points"}, "(B, Q, 3)");
  const int64_t batch = points.shape[0], queries = query.shape[1];
  check_shape({distances, "distances"}, {batch, queries, kAny}, "(B, Q, k)");
  check_dtype({distances, "distances"}, accumulate_dtype(points.dtype));
  check_contiguous({distances, "distances"});
  check_same_device({distances, "distances"}, {points, "points"});
  check_shape({indices, "indices"}, {batch, queries, distances.shape[2]}, "(B, Q, k)");
  check_dtype({indices, "indices"}, DType::kInt64);
  check_contiguous({indices, "indices"});
  check_same_device({indices, "indices"}, {points, "points"});
  if (indices.shape[2] > INT32_MAX) {
    throw py::value_error("k must fit in 31 bits, got " + std::to_string(indices.shape[2]));
  }
  KnnParams params{};
  params.query_lengths = lengths_of(query_lengths, {query, "query"}, "query_lengths");
  params.lengths = lengths_of(lengths, {points, "points"}, "lengths");
  if (indices.elements() == 0) return;
  params.query = query.data;
  params.points = points.data;
  params.distances = distances.data;
  params.indices = static_cast<int64_t*>(indices.data);
  params.dtype = points.dtype;
  params.batch = batch;
  params.queries = queries;
  params.count = points.shape[1];
  params.k = indices.shape[2];
  FASTCV_RUN(knn, params, points);
}

}  // namespace

void bind_knn(py::module_& module) {
  module.def("knn", &knn);
}

}  // namespace fastcv

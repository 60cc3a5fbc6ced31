#include "core/dispatch.h"
#include "core/point_bind.h"
#include "ops/ball_query/ball_query.h"

namespace py = pybind11;

namespace fastcv {
namespace {

void ball_query(const TensorView& indices, const TensorView& query, const TensorView& points,
                const py::object& query_lengths, const py::object& lengths, double radius, bool repeat_first) {
  check_cloud({points, "points"}, "(B, N, 3)");
  check_cloud_like({query, "query"}, {points, "points"}, "(B, Q, 3)");
  check_shape({indices, "indices"}, {points.shape[0], query.shape[1], kAny}, "(B, Q, k)");
  check_dtype({indices, "indices"}, DType::kInt64);
  check_contiguous({indices, "indices"});
  check_same_device({indices, "indices"}, {points, "points"});
  if (indices.shape[2] > INT32_MAX) {
    throw py::value_error("k must fit in 31 bits, got " + std::to_string(indices.shape[2]));
  }
  if (!(radius >= 0)) throw py::value_error("radius must not be negative, got " + std::to_string(radius));
  BallQueryParams params{};
  params.query_lengths = lengths_of(query_lengths, {query, "query"}, "query_lengths");
  params.lengths = lengths_of(lengths, {points, "points"}, "lengths");
  if (indices.elements() == 0) return;
  params.query = query.data;
  params.points = points.data;
  params.indices = static_cast<int64_t*>(indices.data);
  params.dtype = points.dtype;
  params.batch = points.shape[0];
  params.queries = query.shape[1];
  params.count = points.shape[1];
  params.k = indices.shape[2];
  params.squared_radius = radius * radius;
  params.repeat_first = repeat_first;
  FASTCV_RUN(ball_query, params, points);
}

}  // namespace

void bind_ball_query(py::module_& module) {
  module.def("ball_query", &ball_query);
}

}  // namespace fastcv

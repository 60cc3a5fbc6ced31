#include "core/dispatch.h"
#include "families/point/point_bind.h"
#include "ops/ball_query/ball_query.h"

namespace py = pybind11;

namespace fastcv {
namespace {

py::object ball_query(const TensorView& query, const TensorView& points, double radius, int64_t k,
                      const OptionalTensor& query_lengths, const OptionalTensor& lengths, bool repeat_first,
                      double min_radius) {
  const NeighbourSearch search = checked_search(query, points, k, query_lengths, lengths);
  if (!(radius >= 0)) refuse("radius", "not be negative", py::str(py::float_(radius)));
  if (!(min_radius >= 0)) refuse("min_radius", "not be negative", py::str(py::float_(min_radius)));
  NewTensor indices = new_contiguous(points, DType::kInt64, {search.batch, search.queries, k});
  auto params = search.make_params<BallQueryParams>();
  params.indices = indices.view.as<int64_t>();
  params.squared_radius = radius * radius;
  params.squared_min_radius = min_radius * min_radius;
  params.repeat_first = repeat_first;
  if (indices.view.elements() > 0) FASTCV_RUN(ball_query, params, points);
  return std::move(indices.object);
}

}  // namespace

void bind_ball_query(py::module_& module) {
  module.def("ball_query", &ball_query);
}

}  // namespace fastcv

#include "core/dispatch.h"
#include "families/point/point_bind.h"
#include "ops/farthest_point_sample/farthest_point_sample.h"

namespace py = pybind11;

namespace fastcv {
namespace {

py::object farthest_point_sample(const TensorView& points, const OptionalTensor& lengths, int64_t k, int64_t start) {
  check_cloud({points, "points"}, "(B, N, 3)");
  check_k(k);
  check_at_least("start", start, 0);
  const TensorView counts = checked_lengths(lengths, "lengths", {points, "points"});
  const TensorView clouds = contiguous(points);
  const int64_t batch = points.shape[0], count = points.shape[1];
  NewTensor indices = new_contiguous(points, DType::kInt64, {batch, k}), nearest;
  if (indices.view.elements() == 0) return std::move(indices.object);
  if (!runs_on_cpu(points)) nearest = new_contiguous(points, accumulate_dtype(points.dtype), {batch, count});
  FarthestPointSampleParams params{};
  params.points = clouds.data;
  params.lengths = counts.as<int64_t>();
  params.indices = indices.view.as<int64_t>();
  params.nearest = nearest.view.data;
  params.dtype = points.dtype;
  params.batch = batch;
  params.count = count;
  params.k = k;
  params.start = start;
  FASTCV_RUN(farthest_point_sample, params, points);
  return std::move(indices.object);
}

}  // namespace

void bind_farthest_point_sample(py::module_& module) {
  module.def("farthest_point_sample", &farthest_point_sample);
}

}  // namespace fastcv

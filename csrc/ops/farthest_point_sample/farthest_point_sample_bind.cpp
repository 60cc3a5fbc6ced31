#include "core/dispatch.h"
#include "core/point_bind.h"
#include "ops/farthest_point_sample/farthest_point_sample.h"

namespace py = pybind11;

namespace fastcv {
namespace {

void farthest_point_sample(const TensorView& indices, const TensorView& points, const py::object& lengths,
                           const TensorView& workspace, int64_t start) {
  check_cloud({points, "points"}, "(B, N, 3)");
  check_shape({indices, "indices"}, {points.shape[0], kAny}, "(B, k)");
  check_dtype({indices, "indices"}, DType::kInt64);
  check_contiguous({indices, "indices"});
  check_same_device({indices, "indices"}, {points, "points"});
  if (indices.shape[1] > INT32_MAX) {
    throw py::value_error("k must fit in 31 bits, got " + std::to_string(indices.shape[1]));
  }
  check_shape({workspace, "workspace"}, {points.shape[0], points.shape[1]}, "(B, N)");
  check_dtype({workspace, "workspace"}, accumulate_dtype(points.dtype));
  check_contiguous({workspace, "workspace"});
  check_same_device({workspace, "workspace"}, {points, "points"});
  FarthestPointSampleParams params{};
  params.lengths = lengths_of(lengths, {points, "points"}, "lengths");
  if (indices.elements() == 0) return;
  params.points = points.data;
  params.indices = static_cast<int64_t*>(indices.data);
  params.nearest = workspace.data;
  params.dtype = points.dtype;
  params.batch = points.shape[0];
  params.count = points.shape[1];
  params.k = indices.shape[1];
  params.start = start;
  FASTCV_RUN(farthest_point_sample, params, points);
}

}  // namespace

void bind_farthest_point_sample(py::module_& module) {
  module.def("farthest_point_sample", &farthest_point_sample);
}

}  // namespace fastcv

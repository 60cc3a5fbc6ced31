#include "core/dispatch.h"
#include "families/point/point_bind.h"
#include "ops/farthest_point_sample/farthest_point_sample.h"

namespace py = pybind11;

namespace fastcv {
namespace {

// The first choice of each cloud, as kernels read it. On the CPU none may be negative, as for one choice of all.
TensorView checked_starts(const OptionalTensor& starts, const TensorView& points) {
  if (!starts) return {};
  const Argument argument{starts, "start"};
  check_shape(argument, {points.shape[0]}, "(B,)");
  check_integers(argument);
  check_same_device(argument, {points, "points"});
  TensorView made = converted(starts, DType::kInt64);
  if (made.on_cuda || made.is_description) return made;
  for (int64_t b = 0; b < made.shape[0]; ++b) check_at_least("start", made.as<int64_t>()[b], 0);
  return made;
}

py::object farthest_point_sample(const TensorView& points, const OptionalTensor& lengths, int64_t k, int64_t start,
                                 const OptionalTensor& starts) {
  check_cloud({points, "points"}, "(B, N, 3)");
  check_k(k);
  check_at_least("start", start, 0);
  const TensorView counts = checked_lengths(lengths, "lengths", {points, "points"});
  const TensorView firsts = checked_starts(starts, points);
  const TensorView clouds = contiguous(points);
  const int64_t batch = points.shape[0], count = points.shape[1];
  NewTensor indices = new_contiguous(points, DType::kInt64, {batch, k}), nearest;
  if (indices.view.elements() == 0) return std::move(indices.object);
  if (!runs_on_cpu(points)) nearest = new_contiguous(points, accumulate_dtype(points.dtype), {batch, count});
  FarthestPointSampleParams params{};
  params.points = clouds.data;
  params.lengths = counts.as<int64_t>();
  params.starts = firsts.as<int64_t>();
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

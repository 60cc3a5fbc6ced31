#include "core/dispatch.h"
#include "ops/voxel_scatter/voxel_scatter.h"

namespace py = pybind11;

namespace fastcv {
namespace {

// ---- segments -------------------------------------------------------------------------------------------------------

// The rows of coords in ascending order, those with a negative number last, stably; by two sorts of int64.
py::object sort_rows(const TensorView& coords) {
  const py::handle rows(coords.object);
  const py::object wide = rows.attr("long")();
  const auto pair = [&](int axis) {
    const py::object upper = wide.attr("select")(1, axis), lower = wide.attr("select")(1, axis + 1);
    return (upper << py::int_(32)) | lower;
  };
  const auto order = [](const py::object& keys) {
    return keys.attr("sort")(py::arg("stable") = true).attr("indices").cast<py::object>();
  };
  const py::object is_outside = rows.attr("lt")(0).attr("any")(1);
  const py::object high = pair(0).attr("masked_fill")(is_outside, INT64_MAX);
  const py::object by_low = order(pair(2));
  return by_low[order(high[by_low])];
}

py::tuple voxel_segments(const TensorView& coords) {
  check_shape({coords, "coords"}, {kAny, 4}, "(P, 4), rows of b, z, y, x");
  check_dtype({coords, "coords"}, DType::kInt32);
  const int64_t points = coords.shape[0];
  check_fewer("coords", "rows", points, int64_t{1} << 30);
  const TensorView rows = contiguous(coords);
  const NewTensor order = new_contiguous(coords, DType::kInt32, {points});
  const NewTensor starts = new_contiguous(coords, DType::kInt32, {points + 1});
  const NewTensor voxels = new_contiguous(coords, DType::kInt32, {points, 4});
  const NewTensor voxel_of = new_contiguous(coords, DType::kInt64, {points});
  if (points == 0 && !coords.is_description) starts.object.attr("zero_")();
  if (points == 0 || coords.is_description) {
    return py::make_tuple(voxels.object, voxel_of.object, order.object, starts.object);
  }
  VoxelSegmentsParams p{};
  p.coords = rows.as<int32_t>();
  p.count = points;
  p.order = order.view.as<int32_t>();
  p.starts = starts.view.as<int32_t>();
  p.voxels = voxels.view.as<int32_t>();
  p.voxel_of = voxel_of.view.as<int64_t>();
  int64_t found = 0;
  if (runs_on_cpu(coords)) {
    p.voxel_count = &found;
    FASTCV_RUN(voxel_segments, p, coords);
  } else {
    const py::object sorted = sort_rows(coords);
    const NewTensor block_sums = new_contiguous(coords, DType::kInt32, {FASTCV_VARIANT::scan_sums(points)});
    const NewTensor count = new_contiguous(coords, DType::kInt64, {});
    p.sorted = view_of(sorted.ptr()).as<int64_t>();
    p.block_sums = block_sums.view.as<int32_t>();
    p.voxel_count = count.view.as<int64_t>();
    FASTCV_RUN(voxel_segments, p, coords);
    found = count.object.attr("item")().cast<int64_t>();  // the one synchronisation
  }
  return py::make_tuple(voxels.object.attr("narrow")(0, 0, found), voxel_of.object, order.object,
                        starts.object.attr("narrow")(0, 0, found + 1));
}

// ---- reduction and its transpose ------------------------------------------------------------------------------------

VoxelReduction reduction_of(int64_t value) {
  if (value < 0 || value > 3) refuse("reduction", "be 0, 1, 2 or 3", std::to_string(value));
  return static_cast<VoxelReduction>(value);
}

bool chooses(VoxelReduction reduction) {
  return reduction == VoxelReduction::kMax || reduction == VoxelReduction::kMin;
}

// What segments says of the points, in all its checks.
struct Segments {
  Segments(const TensorView& voxel_of, const TensorView& order, const TensorView& starts, Argument like)
      : voxel_of(checked({voxel_of, "voxel_of"}, {kAny}, "(P,)", DType::kInt64, like)),
        order(checked({order, "order"}, {kAny}, "(P,)", DType::kInt32, like)),
        starts(checked({starts, "starts"}, {kAny}, "(V + 1,)", DType::kInt32, like)) {
    if (starts.shape[0] < 1) refuse("starts", "have at least one element", "none");
  }
  int64_t voxels() const { return starts.shape[0] - 1; }

  TensorView voxel_of, order, starts;
};

py::tuple voxel_reduce(const TensorView& features, const TensorView& voxel_of, const TensorView& order,
                       const TensorView& starts, int64_t reduction) {
  const Argument like{features, "features"};
  const Segments segments(voxel_of, order, starts, like);
  check_shape(like, {segments.voxel_of.shape[0], kAny}, "(P, C)");
  check_floating(like);
  const TensorView values = contiguous(features);
  VoxelReduceParams p{};
  p.reduction = reduction_of(reduction);
  p.features = values.data;
  p.dtype = values.dtype;
  p.points = values.shape[0];
  p.channels = values.shape[1];
  p.voxels = segments.voxels();
  p.order = segments.order.as<int32_t>();
  p.ordered = segments.order.shape[0];
  p.starts = segments.starts.as<int32_t>();
  const NewTensor reduced = new_contiguous(features, features.dtype, {p.voxels, p.channels});
  const NewTensor argument = new_contiguous(features, DType::kInt32, {chooses(p.reduction) ? p.voxels : 0, p.channels});
  p.reduced = reduced.view.data;
  if (chooses(p.reduction)) p.argument = argument.view.as<int32_t>();
  if (reduced.view.elements() > 0) FASTCV_RUN(voxel_reduce, p, features);
  return py::make_tuple(reduced.object, argument.object);
}

py::object voxel_spread(const TensorView& grad, const TensorView& voxel_of, const TensorView& order,
                        const TensorView& starts, const TensorView& argument, int64_t reduction) {
  const Argument like{grad, "grad"};
  const Segments segments(voxel_of, order, starts, like);
  check_shape(like, {segments.voxels(), kAny}, "(V, C)");
  check_floating(like);
  const TensorView values = contiguous(grad);
  VoxelSpreadParams p{};
  p.reduction = reduction_of(reduction);
  p.grad = values.data;
  p.dtype = values.dtype;
  p.points = segments.voxel_of.shape[0];
  p.channels = values.shape[1];
  p.voxels = segments.voxels();
  p.voxel_of = segments.voxel_of.as<int64_t>();
  p.starts = segments.starts.as<int32_t>();
  TensorView chosen;
  if (chooses(p.reduction)) {
    chosen = checked({argument, "argument"}, {p.voxels, p.channels}, "(V, C)", DType::kInt32, like);
    p.argument = chosen.as<int32_t>();
  }
  NewTensor grad_features = new_contiguous(grad, grad.dtype, {p.points, p.channels});
  p.grad_features = grad_features.view.data;
  if (grad_features.view.elements() > 0) FASTCV_RUN(voxel_spread, p, grad);
  return std::move(grad_features.object);
}

}  // namespace

void bind_voxel_scatter(py::module_& module) {
  module.def("voxel_reduce", &voxel_reduce);
  module.def("voxel_segments", &voxel_segments);
  module.def("voxel_spread", &voxel_spread);
}

}  // namespace fastcv

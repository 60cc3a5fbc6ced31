#include <string>

#include "core/dispatch.h"
#include "core/tensor.h"
#include "ops/voxel_scatter/voxel_scatter.h"

namespace py = pybind11;

namespace fastcv {
namespace {

void* checked(Argument argument, DType dtype, std::initializer_list<int64_t> shape, const char* meaning,
              Argument device) {
  check_shape(argument, shape, meaning);
  check_dtype(argument, dtype);
  check_contiguous(argument);
  check_same_device(argument, device);
  return argument.view.data;
}

VoxelReduction reduction_of(int value) {
  if (value < 0 || value > 3) throw py::value_error("reduce must be 0 to 3");
  return static_cast<VoxelReduction>(value);
}

void voxel_segments(const TensorView& order, const TensorView& starts, const TensorView& voxels,
                    const TensorView& voxel_of, const TensorView& count, const TensorView& coords,
                    const py::object& sorted, const py::object& block_sums) {
  check_shape({coords, "coords"}, {kAny, 4}, "(P, 4)");
  check_dtype({coords, "coords"}, DType::kInt32);
  check_contiguous({coords, "coords"});
  const int64_t points = coords.shape[0];
  if (points >= int64_t{1} << 30) throw py::value_error("coords must be fewer than 2^30");
  const Argument device{coords, "coords"};
  VoxelSegmentsParams p{};
  p.coords = static_cast<const int32_t*>(coords.data);
  p.count = points;
  p.order = static_cast<int32_t*>(checked({order, "order"}, DType::kInt32, {points}, "(P,)", device));
  p.starts = static_cast<int32_t*>(checked({starts, "starts"}, DType::kInt32, {points + 1}, "(P + 1,)", device));
  p.voxels = static_cast<int32_t*>(checked({voxels, "voxels"}, DType::kInt32, {points, 4}, "(P, 4)", device));
  p.voxel_of = static_cast<int64_t*>(checked({voxel_of, "voxel_of"}, DType::kInt64, {points}, "(P,)", device));
  p.voxel_count = static_cast<int64_t*>(checked({count, "count"}, DType::kInt64, {}, "()", device));
  if (!runs_on_cpu(coords)) {
    if (points == 0) throw py::value_error("voxel_segments: nothing to do");
    const TensorView sorted_view = view_of(sorted.ptr()), sums_view = view_of(block_sums.ptr());
    p.sorted = static_cast<const int64_t*>(checked({sorted_view, "sorted"}, DType::kInt64, {points}, "(P,)", device));
    p.block_sums = static_cast<int32_t*>(
        checked({sums_view, "block_sums"}, DType::kInt32, {points / 1024 + 2}, "(P / 1024 + 2,)", device));
  }
  FASTCV_RUN(voxel_segments, p, coords);
}

void voxel_reduce(const TensorView& reduced, const py::object& argument, const TensorView& features,
                  const TensorView& order, const TensorView& starts, int reduce) {
  check_shape({features, "features"}, {kAny, kAny}, "(P, C)");
  check_floating({features, "features"});
  check_contiguous({features, "features"});
  const Argument device{features, "features"};
  VoxelReduceParams p{};
  p.features = features.data;
  p.dtype = features.dtype;
  p.points = features.shape[0];
  p.channels = features.shape[1];
  p.order = static_cast<const int32_t*>(checked({order, "order"}, DType::kInt32, {kAny}, "(P,)", device));
  p.ordered = order.shape[0];
  p.starts = static_cast<const int32_t*>(checked({starts, "starts"}, DType::kInt32, {kAny}, "(V + 1,)", device));
  p.voxels = starts.shape[0] - 1;
  if (p.voxels < 0) throw py::value_error("starts must have at least one element");
  const std::initializer_list<int64_t> shape = {p.voxels, p.channels};
  p.reduced = checked({reduced, "reduced"}, features.dtype, shape, "(V, C)", device);
  p.reduction = reduction_of(reduce);
  if (!argument.is_none()) {
    const TensorView view = view_of(argument.ptr());
    p.argument = static_cast<int32_t*>(checked({view, "argument"}, DType::kInt32, shape, "(V, C)", device));
  }
  FASTCV_RUN(voxel_reduce, p, features);
}

void voxel_spread(const TensorView& grad_features, const TensorView& grad, const TensorView& voxel_of,
                  const TensorView& starts, const py::object& argument, int reduce) {
  check_shape({grad, "grad"}, {kAny, kAny}, "(V, C)");
  check_floating({grad, "grad"});
  check_contiguous({grad, "grad"});
  const Argument device{grad, "grad"};
  VoxelSpreadParams p{};
  p.grad = grad.data;
  p.dtype = grad.dtype;
  p.voxels = grad.shape[0];
  p.channels = grad.shape[1];
  p.voxel_of = static_cast<const int64_t*>(checked({voxel_of, "voxel_of"}, DType::kInt64, {kAny}, "(P,)", device));
  p.points = voxel_of.shape[0];
  p.starts =
      static_cast<const int32_t*>(checked({starts, "starts"}, DType::kInt32, {p.voxels + 1}, "(V + 1,)", device));
  p.grad_features = checked({grad_features, "grad_features"}, grad.dtype, {p.points, p.channels}, "(P, C)", device);
  p.reduction = reduction_of(reduce);
  if (!argument.is_none()) {
    const TensorView view = view_of(argument.ptr());
    p.argument = static_cast<const int32_t*>(
        checked({view, "argument"}, DType::kInt32, {p.voxels, p.channels}, "(V, C)", device));
  }
  FASTCV_RUN(voxel_spread, p, grad);
}

}  // namespace

void bind_voxel_scatter(py::module_& module) {
  module.def("voxel_reduce", &voxel_reduce);
  module.def("voxel_segments", &voxel_segments);
  module.def("voxel_spread", &voxel_spread);
}

}  // namespace fastcv

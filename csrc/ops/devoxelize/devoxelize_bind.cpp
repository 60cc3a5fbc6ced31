#include <string>

#include "core/dispatch.h"
#include "core/voxel_grid_bind.h"
#include "ops/devoxelize/devoxelize.h"

namespace py = pybind11;

namespace fastcv {
namespace {

void check(Argument argument, DType dtype, Argument device) {
  check_dtype(argument, dtype);
  check_contiguous(argument);
  check_same_device(argument, device);
}

void voxel_neighbors(const TensorView& indices, const TensorView& weights, const TensorView& coords,
                     const TensorView& points, const GridNumbers& grid, const py::object& offsets,
                     const TensorView& table) {
  check_points(points);
  const Argument device{points, "points"};
  check_shape({coords, "coords"}, {kAny, 4}, "(V, 4)");
  check({coords, "coords"}, DType::kInt32, device);
  check_shape({indices, "indices"}, {points.shape[0], kAny}, "(P, K)");
  check({indices, "indices"}, DType::kInt32, device);
  check_shape({weights, "weights"}, {points.shape[0], indices.shape[1]}, "(P, K)");
  check({weights, "weights"}, accumulate_dtype(points.dtype), device);
  check({table, "table"}, DType::kUInt8, device);
  if (indices.shape[1] != 1 && indices.shape[1] != 8) throw py::value_error("indices must be (P, 1) or (P, 8)");
  if (coords.shape[0] > int64_t{1} << 29) throw py::value_error("coords must be at most 2^29");
  VoxelNeighborsParams p{};
  p.coords = static_cast<const int32_t*>(coords.data);
  p.voxels = coords.shape[0];
  p.points = points.data;
  p.dtype = points.dtype;
  p.count = points.shape[0];
  p.stride = points.strides[0];
  p.clouds = make_clouds(offsets, points);
  p.grid = make_voxel_grid(grid, points.dtype, p.clouds.count);
  p.neighbors = indices.shape[1];
  p.indices = static_cast<int32_t*>(indices.data);
  p.weights = weights.data;
  p.table = table.data;
  p.table_size = 1;  // the greatest power of two that the table has room for
  while (24 * p.table_size <= table.elements()) p.table_size *= 2;
  if (!runs_on_cpu(points) && (p.table_size < 2 * p.voxels || table.elements() < 12)) {
    throw py::value_error("table is too small");
  }
  FASTCV_RUN(voxel_neighbors, p, points);
}

DevoxelizeParams make_params(const TensorView& output, const TensorView& features, const TensorView& indices,
                             const TensorView& weights) {
  const Argument device{features, "features"};
  check_shape({features, "features"}, {kAny, kAny}, "(V, C)");
  check_floating({features, "features"});
  check_contiguous({features, "features"});
  check_shape({indices, "indices"}, {kAny, kAny}, "(P, K)");
  check({indices, "indices"}, DType::kInt32, device);
  if (indices.shape[1] != 1 && indices.shape[1] != 8) throw py::value_error("indices must be (P, 1) or (P, 8)");
  check_shape({weights, "weights"}, {indices.shape[0], indices.shape[1]}, "(P, K)");
  check({weights, "weights"}, accumulate_dtype(features.dtype), device);
  check_shape({output, "output"}, {kAny, features.shape[1]}, "(P, C)");
  check({output, "output"}, features.dtype, device);
  DevoxelizeParams p{};
  p.features = features.data;
  p.dtype = features.dtype;
  p.channels = features.shape[1];
  p.neighbors = indices.shape[1];
  p.points = indices.shape[0];
  p.indices = static_cast<const int32_t*>(indices.data);
  p.weights = weights.data;
  p.output = output.data;
  return p;
}

void devoxelize(const TensorView& output, const TensorView& features, const TensorView& indices,
                const TensorView& weights) {
  DevoxelizeParams p = make_params(output, features, indices, weights);
  p.voxels = features.shape[0];
  if (output.shape[0] != p.points) throw py::value_error("output must have a row per point");
  FASTCV_RUN(devoxelize, p, features);
}

void devoxelize_transposed(const TensorView& output, const TensorView& grad, const TensorView& indices,
                           const TensorView& weights, const py::object& order, const py::object& starts) {
  DevoxelizeParams p = make_params(output, grad, indices, weights);
  p.voxels = output.shape[0];
  if (grad.shape[0] != p.points) throw py::value_error("grad must have a row per point");
  if (!runs_on_cpu(grad)) {
    const TensorView order_view = view_of(order.ptr()), starts_view = view_of(starts.ptr());
    check_shape({order_view, "order"}, {p.points * p.neighbors}, "(P * K,)");
    check({order_view, "order"}, DType::kInt64, {grad, "grad"});
    check_shape({starts_view, "starts"}, {p.voxels + 1}, "(V + 1,)");
    check({starts_view, "starts"}, DType::kInt64, {grad, "grad"});
    p.order = static_cast<const int64_t*>(order_view.data);
    p.starts = static_cast<const int64_t*>(starts_view.data);
  }
  FASTCV_RUN(devoxelize_transposed, p, grad);
}

}  // namespace

void bind_devoxelize(py::module_& module) {
  module.def("devoxelize", &devoxelize);
  module.def("devoxelize_transposed", &devoxelize_transposed);
  module.def("voxel_neighbors", &voxel_neighbors);
}

}  // namespace fastcv

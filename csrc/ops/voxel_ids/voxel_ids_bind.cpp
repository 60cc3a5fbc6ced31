#include "core/dispatch.h"
#include "families/voxel/voxel_grid_bind.h"
#include "ops/voxel_ids/voxel_ids.h"

namespace py = pybind11;

namespace fastcv {
namespace {

// The cloud of each point, as int64; a view of nothing where there is none.
TensorView checked_batch(const OptionalTensor& batch, const TensorView& points) {
  if (!batch) return {};
  check_shape({batch, "batch"}, {points.shape[0]}, "(P,)");
  if (batch.dtype != DType::kInt64 && batch.dtype != DType::kInt32) {
    refuse_type("batch", "be int64 or int32", describe_dtype(batch));
  }
  check_same_device({batch, "batch"}, {points, "points"});
  return converted(batch, DType::kInt64);
}

py::object voxel_ids(const TensorView& points, const GridNumbers& grid, const OptionalTensor& offsets,
                     const OptionalTensor& batch) {
  if (batch && offsets) refuse("batch", "be None where offsets are given", "both");
  const CheckedPoints checked(points, grid, offsets);
  const TensorView cloud_of_each = checked_batch(batch, points);
  NewTensor ids = new_contiguous(points, DType::kInt32, {points.shape[0], 4});
  VoxelIdsParams p{checked.params, cloud_of_each.as<int64_t>(), ids.view.as<int32_t>()};
  if (p.count > 0) FASTCV_RUN(voxel_ids, p, points);
  return std::move(ids.object);
}

py::object voxel_occupancy(const TensorView& points, const GridNumbers& grid, const OptionalTensor& offsets,
                           int64_t mode) {
  const CheckedPoints checked(points, grid, offsets);
  VoxelOccupancyParams p{};
  static_cast<VoxelPoints&>(p) = checked.params;
  if (p.clouds.count > 65535) refuse("offsets", "be of at most 65535 clouds", std::to_string(p.clouds.count));
  if (mode < 0 || mode > 2) refuse("mode", "be 0, 1 or 2", std::to_string(mode));
  const int64_t shape[] = {p.clouds.count, p.grid.cells[2], p.grid.cells[1], p.grid.cells[0]};
  const int first = checked.has_offsets() ? 0 : 1;
  NewTensor occupancy = new_contiguous(points, DType::kFloat32, shape + first, 4 - first);
  const NewTensor inside = new_contiguous(points, DType::kInt64, {p.clouds.count});
  p.cells = shape[1] * shape[2] * shape[3];
  p.occupancy = occupancy.view.as<float>();
  p.inside = inside.view.as<int64_t>();
  p.mode = static_cast<Occupancy>(mode);
  if (p.clouds.count > 0) FASTCV_RUN(voxel_occupancy, p, points);
  return std::move(occupancy.object);
}

// How many voxels a grid has along z, y and x.
py::tuple voxel_grid_cells(const GridNumbers& numbers) {
  const VoxelGrid grid = make_voxel_grid(numbers, DType::kFloat64, 1);
  return py::make_tuple(grid.cells[2], grid.cells[1], grid.cells[0]);
}

}  // namespace

void bind_voxel_ids(py::module_& module) {
  module.def("voxel_grid_cells", &voxel_grid_cells);
  module.def("voxel_ids", &voxel_ids);
  module.def("voxel_occupancy", &voxel_occupancy);
}

}  // namespace fastcv

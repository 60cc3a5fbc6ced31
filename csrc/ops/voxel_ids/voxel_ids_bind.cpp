#include "core/dispatch.h"
#include "core/voxel_grid_bind.h"
#include "ops/voxel_ids/voxel_ids.h"

namespace py = pybind11;

namespace fastcv {
namespace {

void voxel_ids(const TensorView& ids, const TensorView& points, const GridNumbers& grid, const py::object& offsets,
               const py::object& batch) {
  check_points(points);
  check_shape({ids, "ids"}, {points.shape[0], 4}, "(P, 4)");
  check_dtype({ids, "ids"}, DType::kInt32);
  check_contiguous({ids, "ids"});
  check_same_device({ids, "ids"}, {points, "points"});
  VoxelIdsParams p{};
  p.points = points.data;
  p.dtype = points.dtype;
  p.count = points.shape[0];
  p.stride = points.strides[0];
  p.clouds = make_clouds(offsets, points);
  p.grid = make_voxel_grid(grid, points.dtype, p.clouds.count);
  p.ids = static_cast<int32_t*>(ids.data);
  if (!batch.is_none()) {
    const TensorView view = view_of(batch.ptr());
    check_shape({view, "batch"}, {points.shape[0]}, "(P,)");
    check_dtype({view, "batch"}, DType::kInt64);
    check_contiguous({view, "batch"});
    check_same_device({view, "batch"}, {points, "points"});
    p.batch = static_cast<const int64_t*>(view.data);
  }
  FASTCV_RUN(voxel_ids, p, points);
}

void voxel_occupancy(const TensorView& occupancy, const TensorView& inside, const TensorView& points,
                     const GridNumbers& grid, const py::object& offsets, int mode) {
  check_points(points);
  VoxelOccupancyParams p{};
  p.points = points.data;
  p.dtype = points.dtype;
  p.count = points.shape[0];
  p.stride = points.strides[0];
  p.clouds = make_clouds(offsets, points);
  p.grid = make_voxel_grid(grid, points.dtype, p.clouds.count);
  if (p.clouds.count > 65535) throw py::value_error("offsets must be of at most 65535 clouds");
  p.cells = p.grid.cells[0] * p.grid.cells[1] * p.grid.cells[2];
  check_dtype({occupancy, "occupancy"}, DType::kFloat32);
  check_contiguous({occupancy, "occupancy"});
  check_same_device({occupancy, "occupancy"}, {points, "points"});
  if (occupancy.elements() != p.clouds.count * p.cells) throw py::value_error("occupancy must be (B, Z, Y, X)");
  check_shape({inside, "inside"}, {p.clouds.count}, "(B,)");
  check_dtype({inside, "inside"}, DType::kInt64);
  check_contiguous({inside, "inside"});
  check_same_device({inside, "inside"}, {points, "points"});
  if (mode < 0 || mode > 2) throw py::value_error("mode must be 0, 1 or 2");
  p.occupancy = static_cast<float*>(occupancy.data);
  p.inside = static_cast<int64_t*>(inside.data);
  p.mode = static_cast<Occupancy>(mode);
  FASTCV_RUN(voxel_occupancy, p, points);
}

}  // namespace

void bind_voxel_ids(py::module_& module) {
  module.def("voxel_ids", &voxel_ids);
  module.def("voxel_occupancy", &voxel_occupancy);
}

}  // namespace fastcv

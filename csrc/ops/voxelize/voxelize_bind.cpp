#include "core/dispatch.h"
#include "core/voxel_grid_bind.h"
#include "ops/voxelize/voxelize.h"

namespace py = pybind11;

namespace fastcv {
namespace {

// The CUDA kernels work in two steps, with a workspace; in the test build they run on CPU tensors.
void* memory_of(const py::object& tensor, const char* name, DType dtype, int64_t elements, const TensorView& points) {
  const TensorView view = view_of(tensor.ptr());
  check_dtype({view, name}, dtype);
  check_contiguous({view, name});
  check_same_device({view, name}, {points, "points"});
  if (view.elements() < elements) throw py::value_error(std::string(name) + " is too small");
  return view.data;
}

VoxelizeParams make_params(const TensorView& counts, const TensorView& points, const GridNumbers& grid,
                           const py::object& offsets, int64_t max_points, int64_t max_voxels, bool padded) {
  check_points(points);
  VoxelizeParams p{};
  p.clouds = make_clouds(offsets, points);
  p.grid = make_voxel_grid(grid, points.dtype, p.clouds.count);
  p.counts = static_cast<int64_t*>(counts.data);
  p.points = points.data;
  p.dtype = points.dtype;
  p.count = points.shape[0];
  p.features = points.shape[1];
  p.stride = points.strides[0];
  p.max_points = max_points;
  p.max_voxels = max_voxels;
  p.padded = padded;
  check_dtype({counts, "counts"}, DType::kInt64);
  check_contiguous({counts, "counts"});
  check_same_device({counts, "counts"}, {points, "points"});
  if (counts.elements() != p.clouds.count) throw py::value_error("counts must have one element per cloud");
  if (max_points < 1 || max_points * p.features >= int64_t{1} << 31) {
    throw py::value_error("max_points_per_voxel must be positive and below 2^31 elements, got " +
                          std::to_string(max_points));
  }
  if (max_voxels < 0 || max_voxels > int64_t{1} << 31) {
    throw py::value_error("max_voxels must be in [0, 2^31], got " + std::to_string(max_voxels));
  }
  return p;
}

void add_outputs(VoxelizeParams& p, const TensorView& voxels, const TensorView& coords, const TensorView& num_points,
                 const TensorView& points) {
  p.rows = num_points.elements();
  p.coords_width = p.clouds.offsets == nullptr ? 3 : 4;
  check_same_dtype({voxels, "voxels"}, {points, "points"});
  check_dtype({coords, "coords"}, DType::kInt32);
  check_dtype({num_points, "num_points"}, DType::kInt32);
  for (const Argument& argument :
       {Argument{voxels, "voxels"}, Argument{coords, "coords"}, Argument{num_points, "num_points"}}) {
    check_contiguous(argument);
    check_same_device(argument, {points, "points"});
  }
  if (voxels.elements() != p.rows * p.max_points * p.features || coords.elements() != p.rows * p.coords_width) {
    throw py::value_error("voxels, coords and num_points must have the same number of rows");
  }
  p.voxels = voxels.data;
  p.coords = static_cast<int32_t*>(coords.data);
  p.num_points = static_cast<int32_t*>(num_points.data);
  // On CUDA rows without room are left out; on the CPU, where the offsets can be read, there has to be room.
  int64_t needed = p.padded ? p.clouds.count * p.max_voxels : 0;
  if (!p.padded && runs_on_cpu(points)) {
    for (int64_t cloud = 0; cloud < p.clouds.count; ++cloud) {
      const int64_t size =
          p.clouds.offsets == nullptr ? p.count : p.clouds.offsets[cloud + 1] - p.clouds.offsets[cloud];
      needed += size < p.max_voxels ? size : p.max_voxels;
    }
  }
  if (p.rows < needed) throw py::value_error("voxels has too few rows");
}

// For points in the memory of the CPU. Returns the number of rows written.
int64_t voxelize(const TensorView& voxels, const TensorView& coords, const TensorView& num_points,
                 const TensorView& counts, const TensorView& points, const GridNumbers& grid, const py::object& offsets,
                 int64_t max_points, int64_t max_voxels, bool padded) {
  VoxelizeParams p = make_params(counts, points, grid, offsets, max_points, max_voxels, padded);
  if (!runs_on_cpu(points)) throw py::value_error("voxelize: use voxelize_find and voxelize_fill");
  add_outputs(p, voxels, coords, num_points, points);
  p.find = p.fill = true;
  FASTCV_RUN(voxelize, p, points);
  int64_t rows = 0;
  for (int64_t cloud = 0; cloud < p.clouds.count; ++cloud) rows += p.counts[cloud];
  return padded ? p.rows : rows;
}

void voxelize_find(const TensorView& counts, const TensorView& points, const GridNumbers& grid,
                   const py::object& offsets, int64_t max_points, int64_t max_voxels, bool padded,
                   const py::object& workspace) {
  VoxelizeParams p = make_params(counts, points, grid, offsets, max_points, max_voxels, padded);
  if (runs_on_cpu(points)) throw py::value_error("voxelize_find is for CUDA tensors");
  p.workspace_bytes = voxelize_workspace_bytes(p.count, p.clouds.count);
  p.workspace = memory_of(workspace, "workspace", DType::kUInt8, p.workspace_bytes, points);
  p.find = true;
  FASTCV_RUN(voxelize, p, points);
}

void voxelize_fill(const TensorView& voxels, const TensorView& coords, const TensorView& num_points,
                   const TensorView& counts, const TensorView& points, const GridNumbers& grid,
                   const py::object& offsets, int64_t max_points, int64_t max_voxels, bool padded,
                   const py::object& workspace, const py::object& members) {
  VoxelizeParams p = make_params(counts, points, grid, offsets, max_points, max_voxels, padded);
  if (runs_on_cpu(points)) throw py::value_error("voxelize_fill is for CUDA tensors");
  add_outputs(p, voxels, coords, num_points, points);
  p.workspace_bytes = voxelize_workspace_bytes(p.count, p.clouds.count);
  p.workspace = memory_of(workspace, "workspace", DType::kUInt8, p.workspace_bytes, points);
  p.members = static_cast<int32_t*>(memory_of(members, "members", DType::kInt32, p.rows * p.max_points, points));
  p.fill = true;
  FASTCV_RUN(voxelize, p, points);
}

}  // namespace

void bind_voxelize(py::module_& module) {
  module.def("voxelize", &voxelize);
  module.def("voxelize_fill", &voxelize_fill);
  module.def("voxelize_find", &voxelize_find);
  module.def("voxelize_workspace", &voxelize_workspace_bytes);
}

}  // namespace fastcv

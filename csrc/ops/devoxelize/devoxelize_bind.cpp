#include <string>

#include "core/dispatch.h"
#include "families/voxel/voxel_grid_bind.h"
#include "ops/devoxelize/devoxelize.h"

namespace py = pybind11;

namespace fastcv {
namespace {

py::tuple voxel_neighbors(const TensorView& coords, const TensorView& points, const GridNumbers& grid,
                          const OptionalTensor& offsets, int64_t neighbors) {
  const Argument device{points, "points"};
  const TensorView rows = checked_points(points), starts = checked_offsets(offsets, points);
  const TensorView voxels = checked({coords, "coords"}, {kAny, 4}, "(V, 4), rows of b, z, y, x", DType::kInt32, device);
  check_fewer("coords", "rows", voxels.shape[0], kMostTableVoxels + 1);
  if (neighbors != 1 && neighbors != 8) fastcv::refuse("neighbors", "be 1 or 8", std::to_string(neighbors));
  VoxelNeighborsParams p{};
  p.clouds = clouds_of(starts);
  p.grid = make_voxel_grid(grid, points.dtype, p.clouds.count);
  const NewTensor indices = new_contiguous(points, DType::kInt32, {rows.shape[0], neighbors});
  const NewTensor weights = new_contiguous(points, accumulate_dtype(points.dtype), {rows.shape[0], neighbors});
  p.coords = voxels.as<int32_t>();
  p.voxels = voxels.shape[0];
  p.points = rows.data;
  p.dtype = rows.dtype;
  p.count = rows.shape[0];
  p.stride = rows.strides[0];
  p.neighbors = neighbors;
  p.indices = indices.view.as<int32_t>();
  p.weights = weights.view.data;
  NewTensor table;
  if (!runs_on_cpu(points)) {
    p.table_size = voxel_table_size(p.voxels);
    table = new_workspace(points, voxel_table_bytes(p.table_size));
    p.table = table.view.data;
  }
  if (p.count > 0) FASTCV_RUN(voxel_neighbors, p, points);
  return py::make_tuple(indices.object, weights.object);
}

// What the op and its transpose take, as kernels read it: features of voxels or, transposed, the gradient of those of
// points.
struct Interpolation {
  TensorView features, indices, weights;

  DevoxelizeParams make_params(int64_t voxels, const NewTensor& output) const {
    DevoxelizeParams p{};
    p.features = features.data;
    p.dtype = features.dtype;
    p.voxels = voxels;
    p.points = indices.shape[0];
    p.channels = features.shape[1];
    p.neighbors = indices.shape[1];
    p.indices = indices.as<int32_t>();
    p.weights = weights.data;
    p.output = output.view.data;
    return p;
  }
};

Interpolation checked_interpolation(Argument features, const char* meaning, const TensorView& indices,
                                    const TensorView& weights) {
  check_shape(features, {kAny, kAny}, meaning);
  check_floating(features);
  Interpolation made;
  made.indices = checked({indices, "indices"}, {kAny, kAny}, "(P, K)", DType::kInt32, features);
  const int64_t points = indices.shape[0], neighbors = indices.shape[1];
  if (neighbors != 1 && neighbors != 8)
    fastcv::refuse("indices", "have shape (P, 1) or (P, 8)", describe_shape(indices));
  check_shape({weights, "weights"}, {points, neighbors}, "(P, K)");
  check_floating({weights, "weights"});
  check_same_device({weights, "weights"}, features);
  made.weights = converted(weights, accumulate_dtype(features.view.dtype));
  made.features = contiguous(features.view);
  return made;
}

py::object devoxelize(const TensorView& features, const TensorView& indices, const TensorView& weights) {
  const Interpolation taken = checked_interpolation({features, "features"}, "(V, C)", indices, weights);
  NewTensor output = new_contiguous(features, features.dtype, {indices.shape[0], features.shape[1]});
  const DevoxelizeParams p = taken.make_params(features.shape[0], output);
  if (output.view.elements() > 0) FASTCV_RUN(devoxelize, p, features);
  return std::move(output.object);
}

// The kernel of CUDA gets the places in the indices sorted, by torch. What is made here lives as long as this.
struct SortedNeighbors {
  SortedNeighbors(DevoxelizeParams& p, const TensorView& indices) {
    if (runs_on_cpu(indices) || indices.is_description) return;
    const py::object sorted = py::handle(indices.object).attr("reshape")(-1).attr("sort")(py::arg("stable") = true);
    const py::object voxels = sorted.attr("values").attr("long")();
    const py::module_ torch = py::module_::import("torch");
    const py::object all = torch.attr("arange")(p.voxels + 1, py::arg("device") = voxels.attr("device"));
    order = sorted.attr("indices");
    starts = torch.attr("searchsorted")(voxels, all);
    p.order = view_of(order.ptr()).as<int64_t>();
    p.starts = view_of(starts.ptr()).as<int64_t>();
  }

  py::object order, starts;
};

py::object devoxelize_transposed(const TensorView& grad, const TensorView& indices, const TensorView& weights,
                                 int64_t voxels) {
  const Interpolation taken = checked_interpolation({grad, "grad"}, "(P, C)", indices, weights);
  check_shape({grad, "grad"}, {indices.shape[0], kAny}, "(P, C)");
  check_at_least("voxels", voxels, 0);
  NewTensor output = new_contiguous(grad, grad.dtype, {voxels, grad.shape[1]});
  if (output.view.elements() == 0) return std::move(output.object);
  DevoxelizeParams p = taken.make_params(voxels, output);
  const SortedNeighbors sorted(p, taken.indices);
  FASTCV_RUN(devoxelize_transposed, p, grad);
  return std::move(output.object);
}

}  // namespace

void bind_devoxelize(py::module_& module) {
  module.def("devoxelize", &devoxelize);
  module.def("devoxelize_transposed", &devoxelize_transposed);
  module.def("voxel_neighbors", &voxel_neighbors);
}

}  // namespace fastcv

#include <pybind11/stl.h>

#include <optional>
#include <vector>

#include "core/dispatch.h"
#include "families/voxel/voxel_grid_bind.h"
#include "ops/voxelize/voxelize.h"

namespace py = pybind11;

namespace fastcv {
namespace {

void check_limits(const VoxelizeParams& p) {
  constexpr int64_t kLimit = int64_t{1} << 31;
  check_at_least("max_points_per_voxel", p.max_points, 1);
  if (p.max_points > (kLimit - 1) / p.features) {
    refuse("max_points_per_voxel", "give voxels of fewer than 2^31 elements",
           std::to_string(p.max_points) + " points of " + std::to_string(p.features));
  }
  if (p.max_voxels < 0 || p.max_voxels > kLimit) {
    refuse("max_voxels", "be in [0, 2^31]", std::to_string(p.max_voxels));
  }
}

VoxelizeParams make_params(const CheckedPoints& checked, int64_t max_points, int64_t max_voxels, bool padded) {
  VoxelizeParams p{};
  static_cast<VoxelPoints&>(p) = checked.params;
  p.features = checked.points.shape[1];
  p.coords_width = checked.has_offsets() ? 4 : 3;
  p.max_points = max_points;
  p.max_voxels = max_voxels;
  p.padded = padded;
  check_limits(p);
  return p;
}

struct Outputs {
  NewTensor voxels, coords, num_points;

  // The results, cut to `rows`.
  py::tuple first(int64_t rows) const {
    const auto cut = [&](const NewTensor& tensor) {
      return tensor.view.shape[0] == rows ? tensor.object : tensor.object.attr("narrow")(0, 0, rows);
    };
    return py::make_tuple(cut(voxels), cut(coords), cut(num_points));
  }
};

// Outputs of `rows` rows, for each of the clouds where their number is given. The params then point at them.
Outputs new_outputs(VoxelizeParams& p, const TensorView& points, std::optional<int64_t> clouds, int64_t rows) {
  const auto make = [&](DType dtype, std::initializer_list<int64_t> rest) {
    int64_t shape[4];
    int rank = 0;
    if (clouds) shape[rank++] = *clouds;
    shape[rank++] = rows;
    for (int64_t size : rest) shape[rank++] = size;
    return new_contiguous(points, dtype, shape, rank);
  };
  Outputs made{make(points.dtype, {p.max_points, p.features}), make(DType::kInt32, {p.coords_width}),
               make(DType::kInt32, {})};
  p.voxels = made.voxels.view.data;
  p.coords = made.coords.view.as<int32_t>();
  p.num_points = made.num_points.view.as<int32_t>();
  p.rows = made.num_points.view.elements();
  return made;
}

NewTensor new_workspace(VoxelizeParams& p, const TensorView& points) {
  NewTensor workspace = new_workspace(points, FASTCV_VARIANT::VoxelizeWorkspace(p.count, p.clouds.count).bytes);
  p.workspace = workspace.view.data;
  return workspace;
}

NewTensor new_members(VoxelizeParams& p, const TensorView& points) {
  NewTensor members = new_contiguous(points, DType::kInt32, {p.rows, p.max_points});
  p.members = members.view.as<int32_t>();
  return members;
}

py::tuple voxelize_on_cpu(VoxelizeParams& p, const TensorView& points) {
  const Outputs outputs = new_outputs(p, points, {}, std::min(p.count, p.clouds.count * p.max_voxels));
  if (points.is_description) return outputs.first(p.rows);
  std::vector<int64_t> counts(static_cast<size_t>(p.clouds.count));
  p.counts = counts.data();
  p.find = p.fill = true;
  FASTCV_RUN(voxelize, p, points);
  int64_t found = 0;
  for (const int64_t count : counts) found += count;
  return outputs.first(found);
}

py::tuple voxelize_on_cuda(VoxelizeParams& p, const TensorView& points) {
  const NewTensor counts = new_contiguous(points, DType::kInt64, {p.clouds.count});
  const NewTensor workspace = new_workspace(p, points);
  p.counts = counts.view.as<int64_t>();
  p.find = true;
  FASTCV_RUN(voxelize, p, points);
  int64_t found = 0;
  if (!points.is_description) found = counts.object.attr("sum")().attr("item")().cast<int64_t>();  // synchronises
  const Outputs outputs = new_outputs(p, points, {}, found);
  const NewTensor members = new_members(p, points);
  p.find = false;
  p.fill = true;
  FASTCV_RUN(voxelize, p, points);
  return outputs.first(found);
}

py::tuple voxelize(const TensorView& points, const GridNumbers& grid, const OptionalTensor& offsets,
                   int64_t max_points_per_voxel, std::optional<int64_t> max_voxels) {
  const CheckedPoints checked(points, grid, offsets);
  VoxelizeParams p = make_params(checked, max_points_per_voxel, max_voxels.value_or(checked.params.count), false);
  return runs_on_cpu(points) ? voxelize_on_cpu(p, points) : voxelize_on_cuda(p, points);
}

py::tuple voxelize_padded(const TensorView& points, const GridNumbers& grid, const OptionalTensor& offsets,
                          int64_t max_points_per_voxel, int64_t max_voxels) {
  const CheckedPoints checked(points, grid, offsets);
  VoxelizeParams p = make_params(checked, max_points_per_voxel, max_voxels, true);
  const auto clouds = checked.has_offsets() ? std::optional(p.clouds.count) : std::nullopt;
  const Outputs outputs = new_outputs(p, points, clouds, max_voxels);
  const NewTensor counts = clouds ? new_contiguous(points, DType::kInt64, {*clouds})  //
                                  : new_contiguous(points, DType::kInt64, {});
  NewTensor workspace, members;
  if (!runs_on_cpu(points)) {
    workspace = new_workspace(p, points);
    members = new_members(p, points);
  }
  p.counts = counts.view.as<int64_t>();
  p.find = p.fill = true;
  FASTCV_RUN(voxelize, p, points);
  return py::make_tuple(outputs.voxels.object, outputs.coords.object, outputs.num_points.object, counts.object);
}

}  // namespace

void bind_voxelize(py::module_& module) {
  module.def("voxelize", &voxelize);
  module.def("voxelize_padded", &voxelize_padded);
}

}  // namespace fastcv

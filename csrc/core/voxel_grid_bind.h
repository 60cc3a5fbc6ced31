// Arguments that the voxel ops have in common, checked at the boundary.
#pragma once

#include <pybind11/stl.h>

#include <array>
#include <cmath>
#include <string>

#include "core/tensor.h"
#include "core/voxel_grid.h"

namespace fastcv {

// Origin, voxel size and number of cells, x, y, z each.
using GridNumbers = std::array<double, 9>;

inline VoxelGrid make_voxel_grid(const GridNumbers& numbers, DType dtype, int64_t clouds) {
  VoxelGrid grid{};
  double volume = static_cast<double>(clouds < 1 ? 1 : clouds);
  for (int axis = 0; axis < 3; ++axis) {
    const double origin = numbers[axis], size = numbers[3 + axis], cells = numbers[6 + axis];
    const double rounded = accumulate_dtype(dtype) == DType::kFloat32 ? static_cast<float>(size) : size;
    if (!(rounded > 0) || !std::isfinite(rounded)) {
      throw pybind11::value_error("voxel_size must be positive and finite, got " + std::to_string(size));
    }
    if (!std::isfinite(origin)) throw pybind11::value_error("point_cloud_range must be finite");
    if (!(cells >= 1 && cells < 2147483648.0)) {
      throw pybind11::value_error("point_cloud_range must span 1 to 2^31 - 1 voxels along each axis");
    }
    grid.origin[axis] = origin;
    grid.size[axis] = size;
    grid.cells[axis] = static_cast<int64_t>(cells);
    volume *= cells;
  }
  if (!(volume < 4611686018427387904.0)) throw pybind11::value_error("the grids must have fewer than 2^62 voxels");
  return grid;
}

inline void check_points(const TensorView& points) {
  if (points.rank != 2 || points.shape[1] < 3) {
    std::string shape;
    for (int i = 0; i < points.rank; ++i) shape += (i > 0 ? ", " : "") + std::to_string(points.shape[i]);
    throw pybind11::value_error("points must have shape (P, 3 or more), columns x, y, z and features, got (" + shape +
                                ")");
  }
  check_floating({points, "points"});
  if (points.strides[1] != 1 && points.elements() > 0)
    throw pybind11::value_error("points must have rows in one piece");
  if (points.shape[0] > int64_t{1} << 30) throw pybind11::value_error("points must be at most 2^30");
}

// None: one cloud. On the CPU the offsets must ascend from 0 to the number of points; on CUDA, where looking would cost
// a synchronisation, points outside of all clouds are dropped.
inline PointClouds make_clouds(const pybind11::object& offsets, const TensorView& points) {
  if (offsets.is_none()) return {nullptr, 1};
  const TensorView view = view_of(offsets.ptr());
  check_shape({view, "offsets"}, {kAny}, "(B + 1,)");
  check_dtype({view, "offsets"}, DType::kInt64);
  check_contiguous({view, "offsets"});
  check_same_device({view, "offsets"}, {points, "points"});
  if (view.shape[0] < 1) throw pybind11::value_error("offsets must have at least one element, got none");
  const auto* values = static_cast<const int64_t*>(view.data);
  const int64_t clouds = view.shape[0] - 1;
  if (clouds > int64_t{1} << 24) throw pybind11::value_error("offsets must be of at most 2^24 clouds");
  if (!view.on_cuda) {
    bool ascend = values[0] == 0 && values[clouds] == points.shape[0];
    for (int64_t i = 0; i < clouds; ++i) ascend = ascend && values[i] <= values[i + 1];
    if (!ascend) {
      throw pybind11::value_error("offsets must ascend from 0 to the number of points (" +
                                  std::to_string(points.shape[0]) + ")");
    }
  }
  return {values, clouds};
}

}  // namespace fastcv

// Arguments that the voxel ops have in common, checked at the boundary.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>

#include "core/arguments.h"
#include "families/voxel/voxel_grid.h"

namespace fastcv {

// Voxel size, where the range begins, where it ends: x, y, z each. Made by as_grid of fastcv.ops._voxels.
using GridNumbers = Floats;

// "(0.5, 0.25, 0.4)", as Python writes it.
inline std::string show_floats(const GridNumbers& numbers, int begin, int end) {
  std::string text;
  for (int i = begin; i < end; ++i) {
    text += (i > begin ? ", " : "") + pybind11::str(pybind11::float_(numbers[i])).cast<std::string>();
  }
  return "(" + text + ")";
}

// `dtype` is that of the points, `clouds` how many grids there are behind each other.
inline VoxelGrid make_voxel_grid(const GridNumbers& numbers, DType dtype, int64_t clouds) {
  if (numbers.count != 9) refuse("grid", "hold 9 numbers", std::to_string(numbers.count));
  const auto range_with_size = [&] {
    return show_floats(numbers, 3, 9) + " with voxel_size " + show_floats(numbers, 0, 3);
  };
  VoxelGrid grid{};
  double volume = static_cast<double>(std::max<int64_t>(clouds, 1));
  for (int axis = 0; axis < 3; ++axis) {
    const double size = numbers[axis], low = numbers[3 + axis], high = numbers[6 + axis];
    const DType decides = accumulate_dtype(dtype);
    const double rounded = decides == DType::kFloat32 ? static_cast<float>(size) : size;
    if (!(rounded > 0) || !std::isfinite(rounded)) {
      refuse("voxel_size", std::string("be positive and finite in ") + name_of(decides), show_floats(numbers, 0, 3));
    }
    if (!std::isfinite(low) || !std::isfinite(high)) {
      refuse("point_cloud_range", "be finite", show_floats(numbers, 3, 9));
    }
    const double cells = std::floor(std::min((high - low) / size, 0x1p40) + 0.5);
    if (!(cells >= 1 && cells < 0x1p31)) {
      refuse("point_cloud_range", "span 1 to 2^31 - 1 voxels along each axis", range_with_size());
    }
    grid.origin[axis] = low;
    grid.size[axis] = size;
    grid.cells[axis] = static_cast<int64_t>(cells);
    volume *= cells;
  }
  if (!(volume < 0x1p62)) {
    refuse("point_cloud_range", "span fewer than 2^62 voxels in all clouds together", range_with_size());
  }
  return grid;
}

// Points after their checks, each in one piece.
inline TensorView checked_points(const TensorView& points) {
  if (points.rank != 2 || points.shape[1] < 3) {
    refuse("points", "have shape (P, 3 or more), columns x, y, z and features", describe_shape(points));
  }
  check_floating({points, "points"});
  if (points.shape[0] > kMostVoxelPoints) refuse("points", "have at most 2^30 rows", std::to_string(points.shape[0]));
  return points.strides[1] == 1 || points.elements() == 0 ? points : contiguous(points);
}

// Offsets (B + 1,) after their checks, contiguous; a view of nothing where there are none. On the CPU they must ascend
// from 0 to the number of points; on CUDA, where looking would cost a synchronisation, points outside of all clouds are
// dropped.
inline TensorView checked_offsets(const OptionalTensor& offsets, const TensorView& points) {
  if (!offsets) return {};
  TensorView made = checked({offsets, "offsets"}, {kAny}, "(B + 1,)", DType::kInt64, {points, "points"});
  const int64_t last = made.shape[0] - 1;
  if (last < 0) refuse("offsets", "have at least one element", "none");
  if (last > kMostPointClouds) refuse("offsets", "be of at most 2^24 clouds", std::to_string(last));
  if (made.is_description || made.on_cuda) return made;
  const int64_t* const values = made.as<int64_t>();
  for (int64_t i = 0; i <= last; ++i) {
    const int64_t least = i > 0 ? values[i - 1] : 0, most = i > 0 ? points.shape[0] : 0;
    if (values[i] >= least && values[i] <= most && (i < last || values[i] == points.shape[0])) continue;
    refuse("offsets", "ascend from 0 to the number of points (" + std::to_string(points.shape[0]) + ")",
           std::to_string(values[i]) + " at " + std::to_string(i));
  }
  return made;
}

// None: one cloud.
inline PointClouds clouds_of(const TensorView& offsets) {
  if (offsets.object == nullptr) return {nullptr, 1};
  return {offsets.as<int64_t>(), offsets.shape[0] - 1};
}

// Points, grid and offsets after all checks. What the params point to lives as long as this.
struct CheckedPoints {
  CheckedPoints(const TensorView& user_points, const GridNumbers& grid, const OptionalTensor& user_offsets)
      : points(checked_points(user_points)), offsets(checked_offsets(user_offsets, points)) {
    params.points = points.data;
    params.dtype = points.dtype;
    params.count = points.shape[0];
    params.stride = points.strides[0];
    params.clouds = clouds_of(offsets);
    params.grid = make_voxel_grid(grid, points.dtype, params.clouds.count);
  }

  bool has_offsets() const { return offsets.object != nullptr; }

  TensorView points, offsets;
  VoxelPoints params{};
};

}  // namespace fastcv

// A grid of voxels over a box of space, the voxel that a point lies in, and one number for it. Decided alike on all
// devices: the arithmetic is a subtraction and a division in float32 (float64 for float64 points), each rounded by
// itself, as spconv's PointToVoxel has it.
#pragma once

#include "core/types.h"

namespace fastcv {

// Axes in the order x, y, z. The grid spans [origin, origin + size * cells).
struct VoxelGrid {
  double origin[3];
  double size[3];
  int64_t cells[3];  // 1 to 2^31 - 1 each; their product times the number of clouds is below 2^62
};

// Several point clouds behind each other: those of cloud b are [offsets[b], offsets[b + 1]). Null where there is one.
struct PointClouds {
  const int64_t* offsets;
  int64_t count;
};

constexpr int64_t kMostVoxelPoints = int64_t{1} << 30;
constexpr int64_t kMostPointClouds = int64_t{1} << 24;

// Points and their grid, as all voxel ops take them.
struct VoxelPoints {
  const void* points;  // (P, 3+): x, y, z and whatever else
  DType dtype;
  int64_t count;   // P, at most kMostVoxelPoints
  int64_t stride;  // of a row, in elements
  PointClouds clouds;
  VoxelGrid grid;
};

namespace FASTCV_VARIANT {

template <class A>
struct VoxelAxis {
  A origin, size, limit;

  FASTCV_HD VoxelAxis(const VoxelGrid& grid, int axis)
      : origin(static_cast<A>(grid.origin[axis])),
        size(static_cast<A>(grid.size[axis])),
        limit(static_cast<A>(grid.cells[axis])) {
    // Rounded up: a coordinate of type A is below the limit just when it is below the number of cells.
    if constexpr (sizeof(A) == 4) {
      if (static_cast<int64_t>(limit) < grid.cells[axis]) limit = bit_cast<float>(bit_cast<uint32_t>(limit) + 1u);
    }
  }

  // floor((value - origin) / size) where that is a cell, else -1, for NaN too. Truncation is floor where it matters.
  FASTCV_HD int32_t cell_of(A value) const {
    const A position = (value - origin) / size;
    return position >= A(0) && position < limit ? static_cast<int32_t>(position) : -1;
  }
};

// The axes as kernels use them.
template <class A>
struct VoxelAxes {
  VoxelAxis<A> x, y, z;
  FASTCV_HD explicit VoxelAxes(const VoxelGrid& grid) : x(grid, 0), y(grid, 1), z(grid, 2) {}
};

struct Voxel {
  int32_t z, y, x;
  FASTCV_HD bool is_inside() const { return (z | y | x) >= 0; }
};

// The voxel of the point whose coordinates begin at `row`; not inside where one of them is not.
template <class T>
FASTCV_HD Voxel voxel_of(const T* row, const VoxelAxes<Accumulate<T>>& axes) {
  return {axes.z.cell_of(to_float(row[2])), axes.y.cell_of(to_float(row[1])), axes.x.cell_of(to_float(row[0]))};
}

// Where the voxel lies in a dense (cloud, z, y, x) grid.
FASTCV_HD uint64_t voxel_key(int64_t cloud, const Voxel& voxel, const VoxelGrid& grid) {
  const uint64_t plane = static_cast<uint64_t>(cloud) * static_cast<uint64_t>(grid.cells[2]) + voxel.z;
  return (plane * static_cast<uint64_t>(grid.cells[1]) + voxel.y) * static_cast<uint64_t>(grid.cells[0]) + voxel.x;
}

// The cloud of a point. Whatever the offsets hold, the answer is in [0, count) or -1.
FASTCV_HD int64_t cloud_of(int64_t point, const PointClouds& clouds) {
  if (clouds.offsets == nullptr) return 0;
  int64_t begin = 0, end = clouds.count;  // the first cloud that ends behind the point
  while (begin < end) {
    const int64_t middle = (begin + end) / 2;
    if (clouds.offsets[middle + 1] <= point) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin < clouds.count && clouds.offsets[begin] <= point ? begin : -1;
}

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

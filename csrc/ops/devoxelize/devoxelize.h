// Features of voxels, brought back to points: of the voxel that a point lies in, or trilinearly between the centres of
// the eight voxels around it. (Tang et al. 2020, "SPVNAS", section 3.1: weights of voxels that do not exist are left
// out, and the others scaled to sum to one.)
//
// Neighbours: which voxels, and with what weight.
//   coords    (V, 4)   int32: cloud, z, y, x of each voxel; contiguous. Of equal ones the first counts
//   points    (P, 3+)  x, y, z and whatever else; any row stride; clouds by offsets
//   indices   (P, K)   int32: rows of coords, -1 where there is none; K = 1 (nearest) or 8 (trilinear; the bits of k
//                      say whether the voxel is the farther one along z, y, x); contiguous
//   weights   (P, K)   float32 (float64 for float64 points): 0 where there is none; contiguous
//
// Interpolation, in float32 (float64 for float64 features) and in the order of k:
//   output    (P, C)   sum over k of weights[p, k] * features[indices[p, k]]
// and its transpose, in ascending order of (p, k):
//   grad      (V, C)   sum over (p, k) with indices[p, k] == v of weights[p, k] * grad_output[p]
#pragma once

#include "core/cpu_variants.h"
#include "families/voxel/voxel_grid.h"

namespace fastcv {

struct VoxelNeighborsParams {
  const int32_t* coords;
  int64_t voxels;  // V, at most kMostTableVoxels
  const void* points;
  DType dtype;
  int64_t count, stride;
  PointClouds clouds;
  VoxelGrid grid;
  int64_t neighbors;  // K
  int32_t* indices;
  void* weights;
  void* table;         // CUDA: voxel_table_bytes, 16-aligned
  int64_t table_size;  // CUDA: voxel_table_size
};

constexpr int64_t kMostTableVoxels = int64_t{1} << 29;

// Slots of the table of V voxels: a power of two, more than 2 V.
constexpr int64_t voxel_table_size(int64_t voxels) {
  int64_t size = 32;
  while (size <= 2 * voxels) size *= 2;
  return size;
}

// All keys, then all rows.
constexpr int64_t voxel_table_bytes(int64_t size) {
  return size * static_cast<int64_t>(sizeof(uint64_t) + sizeof(int32_t));
}

// Computed at compile time, where an overflow is an error.
static_assert(voxel_table_bytes(voxel_table_size(kMostTableVoxels)) > 0);

struct DevoxelizeParams {
  const void* features;  // (V, C) or, transposed, (P, C); contiguous
  DType dtype;
  int64_t voxels, points, channels, neighbors;
  const int32_t* indices;
  const void* weights;  // in what the features accumulate in
  void* output;
  // Transposed, on CUDA: the places p * K + k sorted by index, stably, and where each voxel begins among them.
  const int64_t* order;
  const int64_t* starts;  // (V + 1,)
};

FASTCV_DECLARE_KERNEL(voxel_neighbors, VoxelNeighborsParams);
FASTCV_DECLARE_KERNEL(devoxelize, DevoxelizeParams);
FASTCV_DECLARE_KERNEL(devoxelize_transposed, DevoxelizeParams);

namespace FASTCV_VARIANT {

// Where a coordinate lies between the centres of two cells: `low` and low + 1 (which may be outside the grid), of which
// the second has weight `high`. Exact: no rounding but that of the position.
template <class A>
struct Between {
  int32_t low;
  A high;
  FASTCV_HD Between(A value, const VoxelAxis<A>& axis, int32_t cell) {
    const A fraction = (value - axis.origin) / axis.size - static_cast<A>(cell);
    low = fraction < A(0.5) ? cell - 1 : cell;
    high = fraction < A(0.5) ? fraction + A(0.5) : fraction - A(0.5);
  }
};

// Writes the K neighbours of a point; find(voxel) returns the row of a voxel within the grid, or -1.
template <class T, class Find>
FASTCV_HD void find_neighbors(const T* row, const VoxelAxes<Accumulate<T>>& axes, const VoxelGrid& grid, int64_t cloud,
                              int64_t neighbors, int32_t* indices, Accumulate<T>* weights, const Find& find) {
  using A = Accumulate<T>;
  const Voxel voxel = voxel_of(row, axes);
  for (int64_t k = 0; k < neighbors; ++k) indices[k] = -1, weights[k] = A(0);
  if (cloud < 0 || !voxel.is_inside()) return;
  if (neighbors == 1) {
    indices[0] = find(voxel);
    weights[0] = indices[0] < 0 ? A(0) : A(1);
    return;
  }
  const Between<A> z(to_float(row[2]), axes.z, voxel.z), y(to_float(row[1]), axes.y, voxel.y),
      x(to_float(row[0]), axes.x, voxel.x);
  A sum = A(0);
  for (int k = 0; k < 8; ++k) {
    const int dz = k >> 2, dy = k >> 1 & 1, dx = k & 1;
    const Voxel corner{z.low + dz, y.low + dy, x.low + dx};
    if (!corner.is_inside() || corner.z >= grid.cells[2] || corner.y >= grid.cells[1] || corner.x >= grid.cells[0]) {
      continue;
    }
    const int32_t found = find(corner);
    if (found < 0) continue;
    const A weight =
        (dz != 0 ? z.high : A(1) - z.high) * (dy != 0 ? y.high : A(1) - y.high) * (dx != 0 ? x.high : A(1) - x.high);
    indices[k] = found;
    weights[k] = weight;
    sum += weight;
  }
  for (int k = 0; k < 8; ++k) weights[k] = sum > A(0) ? weights[k] / sum : A(0);
}

// The key of a row of coordinates, or kNoVoxel where it is not in the grid.
constexpr uint64_t kNoVoxel = ~uint64_t{0};
FASTCV_HD uint64_t key_of_coords(const int32_t* row, const VoxelGrid& grid, int64_t clouds) {
  const Voxel voxel{row[1], row[2], row[3]};
  const bool inside = row[0] >= 0 && row[0] < clouds && voxel.is_inside() && voxel.z < grid.cells[2] &&
                      voxel.y < grid.cells[1] && voxel.x < grid.cells[0];
  return inside ? voxel_key(row[0], voxel, grid) : kNoVoxel;
}

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

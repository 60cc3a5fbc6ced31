// Hard voxelisation: the points of each occupied voxel of a grid, side by side. (Zhou, Tuzel: VoxelNet, 2018, section
// 2.1.1; voxels and points are chosen as spconv's PointToVoxel chooses them.)
//
//   points      (P, F)     x, y, z and whatever else; any row stride
//   offsets     (B + 1,)   int64: cloud b is points [offsets[b], offsets[b + 1]); null for one cloud
//   voxels      (V, M, F)  the first M points of each voxel in input order, then zeros; contiguous
//   coords      (V, 3)     int32: z, y, x; (V, 4) with the cloud in front where there are offsets; contiguous
//   num_points  (V,)       int32: how many of the M; contiguous
//   counts      (B,)       int64: voxels of each cloud
//
// Of each cloud the first max_voxels voxels, in order of first appearance; points of others are dropped, and so are
// points outside the grid and those with a coordinate that is NaN. The rows of the clouds follow each other; padded,
// the cloud b has the rows [b * max_voxels, (b + 1) * max_voxels), and those without a voxel hold zeros, -1 as
// coordinates.
//
// Time and memory are O(P + size of the result), whatever the grid.
#pragma once

#include "core/cpu_variants.h"
#include "core/voxel_grid.h"

namespace fastcv {

struct VoxelizeParams {
  const void* points;
  DType dtype;
  int64_t count, features;  // P, F
  int64_t stride;           // of a row of points, in elements
  PointClouds clouds;
  VoxelGrid grid;
  void* voxels;
  int32_t* coords;
  int64_t coords_width;  // 3 or 4
  int32_t* num_points;
  int64_t* counts;
  int64_t rows;  // V: room in the outputs
  int64_t max_points, max_voxels;
  bool padded;

  // CUDA works in two steps, between which the caller may look at the counts: find the voxels (counts), then fill the
  // outputs. The CPU does both at once.
  bool find, fill;
  void* workspace;          // 16-aligned; the same for both
  int64_t workspace_bytes;  // voxelize_workspace_bytes(P, B)
  int32_t* members;         // (V, M): for filling
};

// CUDA: a hash table of 12 bytes per slot with two to four slots per point, and some numbers per point, block and
// cloud.
constexpr int64_t voxelize_workspace_bytes(int64_t points, int64_t clouds) {
  int64_t capacity = 32;
  while (capacity < 2 * points) capacity *= 2;
  return 12 * capacity + 4 * points + 4 * (points / 1024 + 2) + 12 * (clouds + 1) + 6 * 16;
}

FASTCV_DECLARE_KERNEL(voxelize, VoxelizeParams);

}  // namespace fastcv

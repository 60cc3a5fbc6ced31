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
#include "core/cuda/scan_size.h"
#include "core/hash.h"
#include "families/voxel/voxel_grid.h"

namespace fastcv {

struct VoxelizeParams : VoxelPoints {
  int64_t features;  // F
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
  void* workspace;   // VoxelizeWorkspace(P, B).bytes, 16-aligned; the same for both
  int32_t* members;  // (V, M): for filling
};

FASTCV_DECLARE_KERNEL(voxelize, VoxelizeParams);

namespace FASTCV_VARIANT {

// CUDA's workspace: where its parts begin, in bytes, each 16-aligned, and how long it is.
struct VoxelizeWorkspace {
  int64_t slots;       // S: of the hash table
  int64_t keys;        // (S,) uint64: the voxel of a slot; later, once all are entered, its number
  int64_t firsts;      // (S,) int32: its first point
  int64_t slot_of;     // (P,) int32: the slot of a point's voxel, -1 outside
  int64_t block_sums;  // (scan_sums(P),) int32: how many first points before each block of points
  int64_t cloud_sums;  // (B + 1,) int32: how many before each cloud
  int64_t cloud_rows;  // (B + 1,) int64: the first row of each cloud
  int64_t bytes;

  constexpr VoxelizeWorkspace(int64_t points, int64_t clouds)
      : slots(hash_capacity(points)),
        keys(0),
        firsts(after(keys, 8 * slots)),
        slot_of(after(firsts, 4 * slots)),
        block_sums(after(slot_of, 4 * points)),
        cloud_sums(after(block_sums, 4 * scan_sums(points))),
        cloud_rows(after(cloud_sums, 4 * (clouds + 1))),
        bytes(after(cloud_rows, 8 * (clouds + 1))) {}

 private:
  static constexpr int64_t after(int64_t begin, int64_t size) { return (begin + size + 15) / 16 * 16; }
};

// Computed at compile time, where an overflow is an error.
static_assert(VoxelizeWorkspace(kMostVoxelPoints, kMostPointClouds).bytes > 0);

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

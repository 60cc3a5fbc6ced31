// The voxel of each point, and the dense grid of how many points each voxel has.
//
//   points     (P, 3+)       x, y, z and whatever else; any row stride
//   offsets    (B + 1,)      int64: cloud b is points [offsets[b], offsets[b + 1]); or
//   batch      (P,)          int64: the cloud of each point; or neither, for one cloud
//   ids        (P, 4)        int32: cloud, z, y, x; all -1 for points outside, or of a cloud outside of int32
//   occupancy  (B, Z, Y, X)  float32: 1 where there is a point (binary), the number of points (count), or that number
//                            over the number of the cloud's points inside the grid (density); else 0
//
// The binary and the density grid are the input of VoxNet (Maturana, Scherer 2015, section III.B). Counts are integers
// until the end, so the order in which points arrive does not matter.
#pragma once

#include "core/cpu_variants.h"
#include "families/voxel/voxel_grid.h"

namespace fastcv {

struct VoxelIdsParams : VoxelPoints {
  const int64_t* batch;  // or null
  int32_t* ids;
};

enum class Occupancy : int { kBinary, kCount, kDensity };

struct VoxelOccupancyParams : VoxelPoints {
  int64_t cells;     // of one cloud
  float* occupancy;  // holds int32 counts on the way
  int64_t* inside;   // (B,) scratch: points of each cloud inside the grid
  Occupancy mode;
};

FASTCV_DECLARE_KERNEL(voxel_ids, VoxelIdsParams);
FASTCV_DECLARE_KERNEL(voxel_occupancy, VoxelOccupancyParams);

}  // namespace fastcv

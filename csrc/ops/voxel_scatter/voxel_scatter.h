// Features of points, reduced per voxel.
//
// Segments: which points lie in which voxel.
//   coords      (P, 4)   int32: cloud, z, y, x of each point; points with a negative number are in no voxel; contiguous
//   order       (P,)     int32: the points sorted by voxel (cloud, then z, y, x), then by index; those in none last
//   starts      (P + 1,) int32: where each voxel begins in `order`; its V + 1 first elements are written
//   voxels      (P, 4)   int32: the coordinates of each voxel; V rows are written
//   voxel_of    (P,)     int64: the voxel of each point, or -1
//   count       ()       int64: V
//
// Reduction over the points of a voxel, in ascending order, in float32 (float64 for float64).
//   features    (P, C)   contiguous
//   reduced     (V, C)   sum, mean, largest or smallest; a NaN wins
//   argument    (V, C)   int32, of max and min: the first point that has the value
//   grad_features (P, C) the transpose: points in no voxel get zeros
#pragma once

#include "core/cpu_variants.h"
#include "core/cuda/scan_size.h"
#include "core/types.h"

namespace fastcv {

struct VoxelSegmentsParams {
  const int32_t* coords;
  int64_t count;  // P
  int32_t* order;
  int32_t* starts;
  int32_t* voxels;
  int64_t* voxel_of;
  int64_t* voxel_count;
  const int64_t* sorted;  // CUDA: the order, by the caller
  int32_t* block_sums;    // CUDA: (scan_sums(P),) scratch
};

enum class VoxelReduction : int { kSum, kMean, kMax, kMin };

struct VoxelReduceParams {
  const void* features;
  DType dtype;
  int64_t points, channels, voxels;
  const int32_t* order;   // `ordered` elements
  const int32_t* starts;  // (V + 1,)
  int64_t ordered;
  void* reduced;
  int32_t* argument;  // may be null
  VoxelReduction reduction;
};

struct VoxelSpreadParams {
  const void* grad;  // (V, C)
  DType dtype;
  int64_t points, channels, voxels;
  const int64_t* voxel_of;
  const int32_t* starts;
  const int32_t* argument;  // of max and min
  void* grad_features;
  VoxelReduction reduction;
};

FASTCV_DECLARE_KERNEL(voxel_segments, VoxelSegmentsParams);
FASTCV_DECLARE_KERNEL(voxel_reduce, VoxelReduceParams);
FASTCV_DECLARE_KERNEL(voxel_spread, VoxelSpreadParams);

namespace FASTCV_VARIANT {

// Whether `value` takes the place of `best`; the first of equal values stays, and so does a NaN.
template <class A>
FASTCV_HD bool is_better(A value, A best, VoxelReduction reduction) {
  if (best != best) return false;
  if (value != value) return true;
  return reduction == VoxelReduction::kMax ? value > best : value < best;
}

// The points [begin, end) of `order` that belong to a voxel; never outside of it.
struct Segment {
  int64_t begin, end;
  FASTCV_HD Segment(const int32_t* starts, int64_t voxel, int64_t ordered)
      : begin(starts[voxel]), end(starts[voxel + 1]) {
    if (begin < 0) begin = 0;
    if (end > ordered) end = ordered;
  }
};

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

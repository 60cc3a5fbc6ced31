// Voxel scatter on CUDA. The caller sorts the points by voxel; a prefix sum over "differs from the one before" numbers
// the voxels. Reduction: a thread per voxel and channel, neighbours in the channel, adds the points in their order: no
// atomics, the same bits every time. Its transpose is a gather, a thread per point and channel.
//
// Napkin maths, 1 000 000 points of 16 float32 channels in 160 000 voxels: 64 MB of features in, 10 MB out, 4 MB of
// order: 78 MB, 18 us at 4.3 TB/s; the sort before it moves 16 bytes per point and pass.
#include "core/cuda/exclusive_scan.cuh"
#include "families/voxel/feature_rows.cuh"
#include "ops/voxel_scatter/voxel_scatter.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

__device__ __forceinline__ bool is_inside(const int32_t* row) {
  return (row[0] | row[1] | row[2] | row[3]) >= 0;
}

// The coordinates of the i-th point in the order.
__device__ __forceinline__ const int32_t* row_at(const VoxelSegmentsParams& p, int64_t i) {
  return p.coords + 4 * p.sorted[i];
}

__device__ __forceinline__ bool begins_voxel(const VoxelSegmentsParams& p, int64_t i) {
  if (i >= p.count) return false;
  const int32_t* const row = row_at(p, i);
  if (!is_inside(row)) return false;
  if (i == 0) return true;
  const int32_t* const before = row_at(p, i - 1);
  return row[0] != before[0] || row[1] != before[1] || row[2] != before[2] || row[3] != before[3];
}

__global__ void __launch_bounds__(kScanBlock, 1) segments_count_kernel(const VoxelSegmentsParams p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kScanBlock + threadIdx.x;
  const int voxels = block_count(begins_voxel(p, i));
  if (threadIdx.x == 0) p.block_sums[blockIdx.x] = voxels;
}

__global__ void __launch_bounds__(kScanBlock, 1) segments_number_kernel(const VoxelSegmentsParams p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kScanBlock + threadIdx.x;
  const bool begins = begins_voxel(p, i);
  int total;
  const int voxel = p.block_sums[blockIdx.x] + block_rank<kScanBlock>(begins, total) + (begins ? 1 : 0) - 1;
  if (i == 0) *p.voxel_count = p.block_sums[gridDim.x];
  if (i >= p.count) return;
  const int64_t point = p.sorted[i];
  const int32_t* const row = p.coords + 4 * point;
  const bool inside = is_inside(row);
  p.order[i] = static_cast<int32_t>(point);
  p.voxel_of[point] = inside ? voxel : -1;
  if (begins) {
    p.starts[voxel] = static_cast<int32_t>(i);
    for (int axis = 0; axis < 4; ++axis) p.voxels[4 * static_cast<int64_t>(voxel) + axis] = row[axis];
  }
  // Points in no voxel come last: where they begin, or at the end, the last voxel ends.
  const bool ends = inside ? i + 1 == p.count || !is_inside(row_at(p, i + 1)) : i == 0;
  if (ends) p.starts[p.block_sums[gridDim.x]] = static_cast<int32_t>(inside ? i + 1 : 0);
}

template <class T>
__global__ void __launch_bounds__(kFeatureBlock, 2) reduce_kernel(const VoxelReduceParams p, int lanes) {
  using A = Accumulate<T>;
  const int64_t voxel = feature_row(lanes);
  if (voxel >= p.voxels) return;
  const Segment segment(p.starts, voxel, p.ordered);
  const bool chooses = p.reduction == VoxelReduction::kMax || p.reduction == VoxelReduction::kMin;
  for (int64_t c = threadIdx.x % lanes; c < p.channels; c += lanes) {
    A sum = A(0);
    int32_t best = -1;
    for (int64_t i = segment.begin; i < segment.end; ++i) {
      const int32_t point = p.order[i];
      if (point < 0 || point >= p.points) continue;
      const A value = to_float(static_cast<const T*>(p.features)[point * p.channels + c]);
      if (!chooses) {
        sum += value;
      } else if (best < 0 || is_better(value, sum, p.reduction)) {
        sum = value;
        best = point;
      }
    }
    if (p.reduction == VoxelReduction::kMean && segment.end > segment.begin) {
      sum /= static_cast<A>(segment.end - segment.begin);
    }
    static_cast<T*>(p.reduced)[voxel * p.channels + c] = from_float<T>(sum);
    if (p.argument != nullptr) p.argument[voxel * p.channels + c] = best;
  }
}

template <class T>
__global__ void __launch_bounds__(kFeatureBlock, 2) spread_kernel(const VoxelSpreadParams p, int lanes) {
  using A = Accumulate<T>;
  const int64_t point = feature_row(lanes);
  if (point >= p.points) return;
  const int64_t voxel = p.voxel_of[point];
  const bool has_voxel = voxel >= 0 && voxel < p.voxels;
  A scale = A(1);
  if (has_voxel && p.reduction == VoxelReduction::kMean) {
    scale = static_cast<A>(p.starts[voxel + 1] - p.starts[voxel]);
  }
  for (int64_t c = threadIdx.x % lanes; c < p.channels; c += lanes) {
    T* const target = static_cast<T*>(p.grad_features) + point * p.channels + c;
    if (!has_voxel || (p.argument != nullptr && p.argument[voxel * p.channels + c] != point)) {
      *target = T{};
      continue;
    }
    *target = from_float<T>(to_float(static_cast<const T*>(p.grad)[voxel * p.channels + c]) / scale);
  }
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void voxel_segments_cuda(const VoxelSegmentsParams& p, Stream stream) {
  using namespace FASTCV_VARIANT;
  const int64_t blocks = grid_size(p.count, kScanBlock);
  launch(segments_count_kernel, {{blocks}, {kScanBlock}}, stream, p);
  launch(exclusive_scan_kernel<int32_t>, {{1}, {kScanBlock}}, stream, p.block_sums, blocks);
  launch(segments_number_kernel, {{blocks}, {kScanBlock}}, stream, p);
}

void voxel_reduce_cuda(const VoxelReduceParams& p, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(p.dtype, [&](auto tag) {
    launch_feature_rows(reduce_kernel<typename decltype(tag)::type>, p.voxels, p.channels, stream, p);
  });
}

void voxel_spread_cuda(const VoxelSpreadParams& p, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(p.dtype, [&](auto tag) {
    launch_feature_rows(spread_kernel<typename decltype(tag)::type>, p.points, p.channels, stream, p);
  });
}

}  // namespace fastcv

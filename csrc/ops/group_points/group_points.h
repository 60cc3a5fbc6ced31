// Features of points gathered by index, and sums of them: grouping and three-point interpolation of PointNet++ (Qi et
// al. 2017, sections 3.2 and 3.4).
//
//   features  (B, N, C)      contiguous
//   indices   (B, P, K)      int64 into the cloud, contiguous; -1 for no point. To users without weights: (B, ...)
//   weights   (B, P, K)      float32 (float64 for float64), contiguous; or null for ones
//   grouped   (B, P, C)      contiguous
//
//   grouped[b, p, c] = sum_j  weights[b, p, j] * features[b, indices[b, p, j], c]
//
// in the order of j; grouping has K = 1 and no weights and copies. The op is linear in the features and `backward` is
// its transpose: every row of `features` is the sum of the rows of `grouped` that took it, in ascending order of (p,
// j), whatever the number of threads. Sums are kept in float32 (float64 for float64). An index outside of [-1, N) is a
// ValueError on the CPU; on CUDA, where looking would cost a synchronisation, it counts as -1.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"

namespace fastcv {

struct GroupPointsParams {
  void* features;
  const int64_t* indices;
  const void* weights;
  void* grouped;
  // Backward on CUDA: b * N + index of every entry (-1 for none) in ascending order, and the entries, stable.
  const int64_t* sorted_rows;
  const int64_t* order;
  DType dtype;
  int64_t batch, count, groups, terms, channels;  // batch * groups * terms fits in 31 bits for backward
};

FASTCV_DECLARE_KERNEL(group_points_forward, GroupPointsParams);
FASTCV_DECLARE_KERNEL(group_points_backward, GroupPointsParams);

}  // namespace fastcv

// The k nearest points of each query (the neighbour search of PointNet++, Qi et al. 2017, section 3.3, and DGCNN).
//
//   query      (B, Q, 3)   x, y, z; contiguous
//   points     (B, N, 3)   the same dtype; contiguous
//   distances  (B, Q, k)   squared, ascending; float32 (float64 for float64); +infinity behind the last neighbour
//   indices    (B, Q, k)   int64 into the cloud; -1 behind the last neighbour
//
// Cloud b has lengths[b] points, of which query_lengths[b] ask (all where there are no lengths). Of points at the same
// squared distance the one with the lower index comes first. A point counts when its squared distance is less than
// infinity: points and queries with NaN or infinite coordinates have no neighbours. float16 and bfloat16 are compared
// in float32. All devices give the same bits: squared_distance (families/point/point.h) is written once.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"

namespace fastcv {

struct KnnParams {
  const void* query;
  const void* points;
  const int64_t* query_lengths;  // (B,) or null
  const int64_t* lengths;        // (B,) or null
  void* distances;
  int64_t* indices;
  DType dtype;
  int64_t batch, queries, count, k;  // queries and count fit in 31 bits
};

FASTCV_DECLARE_KERNEL(knn, KnnParams);

}  // namespace fastcv

// Points within a radius of each query, the grouping of PointNet++ (Qi et al. 2017, section 3.3).
//
//   query     (B, Q, 3)   x, y, z; contiguous
//   points    (B, N, 3)   the same dtype; contiguous
//   indices   (B, Q, k)   int64 into the cloud, ascending; -1, or the first one again, behind the last neighbour
//
// Cloud b has lengths[b] points, of which query_lengths[b] ask (all where there are no lengths). The neighbours of a
// query are the first k points, by index, whose squared distance is less than radius * radius (rounded once, in the
// precision of the distances: float32, or float64 for float64), and is zero or not less than min_radius * min_radius,
// rounded alike: the dilated balls of mmcv. Points and queries with NaN or infinite coordinates
// have none. All devices decide alike, bit for bit: squared_distance (families/point/point.h) is written once.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"

namespace fastcv {

struct BallQueryParams {
  const void* query;
  const void* points;
  const int64_t* query_lengths;  // (B,) or null
  const int64_t* lengths;        // (B,) or null
  int64_t* indices;
  DType dtype;
  int64_t batch, queries, count, k;  // queries and count fit in 31 bits
  double squared_radius, squared_min_radius;
  bool repeat_first;  // fill up with the first neighbour, where there is one
};

FASTCV_DECLARE_KERNEL(ball_query, BallQueryParams);

}  // namespace fastcv

// Farthest point sampling (Qi et al. 2017, "PointNet++", section 3.2): a subset that covers the cloud, each point the
// one farthest from all chosen before it.
//
//   points     (B, N, 3)   x, y, z; contiguous
//   indices    (B, k)      int64 into the cloud, in the order of choice; -1 where no point is left
//   nearest    (B, N)      CUDA: workspace, float32 (float64 for float64), uninitialised
//
// Cloud b has lengths[b] points (N where there are no lengths). The first choice is point starts[b] (`start` where there
// are no starts), or the first finite point where the cloud has no such point or it is not finite. Then, with d(i) the least squared distance of point i to
// those chosen, the next is argmax d(i) over the points not chosen yet; of equals the lowest index. No point is chosen
// twice, and none with a NaN or infinite coordinate ever. float16 and bfloat16 are compared in float32. All devices
// choose alike, bit for bit: squared_distance (families/point/point.h) is written once.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"

namespace fastcv {

struct FarthestPointSampleParams {
  const void* points;
  const int64_t* lengths;  // (B,) or null
  const int64_t* starts;   // (B,) or null
  int64_t* indices;
  void* nearest;
  DType dtype;
  int64_t batch, count, k, start;  // count and k fit in 31 bits
};

FASTCV_DECLARE_KERNEL(farthest_point_sample, FarthestPointSampleParams);

}  // namespace fastcv

// RoIAlign (He et al. 2017, "Mask R-CNN", section 3): every bin of a box is the mean of bilinear samples of the feature
// map, taken on a regular grid inside the bin.
//
//   features  (N, C, H, W)   any strides
//   boxes     (K, 5)         batch index, x1, y1, x2, y2 in pixels of the image; contiguous, float32 (float64 when the
//                            features are float64)
//   pooled    (K, C, P, Q)   any strides
//
// A box is scaled by spatial_scale onto the feature map and, if `aligned`, moved by half a pixel so that it refers to
// pixel centres. Without `aligned` its sides are at least one pixel. Each of the P x Q bins takes grid_y x grid_x
// samples: sampling_ratio of them along each axis, or, when that is not positive, ceil(side of the box / bins).
//
// The weight of a pixel in a bin is a product of one factor per axis, and neither depends on the channel:
//
//   pooled[k, c, p, q] = sum_y sum_x  weight_y[k, p, y] * weight_x[k, q, x] * features[b, c, y, x]
//
// so the op is linear in the features and `backward` is its transpose. Edge cases, on all devices: a box with a
// coordinate that is not finite, or with x2 < x1 or y2 < y1 where `aligned`, gives zeros and has no gradient. A batch
// index outside [0, N) is a ValueError on the CPU; on CUDA, where looking would cost a synchronisation, that RoI gives
// zeros. Bins so large that they would take more than kMaxRoiGrid samples along an axis take kMaxRoiGrid.
#pragma once

#include "core/cpu_variants.h"
#include "core/roi_pyramid.h"

namespace fastcv {

// The pyramid has one level.
FASTCV_DECLARE_KERNEL(roi_align_forward, RoiPyramid);
FASTCV_DECLARE_KERNEL(roi_align_backward, RoiPyramid);

}  // namespace fastcv

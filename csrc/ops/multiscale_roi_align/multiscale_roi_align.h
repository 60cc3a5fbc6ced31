// RoIAlign from a feature pyramid (Lin et al. 2017, "Feature Pyramid Networks for Object Detection", section 4.2): each
// box is pooled, as roi_align pools it, from the map whose resolution suits its size.
//
//   features  list of (N, C, H_l, W_l)  one map per level, at most kMaxRoiLevels; any strides, one dtype
//   boxes     (K, 5)                    batch index, x1, y1, x2, y2 in pixels of the image; contiguous, float32
//                                       (float64 when the features are float64)
//   pooled    (K, C, P, Q)              any strides; in the order of the boxes
//
// The level of a box is floor(canonical_level + log2(sqrt(area) / canonical_scale) + 1e-6), see roi_level. There is one
// launch for all levels and no synchronisation, forward and backward. Linear in the features, and `backward` is the
// transpose. Edge cases are those of roi_align; a box without a level gives zeros and has no gradient.
#pragma once

#include "core/cpu_variants.h"
#include "core/roi_pyramid.h"

namespace fastcv {

FASTCV_DECLARE_KERNEL(multiscale_roi_align_forward, RoiPyramid);
FASTCV_DECLARE_KERNEL(multiscale_roi_align_backward, RoiPyramid);

}  // namespace fastcv

// Position-sensitive RoIAlign (Li et al. 2017, "Light-Head R-CNN"; bins as in Dai et al. 2016, "R-FCN"): every bin is
// the mean of bilinear samples of a channel of its own.
//
// Tensors and edge cases are those of families/roi/position_sensitive.h, boxes and samples those of families/roi/roi.h,
// `aligned`. A box that is inverted or without height or width gives zeros where sampling_ratio is not positive.
#pragma once

#include "core/cpu_variants.h"
#include "families/roi/position_sensitive.h"

namespace fastcv {

FASTCV_DECLARE_KERNEL(ps_roi_align_forward, RoiParams);
FASTCV_DECLARE_KERNEL(ps_roi_align_backward, RoiParams);

}  // namespace fastcv

// RoIAlign on the CPU. See roi_align.h for the meaning.
#include "core/roi_pooling_cpu.h"
#include "ops/roi_align/roi_align.h"

namespace fastcv::FASTCV_VARIANT {

void roi_align_forward_cpu(const RoiPyramid& params) {
  dispatch_floating(params.dtype, [&](auto tag) { pool_rois<typename decltype(tag)::type>(params); });
}

void roi_align_backward_cpu(const RoiPyramid& params) {
  dispatch_floating(params.dtype, [&](auto tag) { scatter_rois<typename decltype(tag)::type>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

// MultiScaleRoIAlign on the CPU. See multiscale_roi_align.h for the meaning.
#include "core/roi_pooling_cpu.h"
#include "ops/multiscale_roi_align/multiscale_roi_align.h"

namespace fastcv::FASTCV_VARIANT {

void multiscale_roi_align_forward_cpu(const RoiPyramid& params) {
  dispatch_floating(params.dtype, [&](auto tag) { pool_rois<typename decltype(tag)::type>(params); });
}

void multiscale_roi_align_backward_cpu(const RoiPyramid& params) {
  dispatch_floating(params.dtype, [&](auto tag) { scatter_rois<typename decltype(tag)::type>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

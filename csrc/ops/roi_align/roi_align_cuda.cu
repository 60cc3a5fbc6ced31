// RoIAlign on CUDA. See roi_align.h for the meaning.
#include "core/cuda/roi_pooling.cuh"
#include "ops/roi_align/roi_align.h"

namespace fastcv {

void roi_align_forward_cuda(const RoiPyramid& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) { pool_rois<typename decltype(tag)::type>(params, stream); });
}

void roi_align_backward_cuda(const RoiPyramid& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) { scatter_rois<typename decltype(tag)::type>(params, stream); });
}

}  // namespace fastcv

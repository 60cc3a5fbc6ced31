// Position-sensitive RoIPool on CUDA. See ps_roi_pool.h for the meaning, and families/roi/position_sensitive.cuh for
// how the work is split.
#include "families/roi/position_sensitive.cuh"
#include "ops/ps_roi_pool/ps_roi_pool.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

template <class A>
struct PoolBins {
  QuantisedAxis<A> y, x;
  bool empty;

  __device__ PoolBins(const A* box, const RoiParams& p)
      : y(ps_roi_pool_axis(box[2], box[4], p.spatial_scale, p.sampling.pooled_height)),
        x(ps_roi_pool_axis(box[1], box[3], p.spatial_scale, p.sampling.pooled_width)),
        empty(!(y.valid && x.valid)) {}

  __device__ PixelBox pixels(const RoiParams& p, int bin_y, int bin_x) const {
    const PixelRange range_y = rows(p, bin_y), range_x = columns(p, bin_x);
    return {range_y.low, range_y.high, range_x.low, range_x.high};
  }

  template <class T>
  __device__ A sum(const T* plane, const RoiParams& p, int bin_y, int bin_x) const {
    return mean_of_pixels<A>(plane, p.feature_strides[2], p.feature_strides[3], rows(p, bin_y), columns(p, bin_x));
  }

  __device__ A weight(const RoiParams& p, int bin_y, int bin_x, int64_t, int64_t) const {
    return A(1) / static_cast<A>(pixel_count(rows(p, bin_y), columns(p, bin_x)));
  }

 private:
  __device__ PixelRange rows(const RoiParams& p, int bin) const { return ps_roi_pool_range(y, bin, p.height); }
  __device__ PixelRange columns(const RoiParams& p, int bin) const { return ps_roi_pool_range(x, bin, p.width); }
};

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void ps_roi_pool_forward_cuda(const RoiParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) {
    position_sensitive_forward<typename decltype(tag)::type, PoolBins>(params, stream);
  });
}

void ps_roi_pool_backward_cuda(const RoiParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) {
    position_sensitive_backward<typename decltype(tag)::type, PoolBins>(params, stream);
  });
}

}  // namespace fastcv

// Position-sensitive RoIPool on CUDA. See ps_roi_pool.h for the meaning, and core/cuda/position_sensitive.cuh for how
// the work is split.
#include "core/cuda/position_sensitive.cuh"
#include "ops/ps_roi_pool/ps_roi_pool.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

template <class A>
struct PoolBins {
  QuantisedAxis<A> y, x;
  bool empty;

  __device__ PoolBins(const A* box, const PositionSensitiveParams& p)
      : y(ps_roi_pool_axis(box[2], box[4], p.spatial_scale, p.sampling.pooled_height)),
        x(ps_roi_pool_axis(box[1], box[3], p.spatial_scale, p.sampling.pooled_width)),
        empty(!(y.valid && x.valid)) {}

  __device__ PixelBox pixels(const PositionSensitiveParams& p, int bin_y, int bin_x) const {
    const PixelRange rows = ps_roi_pool_range(y, bin_y, p.height), columns = ps_roi_pool_range(x, bin_x, p.width);
    return {rows.low, rows.high, columns.low, columns.high};
  }

  template <class T>
  __device__ A sum(const T* plane, const PositionSensitiveParams& p, int bin_y, int bin_x) const {
    const PixelBox box = pixels(p, bin_y, bin_x);
    if (box.y_high <= box.y_low || box.x_high <= box.x_low) return A(0);
    A sum = 0;
    for (int64_t i = box.y_low; i < box.y_high; ++i) {
      for (int64_t j = box.x_low; j < box.x_high; ++j) {
        sum += to_float(plane[i * p.feature_strides[2] + j * p.feature_strides[3]]);
      }
    }
    return sum / static_cast<A>((box.y_high - box.y_low) * (box.x_high - box.x_low));
  }

  __device__ A weight(const PositionSensitiveParams& p, int bin_y, int bin_x, int64_t, int64_t) const {
    const PixelBox box = pixels(p, bin_y, bin_x);
    return A(1) / static_cast<A>((box.y_high - box.y_low) * (box.x_high - box.x_low));
  }
};

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void ps_roi_pool_forward_cuda(const PositionSensitiveParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) {
    position_sensitive_forward<typename decltype(tag)::type, PoolBins>(params, stream);
  });
}

void ps_roi_pool_backward_cuda(const PositionSensitiveParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) {
    position_sensitive_backward<typename decltype(tag)::type, PoolBins>(params, stream);
  });
}

}  // namespace fastcv

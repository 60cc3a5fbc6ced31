// Position-sensitive RoIPool on the CPU. See ps_roi_pool.h for the meaning.
#include "families/roi/position_sensitive_cpu.h"
#include "ops/ps_roi_pool/ps_roi_pool.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

// The pixels of each bin.
template <class A>
class PoolBins {
 public:
  PoolBins(const A* box, const RoiParams& p)
      : columns_(p.sampling.pooled_width),
        memory_(bytes_of<PixelRange>(p.sampling.pooled_height + columns_)),
        y_(memory_.as<PixelRange>()),
        x_(y_ + p.sampling.pooled_height) {
    const int64_t rows = p.sampling.pooled_height;
    const QuantisedAxis<A> y = ps_roi_pool_axis(box[2], box[4], p.spatial_scale, rows);
    const QuantisedAxis<A> x = ps_roi_pool_axis(box[1], box[3], p.spatial_scale, columns_);
    const bool valid = y.valid && x.valid;
    for (int64_t i = 0; i < rows; ++i) y_[i] = valid ? ps_roi_pool_range(y, i, p.height) : PixelRange{0, 0};
    for (int64_t i = 0; i < columns_; ++i) x_[i] = valid ? ps_roi_pool_range(x, i, p.width) : PixelRange{0, 0};
  }

  template <class T>
  A sum(const T* plane, int64_t stride_y, int64_t stride_x, int64_t bin) const {
    return mean_of_pixels<A>(plane, stride_y, stride_x, y_[bin / columns_], x_[bin % columns_]);
  }

  void add(A* plane, int64_t width, int64_t bin, A gradient) const {
    const PixelRange y = y_[bin / columns_], x = x_[bin % columns_];
    const int64_t count = pixel_count(y, x);
    if (count == 0) return;
    const A share = gradient / static_cast<A>(count);
    for (int64_t i = y.low; i < y.high; ++i) {
      for (int64_t j = x.low; j < x.high; ++j) plane[i * width + j] += share;
    }
  }

 private:
  int64_t columns_;
  Scratch memory_;
  PixelRange *y_, *x_;
};

}  // namespace

void ps_roi_pool_forward_cpu(const RoiParams& params) {
  dispatch_floating(params.dtype,
                    [&](auto tag) { position_sensitive_forward<typename decltype(tag)::type, PoolBins>(params); });
}

void ps_roi_pool_backward_cpu(const RoiParams& params) {
  dispatch_floating(params.dtype,
                    [&](auto tag) { position_sensitive_backward<typename decltype(tag)::type, PoolBins>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

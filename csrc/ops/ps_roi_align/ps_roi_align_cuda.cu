// Position-sensitive RoIAlign on CUDA. See ps_roi_align.h for the meaning, and families/roi/position_sensitive.cuh for
// how the work is split.
#include "families/roi/position_sensitive.cuh"
#include "ops/ps_roi_align/ps_roi_align.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

template <class A>
struct AlignBins {
  RoiGeometry<A> roi;
  bool empty;

  __device__ AlignBins(const A* box, const RoiParams& p)
      : roi(roi_geometry(box, p.spatial_scale, p.sampling)),
        empty(roi.empty || p.height == 0 || p.width == 0 || roi.y.grid == 0 || roi.x.grid == 0) {}

  template <class T>
  __device__ A sum(const T* plane, const RoiParams& p, int bin_y, int bin_x) const {
    A sum = 0;
    for (int64_t i = 0; i < roi.y.grid; ++i) {
      const BilinearTap<A> y = roi_sample(roi.y, bin_y, i, p.height);
      if (!y.inside) continue;
      const T* low = plane + y.low * p.feature_strides[2];
      const T* high = plane + y.high * p.feature_strides[2];
      for (int64_t j = 0; j < roi.x.grid; ++j) {
        const BilinearTap<A> x = roi_sample(roi.x, bin_x, j, p.width);
        if (!x.inside) continue;
        const int64_t left = x.low * p.feature_strides[3], right = x.high * p.feature_strides[3];
        const A above = x.weight_low * to_float(low[left]) + x.weight_high * to_float(low[right]);
        const A below = x.weight_low * to_float(high[left]) + x.weight_high * to_float(high[right]);
        sum += y.weight_low * above + y.weight_high * below;
      }
    }
    return sum / (static_cast<A>(roi.y.grid) * static_cast<A>(roi.x.grid));
  }

  __device__ PixelBox pixels(const RoiParams& p, int bin_y, int bin_x) const {
    PixelBox box;
    range(roi.y, bin_y, p.height, &box.y_low, &box.y_high);
    range(roi.x, bin_x, p.width, &box.x_low, &box.x_high);
    return box;
  }

  __device__ A weight(const RoiParams& p, int bin_y, int bin_x, int64_t y, int64_t x) const {
    return roi_axis_weight(roi.y, bin_y, y, p.height) * roi_axis_weight(roi.x, bin_x, x, p.width);
  }

 private:
  // Errs on the side of too many pixels. Samples are inside up to a pixel beyond the border and read the border there.
  static __device__ void range(const RoiAxis<A>& axis, int bin, int64_t size, int64_t* low, int64_t* high) {
    const A start = axis.start + static_cast<A>(bin) * axis.size, end = start + axis.size;
    const A first = least(start, end) - A(1), last = greatest(start, end) + A(2);
    const A limit = static_cast<A>(size);
    *low = first < A(0) ? 0 : first > limit - A(1) ? size - 1 : static_cast<int64_t>(first);
    *high = last < A(1) ? 1 : last > limit ? size : static_cast<int64_t>(last) + 1;
  }
};

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void ps_roi_align_forward_cuda(const RoiParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) {
    position_sensitive_forward<typename decltype(tag)::type, AlignBins>(params, stream);
  });
}

void ps_roi_align_backward_cuda(const RoiParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) {
    position_sensitive_backward<typename decltype(tag)::type, AlignBins>(params, stream);
  });
}

}  // namespace fastcv

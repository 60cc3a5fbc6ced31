// Position-sensitive RoIAlign on the CPU. See ps_roi_align.h for the meaning.
#include "families/roi/position_sensitive_cpu.h"
#include "families/roi/roi_taps_cpu.h"
#include "ops/ps_roi_align/ps_roi_align.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

// The weights of both axes; a RoI without samples has none. A map without pixels has none either.
template <class A>
class AlignBins {
 public:
  AlignBins(const A* box, const RoiParams& p) : AlignBins(roi_geometry(box, p.spatial_scale, p.sampling), p) {}

  template <class T>
  A sum(const T* plane, int64_t stride_y, int64_t stride_x, int64_t bin) const {
    const int64_t bin_y = bin / x_.bins, bin_x = bin % x_.bins;
    A sum = 0;
    for (int64_t i = y_.first[bin_y]; i < y_.first[bin_y + 1]; ++i) {
      const T* row = plane + y_.pixel[i] * stride_y;
      A row_sum = 0;
      for (int64_t j = x_.first[bin_x]; j < x_.first[bin_x + 1]; ++j) {
        row_sum = multiply_add(x_.weight[j], static_cast<A>(to_float(row[x_.pixel[j] * stride_x])), row_sum);
      }
      sum = multiply_add(y_.weight[i], row_sum, sum);
    }
    return sum;
  }

  void add(A* plane, int64_t width, int64_t bin, A gradient) const {
    const int64_t bin_y = bin / x_.bins, bin_x = bin % x_.bins;
    for (int64_t i = y_.first[bin_y]; i < y_.first[bin_y + 1]; ++i) {
      A* row = plane + y_.pixel[i] * width;
      const A row_gradient = gradient * y_.weight[i];
      for (int64_t j = x_.first[bin_x]; j < x_.first[bin_x + 1]; ++j) {
        row[x_.pixel[j]] = multiply_add(x_.weight[j], row_gradient, row[x_.pixel[j]]);
      }
    }
  }

 private:
  AlignBins(const RoiGeometry<A>& roi, const RoiParams& p)
      : y_(usable(roi.y, roi, p), p.sampling.pooled_height, p.height),
        x_(usable(roi.x, roi, p), p.sampling.pooled_width, p.width) {}

  static RoiAxis<A> usable(RoiAxis<A> axis, const RoiGeometry<A>& roi, const RoiParams& p) {
    if (roi.empty || p.height == 0 || p.width == 0) axis.grid = 0;
    return axis;
  }

  AxisTaps<A> y_, x_;
};

}  // namespace

void ps_roi_align_forward_cpu(const RoiParams& params) {
  dispatch_floating(params.dtype,
                    [&](auto tag) { position_sensitive_forward<typename decltype(tag)::type, AlignBins>(params); });
}

void ps_roi_align_backward_cpu(const RoiParams& params) {
  dispatch_floating(params.dtype,
                    [&](auto tag) { position_sensitive_backward<typename decltype(tag)::type, AlignBins>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

// The weights of a rotated RoI on the CPU: worked out once per RoI, then run over all channels. CPU translation units
// only.
#pragma once

#include "core/memory.h"
#include "core/simd.h"
#include "ops/roi_align_rotated/roi_align_rotated.h"

namespace fastcv::FASTCV_VARIANT {

// Rows and columns of pixels; the high ends are in it.
struct TapWindow {
  int64_t y_low, y_high, x_low, x_high;
  int64_t pixels() const { return y_low > y_high || x_low > x_high ? 0 : (y_high - y_low + 1) * (x_high - x_low + 1); }
};

// The pixels that samples at positions from `low` to `high` touch along one axis.
template <class A>
void touched_pixels(A low, A high, int64_t size, int64_t* first, int64_t* last) {
  *first = 0;
  *last = -1;
  if (!(high >= A(-1) && low <= static_cast<A>(size))) return;
  const A top = static_cast<A>(size - 1);
  *first = low > A(0) ? static_cast<int64_t>(least(low, top)) : 0;
  *last = least((high > A(0) ? static_cast<int64_t>(least(high, top)) : 0) + 1, size - 1);
}

// All pixels that samples between two places of the frame touch. Rounding keeps order, so no sample of a bin lies beyond
// those in its corners.
template <class A>
TapWindow window_between(const RotatedRoi<A>& roi, A v0, A v1, A u0, A u1, const RoiParams& p) {
  A low_y = image_y(roi, v0, u0), high_y = low_y, low_x = image_x(roi, v0, u0), high_x = low_x;
  for (int corner = 1; corner < 4; ++corner) {
    const A v = (corner & 1) != 0 ? v1 : v0, u = (corner & 2) != 0 ? u1 : u0;
    const A y = image_y(roi, v, u), x = image_x(roi, v, u);
    low_y = least(low_y, y), high_y = greatest(high_y, y);
    low_x = least(low_x, x), high_x = greatest(high_x, x);
  }
  TapWindow window;
  touched_pixels(low_y, high_y, p.height, &window.y_low, &window.y_high);
  touched_pixels(low_x, high_x, p.width, &window.x_low, &window.x_high);
  return window;
}

// All taps of a RoI, bin after bin, as offsets into a map with the given strides. Where a bin has more taps than pixels,
// those of one pixel are merged, so there are at most as many as the map has pixels.
template <class A>
class RotatedTaps {
 public:
  int64_t* first;  // bins + 1 positions into offset and weight
  int64_t* offset;
  A* weight;
  int64_t bins;

  RotatedTaps(const RotatedRoi<A>& roi, const RoiParams& p, int64_t stride_y, int64_t stride_x)
      : bins(p.sampling.bins()),
        roi_(roi),
        p_(p),
        stride_y_(stride_y),
        stride_x_(stride_x),
        samples_(roi.empty ? 0 : roi.y.grid * roi.x.grid),
        most_(least(4 * samples_, p.height * p.width)),
        memory_(bytes_of<int64_t>(bins + 1) + bytes_of<int64_t>(bins, most_) + bytes_of<A>(bins, most_) +
                bytes_of<A>(most_)) {
    first = memory_.as<int64_t>();
    offset = first + bins + 1;
    weight = reinterpret_cast<A*>(offset + bins * most_);
    for (int64_t bin = 0; bin < bins; ++bin) {
      first[bin] = count_;
      if (samples_ > 0) add_bin(bin / p.sampling.pooled_width, bin % p.sampling.pooled_width);
    }
    first[bins] = count_;
  }

 private:
  RotatedRoi<A> roi_;
  const RoiParams& p_;
  int64_t stride_y_, stride_x_, samples_, most_, count_ = 0;
  Scratch memory_;

  // Calls body(y tap, x tap) for every sample of a bin that counts.
  template <class Body>
  void for_each_sample(int64_t bin_y, int64_t bin_x, const Body& body) const {
    for (int64_t i = 0; i < roi_.y.grid; ++i) {
      const A v = roi_position(roi_.y, bin_y, i);
      const SampleRange range = samples_on_map(roi_, bin_x, v, p_);
      for (int64_t j = range.low; j < range.high; ++j) {
        const A u = roi_position(roi_.x, bin_x, j);
        const BilinearTap<A> y = bilinear_tap(image_y(roi_, v, u), p_.height);
        const BilinearTap<A> x = bilinear_tap(image_x(roi_, v, u), p_.width);
        if (y.inside && x.inside) body(y, x);
      }
    }
  }

  void add_bin(int64_t bin_y, int64_t bin_x) {
    const A v0 = roi_position(roi_.y, bin_y, 0), v1 = roi_position(roi_.y, bin_y, roi_.y.grid - 1);
    const A u0 = roi_position(roi_.x, bin_x, 0), u1 = roi_position(roi_.x, bin_x, roi_.x.grid - 1);
    const TapWindow window = window_between(roi_, v0, v1, u0, u1, p_);
    const int64_t pixels = window.pixels();
    if (pixels == 0) return;
    const A scale = A(1) / static_cast<A>(samples_);
    if (pixels <= 4 * samples_) return add_merged(bin_y, bin_x, window, scale);
    for_each_sample(bin_y, bin_x, [&](const BilinearTap<A>& y, const BilinearTap<A>& x) {
      const A low = y.weight_low * scale, high = y.weight_high * scale;
      const int64_t row_low = y.low * stride_y_, row_high = y.high * stride_y_;
      const int64_t column_low = x.low * stride_x_, column_high = x.high * stride_x_;
      add(row_low + column_low, low * x.weight_low);
      add(row_low + column_high, low * x.weight_high);
      add(row_high + column_low, high * x.weight_low);
      add(row_high + column_high, high * x.weight_high);
    });
  }

  void add_merged(int64_t bin_y, int64_t bin_x, const TapWindow& window, A scale) {
    A* sums = weight + bins * most_;
    const int64_t columns = window.x_high - window.x_low + 1, pixels = window.pixels();
    __builtin_memset(sums, 0, pixels * sizeof(A));
    for_each_sample(bin_y, bin_x, [&](const BilinearTap<A>& y, const BilinearTap<A>& x) {
      A* row_low = sums + (y.low - window.y_low) * columns - window.x_low;
      A* row_high = sums + (y.high - window.y_low) * columns - window.x_low;
      row_low[x.low] += y.weight_low * x.weight_low;
      row_low[x.high] += y.weight_low * x.weight_high;
      row_high[x.low] += y.weight_high * x.weight_low;
      row_high[x.high] += y.weight_high * x.weight_high;
    });
    for (int64_t y = window.y_low; y <= window.y_high; ++y) {
      for (int64_t x = window.x_low; x <= window.x_high; ++x, ++sums) {
        if (*sums != A(0)) add(y * stride_y_ + x * stride_x_, *sums * scale);
      }
    }
  }

  void add(int64_t new_offset, A new_weight) {
    offset[count_] = new_offset;
    weight[count_++] = new_weight;
  }
};

}  // namespace fastcv::FASTCV_VARIANT

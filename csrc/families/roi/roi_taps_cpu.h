// The weights of a RoI on the CPU: worked out once per RoI, then run over all channels. CPU translation units only.
//
// A weight is a product of one factor per axis. AxisTaps holds the factors, with samples that fall on the same pixel
// merged: a bin of s x s samples touches about (s + 1)^2 pixels instead of 4 s^2. FlatTaps multiplies them out.
#pragma once

#include "core/memory.h"
#include "core/simd.h"
#include "families/roi/roi.h"

namespace fastcv::FASTCV_VARIANT {

// At most so many taps has an axis of a RoI on a map of `size` pixels.
template <class A>
inline int64_t most_taps(const RoiAxis<A>& axis, int64_t bins, int64_t size) {
  return bins * least(2 * axis.grid, size);
}

// The distinct pixels of one axis that each bin touches, ascending, and their weights.
template <class A>
class AxisTaps {
 public:
  int64_t* first;  // bins + 1 positions into pixel and weight
  int64_t* pixel;
  A* weight;
  int64_t bins;
  int64_t lowest, highest;  // the range of all pixels; lowest > highest when there are none

  AxisTaps(const RoiAxis<A>& axis, int64_t bins, int64_t size)
      : bins(bins),
        lowest(size),
        highest(-1),
        capacity_(most_taps(axis, bins, size)),
        memory_(bytes_of<int64_t>(bins + 1) + bytes_of<int64_t>(capacity_) + bytes_of<A>(capacity_)) {
    first = memory_.as<int64_t>();
    pixel = first + bins + 1;
    weight = reinterpret_cast<A*>(pixel + capacity_);
    const A scale = A(1) / static_cast<A>(axis.grid > 0 ? axis.grid : 1);
    int64_t count = 0;
    for (int64_t bin = 0; bin < bins; ++bin) {
      first[bin] = count;
      for (int64_t i = 0; i < axis.grid; ++i) {
        const BilinearTap<A> tap = roi_sample(axis, bin, ascending_sample(axis, i), size);
        if (!tap.inside) continue;
        count = add(first[bin], count, tap.low, tap.weight_low * scale);
        if (tap.high != tap.low) count = add(first[bin], count, tap.high, tap.weight_high * scale);
      }
      if (count == first[bin]) continue;
      if (pixel[first[bin]] < lowest) lowest = pixel[first[bin]];
      if (pixel[count - 1] > highest) highest = pixel[count - 1];
    }
    first[bins] = count;
  }

  int64_t count() const { return first[bins]; }

 private:
  int64_t capacity_;
  Scratch memory_;

  // Positions ascend, so a pixel that this bin has is one of its last two.
  int64_t add(int64_t begin, int64_t count, int64_t new_pixel, A new_weight) {
    for (int64_t back = count - 1; back >= begin && back >= count - 2; --back) {
      if (pixel[back] == new_pixel) {
        weight[back] += new_weight;
        return count;
      }
    }
    pixel[count] = new_pixel;
    weight[count] = new_weight;
    return count + 1;
  }
};

// All taps of a RoI, bin after bin, as offsets into a map with the given strides whose origin is pixel (y0, x0).
template <class A>
class FlatTaps {
 public:
  int64_t* first;  // bins + 1 positions into offset and weight
  int64_t* offset;
  A* weight;
  int64_t bins;

  FlatTaps(const AxisTaps<A>& y, const AxisTaps<A>& x, int64_t stride_y, int64_t stride_x, int64_t y0 = 0,
           int64_t x0 = 0)
      : bins(y.bins * x.bins),
        memory_(bytes_of<int64_t>(bins + 1) + bytes_of<int64_t>(y.count(), x.count()) +
                bytes_of<A>(y.count(), x.count())) {
    first = memory_.as<int64_t>();
    offset = first + bins + 1;
    weight = reinterpret_cast<A*>(offset + y.count() * x.count());
    int64_t n = 0;
    for (int64_t bin = 0; bin < bins; ++bin) {
      const int64_t bin_y = bin / x.bins, bin_x = bin % x.bins;
      first[bin] = n;
      for (int64_t i = y.first[bin_y]; i < y.first[bin_y + 1]; ++i) {
        for (int64_t j = x.first[bin_x]; j < x.first[bin_x + 1]; ++j) {
          offset[n] = (y.pixel[i] - y0) * stride_y + (x.pixel[j] - x0) * stride_x;
          weight[n++] = y.weight[i] * x.weight[j];
        }
      }
    }
    first[bins] = n;
  }

 private:
  Scratch memory_;
};

// Adds a bin's gradient, kVectors vectors of neighbouring channels, to every pixel it came from.
template <int kVectors, class Taps, class A>
inline void scatter_bin(A* map, const Taps& taps, int64_t bin, const Vector<A> (&gradient)[kVectors]) {
  for (int64_t t = taps.first[bin]; t < taps.first[bin + 1]; ++t) {
    const Vector<A> weight = broadcast(taps.weight[t]);
    A* pixel = map + taps.offset[t];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      store(pixel + v * kLanes<A>, multiply_add(weight, gradient[v], load(pixel + v * kLanes<A>)));
    }
  }
}

}  // namespace fastcv::FASTCV_VARIANT

// Bins of whole pixels, as the pooling ops before RoIAlign divide a region of interest (Girshick 2015, "Fast R-CNN",
// section 2.1): the box is rounded to pixels, and the borders of its bins outwards to pixels.
#pragma once

#include <cstdint>

#include "core/platform.h"
#include "core/rounding.h"

namespace fastcv::FASTCV_VARIANT {

// One axis of one RoI. Bin i covers the pixels from start + floor(i * size) up to start + ceil((i + 1) * size).
template <class T>
struct QuantisedAxis {
  int64_t start;
  T size;
  bool valid;  // both ends are finite
};

struct PixelRange {
  int64_t low, high;  // high is not in it
};

// `inclusive` is 1 when the pixel at the end belongs to the box, else 0. Sides are at least one pixel. Ends beyond
// 2^30 pixels count as 2^30.
template <class T>
FASTCV_HD QuantisedAxis<T> quantised_axis(T low, T high, T scale, int64_t bins, int64_t inclusive) {
  const T ends[2] = {round_of(low * scale), round_of(high * scale)};
  const T limit = static_cast<T>(1 << 30);
  int64_t pixels[2] = {0, 0};
  bool valid = true;
  for (int i = 0; i < 2; ++i) {
    valid = valid && ends[i] - ends[i] == T(0);  // neither NaN nor infinite
    if (valid) pixels[i] = static_cast<int64_t>(ends[i] < -limit ? -limit : ends[i] > limit ? limit : ends[i]);
  }
  int64_t length = pixels[1] - pixels[0] + inclusive;
  if (length < 1) length = 1;
  return {pixels[0], static_cast<T>(length) / static_cast<T>(bins), valid};
}

FASTCV_HD int64_t clamp_to(int64_t value, int64_t highest) {
  return value < 0 ? 0 : value > highest ? highest : value;
}

// The pixels of a bin, in [0, highest).
template <class T>
FASTCV_HD PixelRange pixels_of_bin(const QuantisedAxis<T>& axis, int64_t bin, int64_t highest) {
  const int64_t low = static_cast<int64_t>(floor_of(static_cast<T>(bin) * axis.size));
  const int64_t high = static_cast<int64_t>(ceil_of(static_cast<T>(bin + 1) * axis.size));
  return {clamp_to(low + axis.start, highest), clamp_to(high + axis.start, highest)};
}

}  // namespace fastcv::FASTCV_VARIANT

// Where a region of interest takes its bilinear samples: the geometry that RoIAlign and its relatives share.
#pragma once

#include "families/roi/bilinear.h"

namespace fastcv {

// How a RoI is divided. The P x Q bins of a RoI take grid_y x grid_x samples each: sampling_ratio along each axis or,
// when that is not positive, ceil(side of the RoI on the map / bins), at most kMaxRoiGrid.
struct RoiSampling {
  int64_t pooled_height, pooled_width;
  int64_t sampling_ratio;
  bool aligned;  // boxes refer to pixel centres: shifted by half a pixel, and of any size from zero up

  FASTCV_HD constexpr int64_t bins() const { return pooled_height * pooled_width; }
};

constexpr int64_t kMaxRoiGrid = 65536;

// Numbers per row of boxes: batch index, then x1, y1, x2, y2, or cx, cy, w, h, angle.
constexpr int kBoxColumns = 5, kRotatedColumns = 6;

namespace FASTCV_VARIANT {

// The samples of one axis of one RoI lie at start + bin * size + (i + 0.5) * size / grid, for i in [0, grid). Where the
// box is inverted `size` is negative: its bins are mirrored, as torchvision has it.
template <class T>
struct RoiAxis {
  T start;
  T size;
  int64_t grid;
};

template <class T>
struct RoiGeometry {
  RoiAxis<T> y, x;
  bool empty;  // contributes nothing: a coordinate is not finite, or the box is inverted and its grid adaptive
};

// Samples along one axis of a bin of this size, not negative.
template <class T>
FASTCV_HD int64_t roi_grid(T size, int64_t sampling_ratio, int64_t limit) {
  if (sampling_ratio > 0) return sampling_ratio;
  int64_t grid = static_cast<int64_t>(least(size, static_cast<T>(limit)));
  if (static_cast<T>(grid) < size && grid < limit) ++grid;  // ceil
  return grid;
}

template <class T>
FASTCV_HD RoiAxis<T> roi_axis(T low, T high, T scale, int64_t bins, const RoiSampling& sampling, bool* valid) {
  const T offset = sampling.aligned ? T(0.5) : T(0);
  const T start = low * scale - offset;
  const T end = high * scale - offset;
  T length = end - start;
  if (!sampling.aligned && length < T(1)) length = T(1);
  // NaN fails every comparison, and only finite numbers give zero when taken from themselves.
  const bool is_finite = length - length == T(0) && start - start == T(0) && end - end == T(0);
  *valid = is_finite && (length >= T(0) || sampling.sampling_ratio > 0);
  const T size = length / static_cast<T>(bins);
  return {start, size, roi_grid(*valid ? size : T(0), sampling.sampling_ratio, kMaxRoiGrid)};
}

// `box` is a row (batch index, x1, y1, x2, y2) of boxes.
template <class T>
FASTCV_HD RoiGeometry<T> roi_geometry(const T* box, double spatial_scale, const RoiSampling& sampling) {
  const T scale = static_cast<T>(spatial_scale);
  bool valid_y, valid_x;
  const RoiAxis<T> y = roi_axis(box[2], box[4], scale, sampling.pooled_height, sampling, &valid_y);
  const RoiAxis<T> x = roi_axis(box[1], box[3], scale, sampling.pooled_width, sampling, &valid_x);
  return {y, x, !(valid_y && valid_x)};
}

template <class T>
FASTCV_HD T roi_position(const RoiAxis<T>& axis, int64_t bin, int64_t i) {
  return axis.start + static_cast<T>(bin) * axis.size +
         (static_cast<T>(i) + T(0.5)) * axis.size / static_cast<T>(axis.grid);
}

template <class T>
FASTCV_HD BilinearTap<T> roi_sample(const RoiAxis<T>& axis, int64_t bin, int64_t i, int64_t size) {
  return bilinear_tap(roi_position(axis, bin, i), size);
}

// Which sample is the i-th when they ascend, as those who merge neighbouring samples need them.
template <class T>
FASTCV_HD int64_t ascending_sample(const RoiAxis<T>& axis, int64_t i) {
  return axis.size < T(0) ? axis.grid - 1 - i : i;
}

// What a pixel counts for in a bin, along one axis; 0 where there are no samples.
template <class T>
FASTCV_HD T roi_axis_weight(const RoiAxis<T>& axis, int64_t bin, int64_t pixel, int64_t size) {
  T sum = 0;
  for (int64_t i = 0; i < axis.grid; ++i) {
    const BilinearTap<T> tap = roi_sample(axis, bin, i, size);
    if (!tap.inside) continue;
    if (tap.low == pixel) sum += tap.weight_low;
    if (tap.high == pixel) sum += tap.weight_high;
  }
  return axis.grid > 0 ? sum / static_cast<T>(axis.grid) : T(0);
}

// False for every index outside [0, batch), NaN included.
template <class T>
FASTCV_HD bool roi_batch_is_valid(T index, int64_t batch) {
  return index >= T(0) && index < static_cast<T>(batch);
}

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

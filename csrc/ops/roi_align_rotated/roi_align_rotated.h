// RoIAlign of rotated boxes (Ma et al. 2018, "Arbitrary-Oriented Scene Text Detection via Rotation Proposals"; the
// meaning is that of detectron2's ROIAlignRotated): every bin of a box is the mean of bilinear samples of the feature
// map, taken on a regular grid inside the bin that is turned with the box.
//
//   features  (N, C, H, W)   any strides
//   boxes     (K, 6)         batch index, cx, cy, w, h in pixels of the image, and the angle in degrees, counter-clockwise
//                            as an image is seen; contiguous, float32 (float64 when the features are float64)
//   pooled    (K, C, P, Q)   contiguous or channels_last
//
// The centre is scaled by spatial_scale and moved by half a pixel, so that it refers to pixel centres; the sides are
// scaled. Each of the P x Q bins takes grid_y x grid_x samples: sampling_ratio of them along each axis or, when that is
// not positive, ceil(side / bins), at most kMaxRotatedGrid. The sample that lies v below and u right of the centre in
// the frame of the box is at
//
//   y = v cos - u sin + cy,   x = v sin + u cos + cx
//
// and counts as bilinear.h says. The op is linear in the features and `backward` is its transpose. A box with a number
// that is not finite, with a negative side (detectron2 refuses those) or with one beyond kLongestRotatedSide pixels gives
// zeros and has no gradient. A batch index outside [0, N) is a ValueError on the CPU; on CUDA that RoI gives zeros.
#pragma once

#include "core/cpu_variants.h"
#include "families/box/rotated_box.h"
#include "families/roi/roi_params.h"

namespace fastcv {

// Samples do not factor into axes: a bin has the square of this number.
constexpr int64_t kMaxRotatedGrid = 4096;

constexpr double kLongestRotatedSide = 1e30;  // so that no position overflows

namespace FASTCV_VARIANT {

template <class T>
struct RotatedRoi {
  RoiAxis<T> y, x;  // in the frame of the box, from its centre
  T center_y, center_x, sine, cosine;
  bool empty;  // contributes nothing
};

// All but the turn.
template <class T>
FASTCV_HD RotatedRoi<T> upright_roi(const T* box, const RoiParams& p) {
  const T scale = static_cast<T>(p.spatial_scale);
  RotatedRoi<T> roi;
  roi.center_x = box[1] * scale - T(0.5);
  roi.center_y = box[2] * scale - T(0.5);
  const T width = box[3] * scale, height = box[4] * scale, angle = box[5];
  // Only finite numbers give zero when taken from themselves.
  const bool finite = roi.center_x - roi.center_x == T(0) && roi.center_y - roi.center_y == T(0) &&
                      width - width == T(0) && height - height == T(0) && angle - angle == T(0);
  const T longest = static_cast<T>(kLongestRotatedSide);
  roi.empty = !finite || !(width >= T(0) && width <= longest && height >= T(0) && height <= longest) || p.height == 0 ||
              p.width == 0;
  const T size_y = roi.empty ? T(0) : height / static_cast<T>(p.sampling.pooled_height);
  const T size_x = roi.empty ? T(0) : width / static_cast<T>(p.sampling.pooled_width);
  roi.y = {-height / T(2), size_y, roi_grid(size_y, p.sampling.sampling_ratio, kMaxRotatedGrid)};
  roi.x = {-width / T(2), size_x, roi_grid(size_x, p.sampling.sampling_ratio, kMaxRotatedGrid)};
  roi.empty = roi.empty || roi.y.grid == 0 || roi.x.grid == 0;
  roi.sine = T(0);
  roi.cosine = T(1);
  return roi;
}

// Gives a RoI that is not empty the turn of its box.
template <class T>
FASTCV_HD void turn_roi(RotatedRoi<T>& roi, const T* box) {
  double sine, cosine;
  turn_of(static_cast<double>(box[5]), &sine, &cosine);
  roi.sine = static_cast<T>(sine);
  roi.cosine = static_cast<T>(cosine);
}

// `box` is a row of boxes.
template <class T>
FASTCV_HD RotatedRoi<T> rotated_roi(const T* box, const RoiParams& p) {
  RotatedRoi<T> roi = upright_roi(box, p);
  if (!roi.empty) turn_roi(roi, box);
  return roi;
}

template <class T>
FASTCV_HD T image_y(const RotatedRoi<T>& roi, T v, T u) {
  return v * roi.cosine - u * roi.sine + roi.center_y;
}
template <class T>
FASTCV_HD T image_x(const RotatedRoi<T>& roi, T v, T u) {
  return v * roi.sine + u * roi.cosine + roi.center_x;
}

// A range of samples of one axis; high is not in it.
struct SampleRange {
  int64_t low, high;
};

// The samples, numbered through all bins, whose place on the axis is in [low, high]; errs on the side of too many.
template <class T>
FASTCV_HD SampleRange samples_between(const RoiAxis<T>& axis, int64_t bins, T low, T high) {
  const int64_t count = bins * axis.grid;
  const T step = axis.size / static_cast<T>(axis.grid);
  if (!(step > T(0))) return {0, count};
  const T first = (low - axis.start) / step - T(2), last = (high - axis.start) / step + T(2);
  const T limit = static_cast<T>(count);
  // A NaN or a number beyond the limits takes the whole axis or none of it.
  const int64_t begin = first >= limit ? count : first > T(0) ? static_cast<int64_t>(first) : 0;
  const int64_t end = last >= limit ? count : last > T(0) ? static_cast<int64_t>(last) : last <= T(0) ? 0 : count;
  return {begin, end};
}

// Which samples i of a row of a bin, at v below the centre, may touch the map; all but few of the others are left out.
template <class T>
FASTCV_HD SampleRange samples_on_map(const RotatedRoi<T>& roi, int64_t bin_x, T v, const RoiParams& p) {
  constexpr int64_t kFew = 16;
  if (roi.x.grid <= kFew) return {0, roi.x.grid};
  T low = roi.x.start + static_cast<T>(bin_x) * roi.x.size, high = low + roi.x.size;
  const auto clip = [&](T base, T slope, int64_t size) {
    if (!(slope > T(1e-3) || slope < T(-1e-3))) return;
    const T margin = T(2);
    const T a = (-margin - base) / slope, b = (static_cast<T>(size) + margin - base) / slope;
    low = greatest(low, least(a, b));
    high = least(high, greatest(a, b));
  };
  clip(v * roi.cosine + roi.center_y, -roi.sine, p.height);
  clip(v * roi.sine + roi.center_x, roi.cosine, p.width);
  const SampleRange all = samples_between(roi.x, p.sampling.pooled_width, low, high);
  const int64_t begin = all.low - bin_x * roi.x.grid, end = all.high - bin_x * roi.x.grid;
  return {greatest(begin, int64_t{0}), least(end, roi.x.grid)};
}

}  // namespace FASTCV_VARIANT

FASTCV_DECLARE_KERNEL(roi_align_rotated_forward, RoiParams);
FASTCV_DECLARE_KERNEL(roi_align_rotated_backward, RoiParams);

}  // namespace fastcv

// RoIAlign (He et al. 2017, "Mask R-CNN", section 3): every bin of a box is the mean of bilinear samples of the feature
// map, taken on a regular grid inside the bin.
//
//   features  (N, C, H, W)   any strides
//   boxes     (K, 5)         batch index, x1, y1, x2, y2 in pixels of the image; contiguous, float32 (float64 when the
//                            features are float64)
//   pooled    (K, C, P, Q)   any strides
//
// A box is scaled by spatial_scale onto the feature map and, if `aligned`, moved by half a pixel so that it refers to
// pixel centres. Without `aligned` its sides are at least one pixel. Each of the P x Q bins takes grid_y x grid_x
// samples: sampling_ratio of them along each axis, or, when that is not positive, ceil(side of the box / bins).
//
// The weight of a pixel in a bin is a product of one factor per axis, and neither depends on the channel:
//
//   pooled[k, c, p, q] = sum_y sum_x  weight_y[k, p, y] * weight_x[k, q, x] * features[b, c, y, x]
//
// so the op is linear in the features and `backward` is its transpose. Edge cases, on all devices: a box with a
// coordinate that is not finite gives zeros and has no gradient. One with x2 < x1 or y2 < y1 is, where `aligned`, what
// torchvision makes of it: mirrored samples, or zeros if sampling_ratio is not positive. A batch index outside [0, N) is
// a ValueError on the CPU; on CUDA, where looking would cost a synchronisation, that RoI gives zeros. Bins so large that they would take more than kMaxRoiGrid samples along an axis take kMaxRoiGrid.
#pragma once

#include <math.h>

#include "core/cpu_variants.h"
#include "core/types.h"
#include "families/roi/roi.h"

namespace fastcv {

constexpr int kMaxRoiLevels = 8;

struct RoiLevel {
  void* features;
  int64_t height, width;
  int64_t strides[4];    // n, c, y, x, in elements
  double spatial_scale;  // pixels of this map per pixel of the image
};

// Forward reads features and writes pooled; backward reads pooled (its gradient) and writes all of the features.
struct RoiPyramid {
  RoiLevel levels[kMaxRoiLevels];
  int level_count;
  void* pooled;
  const void* boxes;
  DType dtype;  // of features and pooled
  int64_t batch, channels, rois;
  int64_t pooled_strides[4];  // k, c, p, q
  RoiSampling sampling;
  // Used when there is more than one level: see roi_level.
  double canonical_scale;
  int64_t canonical_level, min_level, max_level;
  void* workspace;  // CUDA, backward: roi_workspace_bytes bytes
};

// The tiles that the CUDA kernels cut the maps of all images into, and a bit for each RoI and tile.
constexpr int64_t kRoiTile = 8;
inline int64_t roi_tiles(const RoiPyramid& p) {
  int64_t tiles = 0;
  for (int l = 0; l < p.level_count; ++l) {
    const RoiLevel& level = p.levels[l];
    tiles += ((level.width + kRoiTile - 1) / kRoiTile) * ((level.height + kRoiTile - 1) / kRoiTile);
  }
  return p.batch * tiles;
}
inline int64_t roi_workspace_bytes(const RoiPyramid& p) {
  return roi_tiles(p) * ((p.rois + 31) / 32) * 4;
}

namespace FASTCV_VARIANT {

// Lin et al. 2017, "Feature Pyramid Networks", equation 1, as torchvision's LevelMapper computes it, in T:
//
//   floor(canonical_level + log2(sqrt(area) / canonical_scale) + 1e-6), clamped to [min_level, max_level],
//
// counted from min_level. A box without a real area (a NaN, or one side inverted) has no level, and neither has one
// whose level is missing in the pyramid: -1. The logarithm is taken in double and rounded, so that all devices agree.
template <class T>
FASTCV_HD int roi_level(const T* box, const RoiPyramid& p) {
  if (p.level_count == 1) return 0;
  const T area = (box[3] - box[1]) * (box[4] - box[2]);
  if (!(area >= T(0))) return -1;
  // The C functions by name: overloads of the C++ library would be inline functions of their own.
  const T root = sizeof(T) == sizeof(float) ? static_cast<T>(sqrtf(static_cast<float>(area)))
                                            : static_cast<T>(sqrt(static_cast<double>(area)));
  const double exact = log2(static_cast<double>(root / static_cast<T>(p.canonical_scale)));
  const T sum = static_cast<T>(p.canonical_level) + static_cast<T>(exact) + static_cast<T>(1e-6);
  const T level = static_cast<T>(floor(static_cast<double>(sum)));  // exact in double
  int64_t index = p.max_level;
  if (level < static_cast<T>(p.max_level)) {
    index = level > static_cast<T>(p.min_level) ? static_cast<int64_t>(level) : p.min_level;
  }
  index -= p.min_level;
  return index < p.level_count ? static_cast<int>(index) : -1;
}

}  // namespace FASTCV_VARIANT

FASTCV_DECLARE_KERNEL(roi_align_forward, RoiPyramid);
FASTCV_DECLARE_KERNEL(roi_align_backward, RoiPyramid);

}  // namespace fastcv

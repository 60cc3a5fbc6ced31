// Greedy non-maximum suppression: boxes are taken by descending score, and one is dropped when its IoU with a box taken
// before, of the same class, exceeds the threshold.
//
//   boxes    (B, N, 4)   x1, y1, x2, y2, any strides
//   scores   (B, N)      of any floating dtype, any strides; NaN comes last, ties go to the lower index
//   classes  (B, N)      int32 or int64, any values, any strides; absent when there is but one class
//   kept     (B, M)      int64: indices into N of the boxes kept, by descending score, then -1; contiguous
//   count    (B,)        int64: how many of them; contiguous. The first M are kept where there are more.
//
// Exactly as torchvision decides: float32 for float16, bfloat16 and float32, float64 for float64, each operation
// rounded by itself, and the quotient compared with the threshold in double precision. That is the same as comparing
// with the threshold rounded down to the dtype of the quotient, which is what kernels do.
//
// Boxes that can neither suppress nor be suppressed are called inert: sides that are not positive (they intersect
// nothing), areas that underflow to zero or overflow (their IoU is 0 or NaN), and whatever is NaN.
//
// Rotated boxes are rows of five numbers, see families/box/rotated_box.h, whose IoU decides in the same way.
//
// Memory: O(N), no mask of pairs.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"
#include "families/box/box.h"
#include "families/box/rotated_box.h"
#include "families/box/threshold.h"

namespace fastcv {

struct NmsParams {
  const void* boxes;
  const void* scores;
  const void* classes;  // or null
  DType dtype;          // of boxes
  DType score_dtype, class_dtype;
  int64_t images, boxes_per_image;
  int64_t box_strides[3];  // image, box, coordinate; in elements
  int64_t score_strides[2], class_strides[2];
  double threshold;
  bool rotated;  // boxes are (B, N, 5)
  int64_t* kept;
  int64_t* count;
  int64_t capacity;  // M
  bool fill;         // whether to write -1 behind the last

  // The CUDA kernels do not sort. `order` (B, N) lists the boxes by descending score. With classes, `places` (B, N)
  // lists the places in `order` by class, stably, and `sorted_classes` (B, N) int64 is the class of each of those.
  const int64_t* order;
  const int64_t* places;
  const int64_t* sorted_classes;
  void* workspace;  // nms_workspace_bytes bytes, 16-aligned
};

// CUDA: some numbers per box in the dtype of decisions, the start of its class, whether it is struck and dropped; and
// for the tiles of each image, for each box a bit per box of its tile.
constexpr int64_t kUprightNumbers = 5;
constexpr int64_t kNmsTile = 512;
FASTCV_HD constexpr int64_t nms_mask_words(int64_t boxes_per_image) {
  return FASTCV_VARIANT::ceil_div(boxes_per_image, kNmsTile) * kNmsTile * (kNmsTile / 32);
}
// Images of more upright boxes than this look for neighbours in buckets: two numbers for each, one for each box, two more.
constexpr int64_t kNmsSpaceBoxes = 6144;
constexpr double kNmsSpaceThreshold = 1.0 / 16;  // and if overlaps of less do not count
FASTCV_HD constexpr bool nms_has_space(int64_t boxes_per_image, double threshold, bool rotated) {
  return !rotated && boxes_per_image > kNmsSpaceBoxes && threshold >= kNmsSpaceThreshold;
}
FASTCV_HD constexpr int64_t nms_space_buckets(int64_t boxes_per_image) {
  int64_t buckets = 1;
  while (buckets < boxes_per_image) buckets *= 2;
  return buckets;
}
constexpr int64_t nms_workspace_bytes(int64_t images, int64_t boxes_per_image, DType dtype, bool rotated,
                                      double threshold) {
  const int64_t numbers = rotated ? FASTCV_VARIANT::kRotatedNumbers : kUprightNumbers;
  const int64_t of_boxes = images * boxes_per_image * (numbers * (dtype == DType::kFloat64 ? 8 : 4) + 3 * 4);
  int64_t words = nms_mask_words(boxes_per_image);
  if (nms_has_space(boxes_per_image, threshold, rotated)) {
    words += 2 * (nms_space_buckets(boxes_per_image) + 1) + boxes_per_image + 2;
  }
  return FASTCV_VARIANT::ceil_div<int64_t>(of_boxes, 16) * 16 + images * words * 4;
}

FASTCV_DECLARE_KERNEL(nms, NmsParams);

namespace FASTCV_VARIANT {

// Whether the box can take part at all; area is box_area(box).
template <class T>
FASTCV_HD bool is_active(const Box<T>& box, T area) {
  return box.x2 - box.x1 > T(0) && box.y2 - box.y1 > T(0) && area > T(0) && area - area == T(0);
}

template <class T>
FASTCV_HD Box<Accumulate<T>> read_box(const T* row, int64_t stride) {
  return {to_float(row[0]), to_float(row[stride]), to_float(row[2 * stride]), to_float(row[3 * stride])};
}

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

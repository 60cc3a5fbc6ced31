// Matching of candidate boxes (anchors, proposals) to ground truth by overlap, as two-stage detectors assign their
// training targets (Ren et al. 2015, "Faster R-CNN", section 3.1.2).
//
//   gt          (N, 4)   x1, y1, x2, y2; contiguous
//   candidates  (M, 4)   the same dtype; contiguous
//   matches     (M,)     int64
//
// With iou(j, i) the overlap of gt j and candidate i, and best(i) = max_j iou(j, i):
//
//   matches[i] = argmax_j iou(j, i)   where best(i) >= high; the lowest j of equals
//              = kMatchBetween        where low <= best(i) < high
//              = kMatchBelow          where best(i) < low
//
// and, when low quality is allowed, matches[i] = argmax_j iou(j, i) as well where for any j iou(j, i) = max_i' iou(j,
// i'): each gt keeps the candidates that overlap it most. A gt that nothing overlaps so keeps every candidate with
// overlap zero, as in torchvision.
//
// These are the decisions of torchvision's Matcher, bit for bit, NaN included: NaN (a coordinate that is not a number,
// or two boxes without area) counts as the greatest overlap, stands below no threshold, and equals nothing. float16 and
// bfloat16 are compared in float32. Without ground truth every candidate is kMatchBelow.
//
// The N x M overlaps are never stored.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"
#include "families/box/box.h"

namespace fastcv {

constexpr int64_t kMatchBelow = -1;
constexpr int64_t kMatchBetween = -2;

struct MatchBoxesParams {
  const void* gt;
  const void* candidates;
  int64_t* matches;
  void* gt_best;  // CUDA, when low quality is allowed: match_boxes_workspace_bytes(N) bytes, 8-aligned
  DType dtype;    // of the boxes
  int64_t gts, count;
  double high_threshold, low_threshold;
  bool allow_low_quality;
};

// The greatest overlap with each gt, as an integer of at most 8 bytes.
constexpr int64_t match_boxes_workspace_bytes(int64_t gts) {
  return gts * 8;
}

FASTCV_DECLARE_KERNEL(match_boxes, MatchBoxesParams);

namespace FASTCV_VARIANT {

// Between the passes a match keeps its argmax in the low 32 bits and what the thresholds say of it in the high ones.
FASTCV_HD int64_t encode_match(int64_t argmax, int64_t verdict) {
  return argmax | (-verdict) << 32;
}
FASTCV_HD int64_t argmax_of(int64_t encoded) {
  return encoded & 0xffffffff;
}
FASTCV_HD int64_t decode_match(int64_t encoded) {
  const int64_t verdict = encoded >> 32;
  return verdict == 0 ? encoded : -verdict;
}

// kMatchBelow, kMatchBetween, or 0 for a match. Comparisons are written so that NaN is a match.
template <class T>
FASTCV_HD int64_t match_verdict(T best, T high, T low) {
  return best < low ? kMatchBelow : best < high ? kMatchBetween : 0;
}

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

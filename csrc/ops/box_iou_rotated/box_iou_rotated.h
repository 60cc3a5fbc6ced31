// Intersection over union of every rotated box of one set with every one of another (see families/box/rotated_box.h for
// what the five numbers are and how a pair is computed).
//
//   boxes1   (N, 5)   cx, cy, w, h, angle; contiguous, of any floating dtype
//   boxes2   (M, 5)   of the same dtype
//   overlap  (N, M)   float32, contiguous
//
// Computed in float64 for float64 boxes, else in float32. Zero for boxes with a number that is not finite or without
// area. The values are the same bits on all devices.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"
#include "families/box/rotated_box.h"

namespace fastcv {

struct BoxIouRotatedParams {
  const void* boxes1;
  const void* boxes2;
  float* overlap;
  void* workspace;  // CUDA: box_iou_rotated_workspace_bytes, 16-aligned
  DType dtype;      // of the boxes
  int64_t rows, columns;
};

// CUDA: every box prepared, in the dtype that is computed in.
constexpr int64_t box_iou_rotated_workspace_bytes(int64_t rows, int64_t columns, DType dtype) {
  return (rows + columns) * FASTCV_VARIANT::kRotatedNumbers * (dtype == DType::kFloat64 ? 8 : 4);
}

FASTCV_DECLARE_KERNEL(box_iou_rotated, BoxIouRotatedParams);

}  // namespace fastcv

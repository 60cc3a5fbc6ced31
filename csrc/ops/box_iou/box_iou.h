// Overlaps of every box of one set with every box of another: IoU, generalized, distance and complete IoU (see
// families/box/box_overlap.h for the four formulas).
//
//   boxes1   (B, N, 4)   x1, y1, x2, y2; contiguous, float32 or float64
//   boxes2   (B, M, 4)
//   overlap  (B, N, M)   contiguous, of the dtype of the boxes, or float32 for float64 boxes (integers, promoted)
//
// Backward takes the gradient of `overlap` (any strides) and gives those of boxes1 and boxes2, either of which may be
// left out. Sums over a row or a column are taken in fixed pieces, then the pieces in order, so that the result depends
// neither on threads nor on luck:
//
//   workspace: (B, ceil(M / kColumnChunk), N, 4) pieces for boxes1, then (B, ceil(N / kRowChunk), M, 4) for boxes2
//
// Two boxes without area have an IoU of 0 / 0 = NaN, as torchvision has it.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"
#include "families/box/box_overlap.h"

namespace fastcv {

constexpr int64_t kRowChunk = 128, kColumnChunk = 512;

struct BoxIouParams {
  const void* boxes1;
  const void* boxes2;
  void* overlap;  // written by forward, its gradient read by backward
  void* grad_boxes1;
  void* grad_boxes2;  // null where not wanted
  void* workspace;
  DType dtype;  // of the boxes
  bool narrow;  // float32 results of float64 boxes
  OverlapKind kind;
  int64_t batch, rows, columns;  // B, N, M
  int64_t grad_strides[3];       // of the gradient that backward reads, in elements
  double epsilon;
};

constexpr int64_t box_iou_workspace_bytes(const BoxIouParams& p) {
  const int64_t row_chunks = (p.rows + kRowChunk - 1) / kRowChunk;
  const int64_t column_chunks = (p.columns + kColumnChunk - 1) / kColumnChunk;
  const int64_t boxes = p.batch * (column_chunks * p.rows + row_chunks * p.columns);
  return boxes * 4 * (p.dtype == DType::kFloat64 ? 8 : 4);
}

FASTCV_DECLARE_KERNEL(box_iou_forward, BoxIouParams);
FASTCV_DECLARE_KERNEL(box_iou_backward, BoxIouParams);

}  // namespace fastcv

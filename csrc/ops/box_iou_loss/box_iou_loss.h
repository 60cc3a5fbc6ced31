// One minus the overlap of each box with its partner, as a loss: generalized, distance and complete IoU (see
// families/box/box_overlap.h for the formulas; Rezatofighi et al. 2019, Zheng et al. 2020).
//
//   boxes1, boxes2   (N, 4)   x1, y1, x2, y2; contiguous, float32 or float64
//   loss             (N,)     contiguous
//
// epsilons.areas is added to the areas that divide, .diagonal to the squared diagonal, .alpha to the denominator of the
// aspect penalty's weight. Backward takes the gradient of the loss (any stride) and gives those of boxes1 and boxes2,
// either of which may be left out.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"
#include "families/box/box_overlap.h"

namespace fastcv {

struct BoxIouLossParams {
  const void* boxes1;
  const void* boxes2;
  void* loss;  // written by forward, its gradient read by backward
  void* grad_boxes1;
  void* grad_boxes2;  // null where not wanted
  DType dtype;
  OverlapKind kind;
  int64_t count;        // N
  int64_t grad_stride;  // of the gradient that backward reads, in elements
  double epsilon_areas, epsilon_diagonal, epsilon_alpha;
};

FASTCV_DECLARE_KERNEL(box_iou_loss_forward, BoxIouLossParams);
FASTCV_DECLARE_KERNEL(box_iou_loss_backward, BoxIouLossParams);

}  // namespace fastcv

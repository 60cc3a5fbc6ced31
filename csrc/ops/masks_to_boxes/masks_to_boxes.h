// The smallest box around the pixels of each mask.
//
//   masks   (N, H, W)   bool or uint8, contiguous; a pixel is set when it is not zero
//   boxes   (N, 4)      float32: first and last column and row that hold a set pixel, as x1, y1, x2, y2
//
// A mask without set pixels gives 0, 0, 0, 0.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"

namespace fastcv {

struct MasksToBoxesParams {
  const uint8_t* masks;
  float* boxes;
  int64_t count, height, width;  // height and width fit in 31 bits
};

FASTCV_DECLARE_KERNEL(masks_to_boxes, MasksToBoxesParams);

}  // namespace fastcv

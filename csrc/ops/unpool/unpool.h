// The two upsamplings without weights or memory: every pixel becomes a rectangle of scale_y x scale_x pixels.
//
//   small   (N, C, H, W)                          contiguous or channels_last, as ImageShape says
//   large   (N, C, H * scale_y, W * scale_x)      in the same layout
//
//   nearest        every pixel of the rectangle gets the value:  [[1, 2],    [[1, 1, 2, 2], [1, 1, 2, 2],
//                                                                 [3, 4]] ->  [3, 3, 4, 4], [3, 3, 4, 4]]
//   bed of nails   its upper left pixel does, the others are 0:  [[1, 0, 2, 0], [0, 0, 0, 0],
//                                                                 [3, 0, 4, 0], [0, 0, 0, 0]]
//
// Both are linear; backward is the transpose: the sum over the rectangle (columns first, each from top to bottom; in
// float32 for half types), or its upper left pixel.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"
#include "families/image/image.h"

namespace fastcv {

// Forward reads small and writes large, backward the other way round.
struct UnpoolParams {
  void* small;
  void* large;
  DType dtype;
  ImageShape shape;  // of small
  int64_t scale_y, scale_x;
  bool nails;  // bed of nails, else nearest
};

FASTCV_DECLARE_KERNEL(unpool_forward, UnpoolParams);
FASTCV_DECLARE_KERNEL(unpool_backward, UnpoolParams);

}  // namespace fastcv

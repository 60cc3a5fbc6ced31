// Max pooling that remembers where the largest values were, and unpooling to those places (SegNet: Badrinarayanan,
// Kendall, Cipolla 2017, section III; Zeiler, Fergus 2014, section 2.1).
//
//   large     (N, C, H, W)   the map that is pooled, or that is unpooled to
//   small     (N, C, P, Q)   largest values of the windows, or what is unpooled
//   indices   (N, C, P, Q)   int64: y * W + x of the value in its plane of `large`
//
// All three are contiguous, or all channels_last. Window (p, q) has kernel[0] x kernel[1] places, `dilation` apart,
// from (p * stride - padding) on; those outside the map do not count. The meaning is torch's max_pool2d: in the order
// of the rows a value takes the lead when it is greater than the one that has it, or NaN: so the first of equal values
// wins, NaN propagates, and the last NaN gives the index. A window of -inf alone gives its first place.
//
//   max_pool2d_forward    small, indices from large; indices may be null
//   max_pool2d_backward   large from small (its gradient) and indices: sums over the windows that chose a place, in the
//                         order of the windows; in float32 for half types
//   max_unpool2d          large from small and indices: zeros, and the values at their places. Where two have the same
//                         place, the last one stays. An index outside [0, H * W) is a ValueError on the CPU; on CUDA,
//                         where looking would cost a synchronisation, its value is dropped.
//   max_pool2d_gather     small from large and indices: what lies at the places, 0 for an index outside. The transpose
//                         of the backward, and the gradient of max_unpool2d.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"
#include "families/image/image.h"

namespace fastcv {

struct MaxPool2dParams {
  void* large;
  void* small;
  int64_t* indices;
  int32_t* winners;  // max_unpool2d on CUDA: as many as `large` has elements
  DType dtype;
  ImageShape shape;  // of large
  int64_t pooled_height, pooled_width;
  int kernel[2], stride[2], padding[2], dilation[2];  // y, x
};

FASTCV_DECLARE_KERNEL(max_pool2d_forward, MaxPool2dParams);
FASTCV_DECLARE_KERNEL(max_pool2d_backward, MaxPool2dParams);
FASTCV_DECLARE_KERNEL(max_pool2d_gather, MaxPool2dParams);
FASTCV_DECLARE_KERNEL(max_unpool2d, MaxPool2dParams);

namespace FASTCV_VARIANT {

// One axis of a window: places first, first + dilation, ... before end, all inside the map.
struct WindowAxis {
  int first, end;
};

FASTCV_HD WindowAxis window_axis(const MaxPool2dParams& p, int axis, int64_t position, int64_t size) {
  const int64_t start = position * p.stride[axis] - p.padding[axis];
  const int64_t end = start + static_cast<int64_t>(p.kernel[axis] - 1) * p.dilation[axis] + 1;
  int64_t first = start;
  if (start < 0) {  // the bindings limit all sizes to 2^30
    const unsigned dilation = static_cast<unsigned>(p.dilation[axis]);
    first = start + static_cast<int64_t>(ceil_div(static_cast<unsigned>(-start), dilation)) * dilation;
  }
  return {static_cast<int>(first), static_cast<int>(least(end, size))};
}

// The windows that may hold a pixel: those from first up to last.
struct WindowRange {
  int first, last;
};

FASTCV_HD WindowRange windows_of_pixel(const MaxPool2dParams& p, int axis, int64_t pixel, int64_t windows) {
  const unsigned stride = static_cast<unsigned>(p.stride[axis]);
  const int64_t padded = pixel + p.padding[axis];
  const int64_t before = padded - static_cast<int64_t>(p.kernel[axis] - 1) * p.dilation[axis];
  const int first = before <= 0 ? 0 : static_cast<int>(ceil_div(static_cast<unsigned>(before), stride));
  const int64_t last = static_cast<unsigned>(padded) / stride;
  return {first, static_cast<int>(last < windows ? last : windows - 1)};
}

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

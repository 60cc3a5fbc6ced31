// Bilinear interpolation of a map to another size, as torch.nn.functional.interpolate(mode="bilinear") does it.
//
//   input    (N, C, H, W)     contiguous or channels_last, as ImageShape says
//   output   (N, C, P, Q)     in the same layout
//
// Along each axis output position o lies at  (o + 1/2) scale - 1/2  of the input, not below 0, or with `align_corners`
// at  o scale; `scale` is the input's step per output pixel. Between pixel i and the next (the last one is its own
// neighbour) the weights are 1 - f and f; the value is the product of both axes. The op is linear and backward is its
// transpose. Positions and weights are float32 (float64 for float64), as are sums.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"
#include "families/image/image.h"

namespace fastcv {

struct UpsampleParams {
  void* input;
  void* output;
  DType dtype;
  ImageShape shape;  // of input
  int64_t output_height, output_width;
  double scale[2];  // y, x
  bool align_corners;
};

FASTCV_DECLARE_KERNEL(upsample_bilinear2d_forward, UpsampleParams);   // reads input, writes output
FASTCV_DECLARE_KERNEL(upsample_bilinear2d_backward, UpsampleParams);  // reads output (its gradient), writes input's

namespace FASTCV_VARIANT {

template <class A>
struct UpsampleTap {
  int low, high;
  A weight_low, weight_high;
};

template <class A>
FASTCV_HD A upsample_position(A scale, bool align_corners, int64_t output) {
  if (align_corners) return scale * static_cast<A>(output);
  const A position = scale * (static_cast<A>(output) + A(0.5)) - A(0.5);
  return greatest(position, A(0));
}

template <class A>
FASTCV_HD UpsampleTap<A> upsample_tap(A scale, bool align_corners, int64_t output, int64_t size) {
  const A position = upsample_position(scale, align_corners, output), last = static_cast<A>(size - 1);
  const int low = static_cast<int>(least(position, last));
  A fraction = position - static_cast<A>(low);
  if (fraction > A(1)) fraction = A(1);
  return {low, low + (low < size - 1), A(1) - fraction, fraction};
}

// What an output pixel takes from input pixel `input`.
template <class A>
FASTCV_HD A upsample_weight(const UpsampleTap<A>& tap, int64_t input) {
  return (tap.low == input ? tap.weight_low : A(0)) + (tap.high == input ? tap.weight_high : A(0));
}

// Output pixels that may take from an input pixel: all that do lie in [first, last). Generous by a pixel or two, for
// rounding; the weights tell.
struct UpsampleRange {
  int first, last;
};

template <class A>
FASTCV_HD UpsampleRange upsample_range(A scale, bool align_corners, int64_t input, int64_t size, int64_t outputs) {
  const double offset = align_corners ? 0.0 : 0.5;
  UpsampleRange range{0, static_cast<int>(outputs)};
  if (!(scale > A(0))) return range;
  const double low = (static_cast<double>(input) - 1 + offset) / static_cast<double>(scale) - offset;
  const double high = (static_cast<double>(input) + 1 + offset) / static_cast<double>(scale) - offset;
  const double first = low * (1 - 1e-6) - 1.5, last = high * (1 + 1e-6) + 2.5;
  if (input > 0 && first > 0) range.first = first < static_cast<double>(outputs) ? static_cast<int>(first) : range.last;
  if (input < size - 1 && last < static_cast<double>(outputs)) range.last = static_cast<int>(last);
  return range;
}

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

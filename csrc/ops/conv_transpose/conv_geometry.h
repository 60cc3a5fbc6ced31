// Which sites a transposed convolution and its input gradient gather from, on both devices.
//
// Seen from the side that is computed, the target, both sum over source sites: along each axis the target site
// q * out_step + phase reads, for some taps k, the source site q * in_step + offset(k):
//
//   forward          out_step = stride, in_step = 1: one phase per residue modulo the stride, whose taps are those k
//                    with phase + padding - k * dilation divisible by the stride; offset is the quotient
//   input gradient   out_step = 1, in_step = stride: one phase, all taps, offset = k * dilation - padding
//
// The taps of a phase are an arithmetic progression, and so are their offsets.
#pragma once

#include "ops/conv_transpose/conv_transpose.h"

namespace fastcv::FASTCV_VARIANT {

// I: the type of sites and taps; 32 bits where divisions count (see conv_mma.cuh).
template <class I>
struct GatherAxisOf {
  I source, target, kernel;  // sizes
  I in_step, out_step;
  I padding, dilation;
  I tap_step;  // between the taps of one phase
  bool forward;
};
using GatherAxis = GatherAxisOf<int64_t>;

inline GatherAxis gather_axis(const ConvAxis& a, bool forward) {
  if (!forward) return {a.output, a.input, a.kernel, a.stride, 1, a.padding, a.dilation, 1, false};
  int64_t divisor = a.stride, rest = a.dilation % a.stride;
  while (rest != 0) {
    const int64_t next = divisor % rest;
    divisor = rest;
    rest = next;
  }
  return {a.input, a.output, a.kernel, 1, a.stride, a.padding, a.dilation, a.stride / divisor, true};
}

template <class I>
struct TapRunOf {
  I first, count;         // taps first, first + tap_step, ...
  I offset, offset_step;  // and their offsets
};
using TapRun = TapRunOf<int64_t>;

template <class I>
FASTCV_HD TapRunOf<I> taps_of_phase(const GatherAxisOf<I>& axis, I phase) {
  if (!axis.forward) return {0, axis.kernel, -axis.padding, axis.dilation};
  const I most = least(axis.tap_step, axis.kernel);
  for (I k = 0; k < most; ++k) {
    const I distance = phase + axis.padding - k * axis.dilation;
    if (distance % axis.out_step != 0) continue;
    return {k, (axis.kernel - 1 - k) / axis.tap_step + 1, distance / axis.out_step,
            -(axis.dilation * axis.tap_step / axis.out_step)};
  }
  return {0, 0, 0, 0};
}

template <class I>
FASTCV_HD I sites_of_phase(const GatherAxisOf<I>& axis) {
  return ceil_div(axis.target, axis.out_step);
}
template <class I>
FASTCV_HD I phases_of(const GatherAxisOf<I>& axis) {
  return least(axis.out_step, axis.target);
}

// The sites of the input for which tap k falls inside the output: [begin, end).
template <class I>
struct TapRangeOf {
  I begin, end, offset;  // the output site is i * stride + offset
};
using TapRange = TapRangeOf<int64_t>;

FASTCV_HD TapRange tap_range(const ConvAxis& axis, int64_t k) {
  const int64_t offset = k * axis.dilation - axis.padding;
  int64_t begin = offset >= 0 ? 0 : ceil_div(-offset, axis.stride);
  int64_t end = axis.output - 1 < offset ? 0 : (axis.output - 1 - offset) / axis.stride + 1;
  if (end > axis.input) end = axis.input;
  if (begin > end) begin = end;
  return {begin, end, offset};
}

}  // namespace fastcv::FASTCV_VARIANT

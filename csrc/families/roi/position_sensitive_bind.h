// The checks that the bindings of position-sensitive ops share.
#pragma once

#include "families/roi/position_sensitive.h"
#include "families/roi/roi_bind.h"

namespace fastcv {

// For backward: grad_output (K, C, P, Q), checked against the `channels` of the features.
inline TensorView checked_position_sensitive_grad(const TensorView& grad_output, const TensorView& boxes,
                                                  int64_t channels) {
  const TensorView pooled = checked_grad_output(grad_output, boxes, kAny);
  const int64_t bins = multiply_sizes(pooled.shape[2], pooled.shape[3]);
  if (multiply_sizes(pooled.shape[1], bins) != channels) {
    refuse("grad_output", "have C * P * Q = " + std::to_string(channels) + " elements per box", describe_shape(pooled));
  }
  return pooled;
}

}  // namespace fastcv

// The focal loss of logits (Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 5):
//
//   loss = alpha_t (1 - p_t)^gamma CE(x, t),     p = sigmoid(x),  p_t = p t + (1 - p) (1 - t),
//                                                alpha_t = alpha t + (1 - alpha) (1 - t), or 1 for alpha < 0
//
//   inputs, targets, loss   any shape, contiguous, of one floating dtype; half types are computed in float32
//
// With e = exp(-|x|) everything follows without loss of digits: 1 - p = 1 / (1 + e) or e / (1 + e), never by
// subtraction, and CE = max(x, 0) - x t + log(1 + e). Targets may be any number, not 0 and 1 alone. Backward gives the
// gradient of either or both.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"

namespace fastcv {

struct SigmoidFocalLossParams {
  const void* inputs;
  const void* targets;
  void* loss;  // written by forward, its gradient read by backward
  void* grad_inputs;
  void* grad_targets;  // null where not wanted
  DType dtype;
  int64_t count;
  int64_t grad_stride;  // of the gradient that backward reads, in elements
  double alpha, gamma;
};

FASTCV_DECLARE_KERNEL(sigmoid_focal_loss_forward, SigmoidFocalLossParams);
FASTCV_DECLARE_KERNEL(sigmoid_focal_loss_backward, SigmoidFocalLossParams);

namespace FASTCV_VARIANT {

template <class S>
struct FocalOptions {
  S alpha, gamma;
};

// How the modulating factor is raised to gamma: by multiplication where gamma is 0, 1 or 2.
enum class FocalPower { kZero, kOne, kTwo, kAny };

template <class V>
struct FocalGradient {
  V input, target;
};

// V is S or a vector of S. Math has exp_of_nonpositive, log1p_of_unit and power(V base, S exponent).
template <class Math, FocalPower kPower, class S, class V>
struct FocalLoss {
  V p, not_p, cross_entropy, miss, factor, weight;

  FASTCV_HD FocalLoss(V x, V t, const FocalOptions<S>& options) {
    const V magnitude = x >= V{} ? x : -x;
    const V e = Math::exp_of_nonpositive(-magnitude);
    const V one = V{} + S(1);
    const V larger = one / (one + e), smaller = e * larger;
    p = x >= V{} ? larger : smaller;
    not_p = x >= V{} ? smaller : larger;
    cross_entropy = (x >= V{} ? x * (one - t) : -x * t) + Math::log1p_of_unit(e);
    miss = p * (one - t) + not_p * t;
    factor = raise(options.gamma);
    weight = options.alpha >= S(0) ? options.alpha * t + (S(1) - options.alpha) * (one - t) : one;
  }

  FASTCV_HD V raise(S gamma) const {
    if constexpr (kPower == FocalPower::kZero) return V{} + S(1);
    if constexpr (kPower == FocalPower::kOne) return miss;
    if constexpr (kPower == FocalPower::kTwo) return miss * miss;
    return Math::power(miss, gamma);
  }

  // gamma miss^(gamma - 1); no derivative where nothing is missed.
  FASTCV_HD V slope(S gamma) const {
    if constexpr (kPower == FocalPower::kZero) return V{};
    if constexpr (kPower == FocalPower::kOne) return V{} + S(1);
    if constexpr (kPower == FocalPower::kTwo) return miss + miss;
    return miss == V{} ? V{} : gamma * Math::power(miss, gamma - S(1));
  }

  FASTCV_HD V value() const { return weight * (cross_entropy * factor); }

  FASTCV_HD FocalGradient<V> gradient(V x, V t, V grad, const FocalOptions<S>& options) const {
    const V bent = cross_entropy * slope(options.gamma);
    const V one = V{} + S(1);
    // p - t, of which p alone may lose digits.
    const V apart = p * (one - t) - not_p * t;
    const V by_input = apart * factor + bent * (p * not_p) * (one - t - t);
    V by_target = weight * (bent * (not_p - p) - x * factor);
    if (options.alpha >= S(0)) by_target += (options.alpha + options.alpha - S(1)) * (cross_entropy * factor);
    return {grad * weight * by_input, grad * by_target};
  }
};

// Calls body with the FocalPower of gamma as a tag.
template <FocalPower kPower>
struct FocalPowerTag {
  static constexpr FocalPower value = kPower;
};
template <class Body>
void dispatch_power(double gamma, Body&& body) {
  if (gamma == 0) return body(FocalPowerTag<FocalPower::kZero>{});
  if (gamma == 1) return body(FocalPowerTag<FocalPower::kOne>{});
  if (gamma == 2) return body(FocalPowerTag<FocalPower::kTwo>{});
  return body(FocalPowerTag<FocalPower::kAny>{});
}

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

// Focal loss on CUDA: one thread per element, bound by memory (12 bytes an element forward in float32, 16 backward).
#include <math.h>

#include "core/cuda/launch.cuh"
#include "ops/sigmoid_focal_loss/sigmoid_focal_loss.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kBlockSize = 256;

template <class S>
struct ScalarMath {
  FASTCV_HD static float exp_of_nonpositive(float x) { return expf(x); }
  FASTCV_HD static double exp_of_nonpositive(double x) { return exp(x); }
  FASTCV_HD static float log1p_of_unit(float x) { return log1pf(x); }
  FASTCV_HD static double log1p_of_unit(double x) { return log1p(x); }
  FASTCV_HD static float power(float base, float exponent) { return powf(base, exponent); }
  FASTCV_HD static double power(double base, double exponent) { return pow(base, exponent); }
};

template <class T, FocalPower kPower>
__global__ void __launch_bounds__(kBlockSize, 2) sigmoid_focal_loss_forward_kernel(const SigmoidFocalLossParams p) {
  using S = Accumulate<T>;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  if (i >= p.count) return;
  const FocalOptions<S> options{static_cast<S>(p.alpha), static_cast<S>(p.gamma)};
  const S x = to_float(static_cast<const T*>(p.inputs)[i]), t = to_float(static_cast<const T*>(p.targets)[i]);
  const FocalLoss<ScalarMath<S>, kPower, S, S> terms(x, t, options);
  static_cast<T*>(p.loss)[i] = from_float<T>(terms.value());
}

template <class T, FocalPower kPower>
__global__ void __launch_bounds__(kBlockSize, 2) sigmoid_focal_loss_backward_kernel(const SigmoidFocalLossParams p) {
  using S = Accumulate<T>;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  if (i >= p.count) return;
  const FocalOptions<S> options{static_cast<S>(p.alpha), static_cast<S>(p.gamma)};
  const S x = to_float(static_cast<const T*>(p.inputs)[i]), t = to_float(static_cast<const T*>(p.targets)[i]);
  const S grad = to_float(static_cast<const T*>(p.loss)[i * p.grad_stride]);
  const FocalLoss<ScalarMath<S>, kPower, S, S> terms(x, t, options);
  const FocalGradient<S> gradient = terms.gradient(x, t, grad, options);
  if (p.grad_inputs != nullptr) static_cast<T*>(p.grad_inputs)[i] = from_float<T>(gradient.input);
  if (p.grad_targets != nullptr) static_cast<T*>(p.grad_targets)[i] = from_float<T>(gradient.target);
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void sigmoid_focal_loss_forward_cuda(const SigmoidFocalLossParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto type) {
    dispatch_power(params.gamma, [&](auto power) {
      launch(sigmoid_focal_loss_forward_kernel<typename decltype(type)::type, decltype(power)::value>,
             {{grid_size(params.count, kBlockSize)}, {kBlockSize}}, stream, params);
    });
  });
}

void sigmoid_focal_loss_backward_cuda(const SigmoidFocalLossParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto type) {
    dispatch_power(params.gamma, [&](auto power) {
      launch(sigmoid_focal_loss_backward_kernel<typename decltype(type)::type, decltype(power)::value>,
             {{grid_size(params.count, kBlockSize)}, {kBlockSize}}, stream, params);
    });
  });
}

}  // namespace fastcv

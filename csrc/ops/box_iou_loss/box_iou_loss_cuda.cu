// Overlap losses on CUDA: one thread per pair of boxes, each box a run of 16 or 32 bytes. Bound by memory: 36 bytes a
// pair forward, 68 backward, in float32.
#include "core/cuda/launch.cuh"
#include "ops/box_iou_loss/box_iou_loss.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kBlockSize = 256;

template <class S>
FASTCV_HD OverlapEpsilons<S> epsilons(const BoxIouLossParams& p) {
  return {static_cast<S>(p.epsilon_areas), static_cast<S>(p.epsilon_diagonal), static_cast<S>(p.epsilon_alpha)};
}

template <class S, OverlapKind kKind>
__global__ void __launch_bounds__(kBlockSize, 2) box_iou_loss_forward_kernel(const BoxIouLossParams p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  if (i >= p.count) return;
  const OverlapBox<S> a = prepare_box<kKind>(static_cast<const S*>(p.boxes1) + 4 * i);
  const OverlapBox<S> b = prepare_box<kKind>(static_cast<const S*>(p.boxes2) + 4 * i);
  static_cast<S*>(p.loss)[i] = S(1) - overlap_value<kKind, false>(a, b, epsilons<S>(p));
}

template <class S, OverlapKind kKind>
__global__ void __launch_bounds__(kBlockSize, 2) box_iou_loss_backward_kernel(const BoxIouLossParams p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  if (i >= p.count) return;
  const OverlapBox<S> a = prepare_box<kKind>(static_cast<const S*>(p.boxes1) + 4 * i);
  const OverlapBox<S> b = prepare_box<kKind>(static_cast<const S*>(p.boxes2) + 4 * i);
  const S grad = -static_cast<const S*>(p.loss)[i * p.grad_stride];
  OverlapGradient<S> grad_a, grad_b;
  overlap_gradient<kKind, false>(a, b, epsilons<S>(p), grad, grad_a, grad_b);
  if (p.grad_boxes1 != nullptr) corner_gradient<kKind>(a.box, grad_a, static_cast<S*>(p.grad_boxes1) + 4 * i);
  if (p.grad_boxes2 != nullptr) corner_gradient<kKind>(b.box, grad_b, static_cast<S*>(p.grad_boxes2) + 4 * i);
}

template <class Run>
void dispatch(const BoxIouLossParams& p, Run run) {
  const auto with_dtype = [&](auto tag) {
    if (p.dtype == DType::kFloat32) {
      run(TypeTag<float>{}, tag);
    } else {
      run(TypeTag<double>{}, tag);
    }
  };
  switch (p.kind) {
    case OverlapKind::kGeneralized:
      return with_dtype(OverlapTag<OverlapKind::kGeneralized>{});
    case OverlapKind::kDistance:
      return with_dtype(OverlapTag<OverlapKind::kDistance>{});
    default:
      return with_dtype(OverlapTag<OverlapKind::kComplete>{});
  }
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void box_iou_loss_forward_cuda(const BoxIouLossParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch(params, [&](auto type, auto tag) {
    launch(box_iou_loss_forward_kernel<typename decltype(type)::type, decltype(tag)::value>,
           {{grid_size(params.count, kBlockSize)}, {kBlockSize}}, stream, params);
  });
}

void box_iou_loss_backward_cuda(const BoxIouLossParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch(params, [&](auto type, auto tag) {
    launch(box_iou_loss_backward_kernel<typename decltype(type)::type, decltype(tag)::value>,
           {{grid_size(params.count, kBlockSize)}, {kBlockSize}}, stream, params);
  });
}

}  // namespace fastcv

// Overlap losses on the CPU.
//
// Boxes come as rows of four; a vector of them is laid out as arrays (x1, y1, x2, y2) in registers, and gradients go
// back the same way. The arc tangents of the complete form are the scalar library's and cost more than all the rest.
//
// Napkin maths, a million pairs in float32: 36 MB must move, 4 ms at 10 GB/s; peers make some 30 passes over arrays of
// 4 MB.
#include "core/parallel.h"
#include "core/simd.h"
#include "ops/box_iou_loss/box_iou_loss.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int64_t kGrain = 16384;

template <class S>
OverlapEpsilons<S> epsilons(const BoxIouLossParams& p) {
  return {static_cast<S>(p.epsilon_areas), static_cast<S>(p.epsilon_diagonal), static_cast<S>(p.epsilon_alpha)};
}

// `count` boxes as vectors; lanes beyond them hold the last one again.
template <OverlapKind kKind, class S>
inline OverlapBox<Vector<S>> load_boxes(const S* boxes, int64_t count) {
  alignas(64) S arrays[4][kLanes<S>];
  for (int i = 0; i < kLanes<S>; ++i) {
    const S* source = boxes + 4 * (i < count ? i : count - 1);
    for (int c = 0; c < 4; ++c) arrays[c][i] = source[c];
  }
  OverlapBox<Vector<S>> result{};
  Box<Vector<S>>& box = result.box;
  box = {load(arrays[0]), load(arrays[1]), load(arrays[2]), load(arrays[3])};
  result.area = box_area(box);
  if constexpr (kHasCenters<kKind>) {
    result.center_x = (box.x1 + box.x2) * S(0.5);
    result.center_y = (box.y1 + box.y2) * S(0.5);
  }
  if constexpr (kKind == OverlapKind::kComplete) {
    const Vector<S> aspect = (box.x2 - box.x1) / (box.y2 - box.y1);
    for (int i = 0; i < kLanes<S>; ++i) result.angle[i] = arc_tangent(aspect[i]);
  }
  return result;
}

template <OverlapKind kKind, class S>
inline void store_gradients(const Box<Vector<S>>& box, const OverlapGradient<Vector<S>>& gradient, S* target,
                            int count) {
  Vector<S> corners[4];
  corner_gradient<kKind>(box, gradient, corners);
  for (int i = 0; i < count; ++i) {
    for (int c = 0; c < 4; ++c) target[4 * i + c] = corners[c][i];
  }
}

template <class S, OverlapKind kKind>
void forward(const BoxIouLossParams& p) {
  const OverlapEpsilons<S> epsilon = epsilons<S>(p);
  const S* boxes1 = static_cast<const S*>(p.boxes1);
  const S* boxes2 = static_cast<const S*>(p.boxes2);
  S* loss = static_cast<S*>(p.loss);
  parallel_for(p.count, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += kLanes<S>) {
      const Vector<S> value = S(1) - overlap_value<kKind, false>(load_boxes<kKind>(boxes1 + 4 * i, end - i),
                                                                 load_boxes<kKind>(boxes2 + 4 * i, end - i), epsilon);
      if (end - i >= kLanes<S>) {
        store(loss + i, value);
      } else {
        for (int64_t j = i; j < end; ++j) loss[j] = value[j - i];
      }
    }
  });
}

template <class S, OverlapKind kKind>
void backward(const BoxIouLossParams& p) {
  const OverlapEpsilons<S> epsilon = epsilons<S>(p);
  const S* boxes1 = static_cast<const S*>(p.boxes1);
  const S* boxes2 = static_cast<const S*>(p.boxes2);
  const S* grad = static_cast<const S*>(p.loss);
  parallel_for(p.count, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += kLanes<S>) {
      const int count = end - i < kLanes<S> ? static_cast<int>(end - i) : kLanes<S>;
      Vector<S> arrived{};
      for (int j = 0; j < count; ++j) arrived[j] = -grad[(i + j) * p.grad_stride];
      const OverlapBox<Vector<S>> a = load_boxes<kKind>(boxes1 + 4 * i, end - i);
      const OverlapBox<Vector<S>> b = load_boxes<kKind>(boxes2 + 4 * i, end - i);
      OverlapGradient<Vector<S>> grad_a, grad_b;
      overlap_gradient<kKind, false>(a, b, epsilon, arrived, grad_a, grad_b);
      if (p.grad_boxes1 != nullptr) {
        store_gradients<kKind>(a.box, grad_a, static_cast<S*>(p.grad_boxes1) + 4 * i, count);
      }
      if (p.grad_boxes2 != nullptr) {
        store_gradients<kKind>(b.box, grad_b, static_cast<S*>(p.grad_boxes2) + 4 * i, count);
      }
    }
  });
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

void box_iou_loss_forward_cpu(const BoxIouLossParams& params) {
  dispatch(params, [&](auto type, auto tag) { forward<typename decltype(type)::type, decltype(tag)::value>(params); });
}

void box_iou_loss_backward_cpu(const BoxIouLossParams& params) {
  dispatch(params, [&](auto type, auto tag) { backward<typename decltype(type)::type, decltype(tag)::value>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

// Boxes encoded relative to other boxes, and back (Girshick et al. 2014, "R-CNN", appendix C; torchvision's BoxCoder).
//
//   encode   reference (N, 4), proposals (N, 4) -> deltas (N, 4)
//   decode   deltas (N, 4 C), boxes (N, 4) -> decoded (N, 4 C): one box per class, each relative to the row's box
//
// All contiguous and of one dtype; half types are computed in float32. With centre c and size s along an axis, p of the
// proposal and g of the reference:
//
//   shift = weight (c_g - c_p) / s_p          c = shift / weight * s_p + c_p
//   growth = weight log(s_g / s_p)            s = exp(min(growth / weight, clip)) * s_p
//
// A growth beyond the clip has no gradient. NaN stays NaN. Backward writes both gradients, or one where the other's
// pointer is null; a box's gradient is the sum over its classes in a fixed order.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"
#include "families/box/box_coding.h"

namespace fastcv {

struct EncodeBoxesParams {
  const void* reference;
  const void* proposals;
  void* deltas;  // written by forward; backward reads their gradient here
  void* grad_reference;
  void* grad_proposals;
  DType dtype;
  int64_t count;
  BoxCoding coding;
};

struct DecodeBoxesParams {
  const void* deltas;
  const void* boxes;
  void* decoded;  // written by forward; backward reads its gradient here
  void* grad_deltas;
  void* grad_boxes;
  DType dtype;
  int64_t count, classes;
  BoxCoding coding;
};

FASTCV_DECLARE_KERNEL(encode_boxes_forward, EncodeBoxesParams);
FASTCV_DECLARE_KERNEL(encode_boxes_backward, EncodeBoxesParams);
FASTCV_DECLARE_KERNEL(decode_boxes_forward, DecodeBoxesParams);
FASTCV_DECLARE_KERNEL(decode_boxes_backward, DecodeBoxesParams);

namespace FASTCV_VARIANT {

// Rows of four, read and written as what they are computed in; as one piece of memory where `aligned`.
template <class A>
struct Row {
  A value[4];
};

template <class T>
FASTCV_HD Row<Accumulate<T>> read_row(const void* rows, int64_t i, bool aligned) {
  const T* source = static_cast<const T*>(rows) + 4 * i;
  Pack<T, 4> pack;
  if (aligned) {
    pack = *reinterpret_cast<const Pack<T, 4>*>(source);
  } else {
    for (int k = 0; k < 4; ++k) pack.value[k] = source[k];
  }
  return {{to_float(pack.value[0]), to_float(pack.value[1]), to_float(pack.value[2]), to_float(pack.value[3])}};
}

template <class T>
FASTCV_HD void write_row(void* rows, int64_t i, const Row<Accumulate<T>>& row, bool aligned) {
  T* target = static_cast<T*>(rows) + 4 * i;
  Pack<T, 4> pack;
  for (int k = 0; k < 4; ++k) pack.value[k] = from_float<T>(row.value[k]);
  if (aligned) {
    *reinterpret_cast<Pack<T, 4>*>(target) = pack;
  } else {
    for (int k = 0; k < 4; ++k) target[k] = pack.value[k];
  }
}

template <class T>
FASTCV_HD bool is_aligned(const void* rows) {
  return reinterpret_cast<uintptr_t>(rows) % alignof(Pack<T, 4>) == 0;
}

template <class A>
FASTCV_HD Row<A> encode_row(const Row<A>& reference, const Row<A>& proposal, const BoxCoding& coding) {
  Row<A> deltas;
  for (int axis = 0; axis < 2; ++axis) {
    const Span<A> g = span_of(reference.value[axis], reference.value[axis + 2]);
    const Span<A> p = span_of(proposal.value[axis], proposal.value[axis + 2]);
    deltas.value[axis] = static_cast<A>(coding.weights[axis]) * (g.center - p.center) / p.size;
    deltas.value[axis + 2] = static_cast<A>(coding.weights[axis + 2]) * logarithm(g.size / p.size);
  }
  return deltas;
}

template <class A>
FASTCV_HD void encode_gradient(const Row<A>& reference, const Row<A>& proposal, const Row<A>& grad,
                               const BoxCoding& coding, Row<A>* grad_reference, Row<A>* grad_proposal) {
  for (int axis = 0; axis < 2; ++axis) {
    const Span<A> g = span_of(reference.value[axis], reference.value[axis + 2]);
    const Span<A> p = span_of(proposal.value[axis], proposal.value[axis + 2]);
    const A shift = grad.value[axis] * static_cast<A>(coding.weights[axis]) / p.size;
    const A growth = grad.value[axis + 2] * static_cast<A>(coding.weights[axis + 2]);
    const A reference_size = growth / g.size;
    const A proposal_size = -shift * (g.center - p.center) / p.size - growth / p.size;
    grad_reference->value[axis] = A(0.5) * shift - reference_size;
    grad_reference->value[axis + 2] = A(0.5) * shift + reference_size;
    grad_proposal->value[axis] = -A(0.5) * shift - proposal_size;
    grad_proposal->value[axis + 2] = -A(0.5) * shift + proposal_size;
  }
}

template <class A>
FASTCV_HD Row<A> decode_row(const Row<A>& deltas, const Row<A>& box, const BoxCoding& coding) {
  const Box<A> decoded =
      decode_box(deltas.value, Box<A>{box.value[0], box.value[1], box.value[2], box.value[3]}, coding);
  return {{decoded.x1, decoded.y1, decoded.x2, decoded.y2}};
}

// Adds to the gradient of the box.
template <class A>
FASTCV_HD void decode_gradient(const Row<A>& deltas, const Row<A>& box, const Row<A>& grad, const BoxCoding& coding,
                               Row<A>* grad_deltas, Row<A>* grad_box) {
  for (int axis = 0; axis < 2; ++axis) {
    const A shift_weight = static_cast<A>(coding.weights[axis]);
    const A growth_weight = static_cast<A>(coding.weights[axis + 2]);
    const A size = box.value[axis + 2] - box.value[axis];
    const A growth = deltas.value[axis + 2] / growth_weight;
    const A factor = exponential(at_most(growth, static_cast<A>(coding.clip)));
    const A center = grad.value[axis] + grad.value[axis + 2];
    const A extent = A(0.5) * (grad.value[axis + 2] - grad.value[axis]);
    const bool free = growth <= static_cast<A>(coding.clip);
    grad_deltas->value[axis] = center * size / shift_weight;
    grad_deltas->value[axis + 2] = free ? extent * factor * size / growth_weight : A(0);
    const A along = center * (deltas.value[axis] / shift_weight) + extent * factor;
    grad_box->value[axis] += A(0.5) * center - along;
    grad_box->value[axis + 2] += A(0.5) * center + along;
  }
}

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

// The overlap of two boxes as one number, in the four forms that matrices and losses share, and its derivatives.
//
//   kIou          I / U                                      I, U: areas of intersection and union
//   kGeneralized  IoU - (C - U) / C                          C: area of the enclosing box (Rezatofighi et al. 2019)
//   kDistance     IoU - d^2 / q^2                            d: between the centres, q: diagonal of the enclosing box
//   kComplete     IoU - d^2 / q^2 - alpha v                  (Zheng et al. 2020)
//                 v = 4 / pi^2 (atan(w1 / h1) - atan(w2 / h2))^2,  alpha = v / (1 - IoU + v), a constant when
//                 differentiating
//
// The order of operations is torchvision's, so that values are too. V is S or, on the CPU, a vector of S. kClamped is
// the form of the matrices, where the sides of the enclosing box are cut off at zero; the losses take them as they are.
// Neither has a derivative by way of a side that is zero or less, as torch's clamp has none at its bound (from
// torch 2.14 on).
#pragma once

#include <math.h>

#include "families/box/box.h"

namespace fastcv {

enum class OverlapKind : uint8_t { kIou, kGeneralized, kDistance, kComplete };
constexpr int kOverlapKinds = 4;

namespace FASTCV_VARIANT {

constexpr double kAspectScale = 0.40528473456935108577551785283891;  // 4 / pi^2

// Added to denominators.
template <class S>
struct OverlapEpsilons {
  S areas, diagonal, alpha;
};

// A box and what many pairs need of it; an overlap of kind kKind reads what prepare_box has filled in for it.
template <class V>
struct OverlapBox {
  Box<V> box;
  V area, center_x, center_y, angle;
};

// Gradients that arrive at a box: at its corners, and by way of its area and its angle.
template <class V>
struct OverlapGradient {
  V x1, y1, x2, y2, area, angle;
};

FASTCV_HD float arc_tangent(float value) {
  return atanf(value);
}
FASTCV_HD double arc_tangent(double value) {
  return atan(value);
}

template <OverlapKind kKind>
constexpr bool kHasCenters = kKind == OverlapKind::kDistance || kKind == OverlapKind::kComplete;

// coordinates: x1, y1, x2, y2.
template <OverlapKind kKind, class S>
FASTCV_HD OverlapBox<S> prepare_box(const S* coordinates) {
  OverlapBox<S> result{};
  result.box = {coordinates[0], coordinates[1], coordinates[2], coordinates[3]};
  const Box<S>& box = result.box;
  result.area = box_area(box);
  if constexpr (kHasCenters<kKind>) {
    result.center_x = (box.x1 + box.x2) * S(0.5);
    result.center_y = (box.y1 + box.y2) * S(0.5);
  }
  if constexpr (kKind == OverlapKind::kComplete) {
    result.angle = arc_tangent((box.x2 - box.x1) / (box.y2 - box.y1));
  }
  return result;
}

template <class V>
FASTCV_HD V not_negative(V value) {
  return value > V{} ? value : V{};
}

// Sides of the smallest box that holds both.
template <bool kClamped, class V>
FASTCV_HD void enclosing_sides(const Box<V>& a, const Box<V>& b, V& width, V& height) {
  width = greatest(a.x2, b.x2) - least(a.x1, b.x1);
  height = greatest(a.y2, b.y2) - least(a.y1, b.y1);
  if constexpr (kClamped) {
    width = not_negative(width);
    height = not_negative(height);
  }
}

template <OverlapKind kKind, bool kClamped, class S, class V>
FASTCV_HD V overlap_value(const OverlapBox<V>& a, const OverlapBox<V>& b, const OverlapEpsilons<S>& epsilon) {
  if constexpr (kKind == OverlapKind::kIou) return box_iou(a.box, a.area, b.box, b.area);
  const V intersection = box_intersection(a.box, b.box);
  const V both = a.area + b.area - intersection;
  const V iou = intersection / (both + epsilon.areas);
  V width, height;
  enclosing_sides<kClamped>(a.box, b.box, width, height);
  if constexpr (kKind == OverlapKind::kGeneralized) {
    const V enclosing = width * height;
    return iou - (enclosing - both) / (enclosing + epsilon.areas);
  }
  const V diagonal = width * width + height * height + epsilon.diagonal;
  const V dx = a.center_x - b.center_x, dy = a.center_y - b.center_y;
  const V distance_iou = iou - (dx * dx + dy * dy) / diagonal;
  if constexpr (kKind == OverlapKind::kDistance) return distance_iou;
  const V turn = a.angle - b.angle;
  const V aspect = S(kAspectScale) * (turn * turn);
  const V alpha = aspect / (S(1) - iou + aspect + epsilon.alpha);
  return distance_iou - alpha * aspect;
}

// How much of max(a, b) is a's: a half at a tie, as torch shares it.
template <class S, class V>
FASTCV_HD V share_of_larger(V a, V b) {
  const V one = V{} + S(1), half = V{} + S(0.5);
  return a > b ? one : a == b ? half : V{};
}

// grad times the derivatives of overlap_value: what arrives at `a` and at `b`.
template <OverlapKind kKind, bool kClamped, class S, class V>
FASTCV_HD void overlap_gradient(const OverlapBox<V>& a, const OverlapBox<V>& b, const OverlapEpsilons<S>& epsilon,
                                V grad, OverlapGradient<V>& grad_a, OverlapGradient<V>& grad_b) {
  const V side_x = least(a.box.x2, b.box.x2) - greatest(a.box.x1, b.box.x1);
  const V side_y = least(a.box.y2, b.box.y2) - greatest(a.box.y1, b.box.y1);
  const V width = not_negative(side_x), height = not_negative(side_y);
  const V intersection = width * height;
  const V both = a.area + b.area - intersection + epsilon.areas;
  const V iou = intersection / both;
  const V grad_over_union = grad / both;

  V grad_union = -iou * grad_over_union;
  V outer_x{}, outer_y{};            // gradients at the sides of the enclosing box
  V center_x{}, center_y{}, turn{};  // at each x and each y of a by way of its centre, and at its angle
  if constexpr (kKind != OverlapKind::kIou) {
    V outer_width, outer_height;
    enclosing_sides<false>(a.box, b.box, outer_width, outer_height);
    const V open_width = outer_width, open_height = outer_height;
    if constexpr (kClamped) {
      outer_width = not_negative(outer_width);
      outer_height = not_negative(outer_height);
    }
    if constexpr (kKind == OverlapKind::kGeneralized) {
      const V enclosing = outer_width * outer_height + epsilon.areas;
      const V grad_over_enclosing = grad / enclosing;
      const V grad_enclosing = -grad_over_enclosing * (both / enclosing);
      grad_union += grad_over_enclosing;
      outer_x = grad_enclosing * outer_height;
      outer_y = grad_enclosing * outer_width;
    } else {
      const V diagonal = outer_width * outer_width + outer_height * outer_height + epsilon.diagonal;
      const V dx = a.center_x - b.center_x, dy = a.center_y - b.center_y;
      const V grad_over_diagonal = grad / diagonal;
      const V grad_diagonal = S(2) * grad_over_diagonal * ((dx * dx + dy * dy) / diagonal);
      outer_x = grad_diagonal * outer_width;
      outer_y = grad_diagonal * outer_height;
      center_x = -grad_over_diagonal * dx;
      center_y = -grad_over_diagonal * dy;
      if constexpr (kKind == OverlapKind::kComplete) {
        const V difference = a.angle - b.angle;
        const V aspect = S(kAspectScale) * (difference * difference);
        const V alpha = aspect / (S(1) - iou + aspect + epsilon.alpha);
        turn = S(-2 * kAspectScale) * grad * alpha * difference;
      }
    }
    if constexpr (kClamped) {
      outer_x = open_width > V{} ? outer_x : V{};
      outer_y = open_height > V{} ? outer_y : V{};
    }
  }

  const V grad_intersection = grad_over_union - grad_union;
  V inner_x = grad_intersection * height, inner_y = grad_intersection * width;
  inner_x = side_x > V{} ? inner_x : V{};
  inner_y = side_y > V{} ? inner_y : V{};

  const V one = V{} + S(1);
  const V left = share_of_larger<S>(a.box.x1, b.box.x1), right = share_of_larger<S>(b.box.x2, a.box.x2);
  const V top = share_of_larger<S>(a.box.y1, b.box.y1), bottom = share_of_larger<S>(b.box.y2, a.box.y2);
  grad_a.x1 = center_x - (inner_x * left + outer_x * (one - left));
  grad_a.x2 = center_x + (inner_x * right + outer_x * (one - right));
  grad_a.y1 = center_y - (inner_y * top + outer_y * (one - top));
  grad_a.y2 = center_y + (inner_y * bottom + outer_y * (one - bottom));
  grad_b.x1 = -center_x - (inner_x * (one - left) + outer_x * left);
  grad_b.x2 = (inner_x * (one - right) + outer_x * right) - center_x;
  grad_b.y1 = -center_y - (inner_y * (one - top) + outer_y * top);
  grad_b.y2 = (inner_y * (one - bottom) + outer_y * bottom) - center_y;
  grad_a.area = grad_b.area = grad_union;
  grad_a.angle = turn;
  grad_b.angle = -turn;
}

template <class V>
FASTCV_HD void add_gradient(OverlapGradient<V>& sum, const OverlapGradient<V>& gradient) {
  sum.x1 += gradient.x1;
  sum.y1 += gradient.y1;
  sum.x2 += gradient.x2;
  sum.y2 += gradient.y2;
  sum.area += gradient.area;
  sum.angle += gradient.angle;
}

// What has arrived at the area and the angle of a box is passed on to its corners: x1, y1, x2, y2.
template <OverlapKind kKind, class V>
FASTCV_HD void corner_gradient(const Box<V>& box, const OverlapGradient<V>& sum, V* corners) {
  const V width = box.x2 - box.x1, height = box.y2 - box.y1;
  V x = sum.area * height, y = sum.area * width;
  if constexpr (kKind == OverlapKind::kComplete) {
    const V scale = sum.angle / (width * width + height * height);
    x += scale * height;
    y -= scale * width;
  }
  corners[0] = sum.x1 - x;
  corners[1] = sum.y1 - y;
  corners[2] = sum.x2 + x;
  corners[3] = sum.y2 + y;
}

template <OverlapKind kKind>
struct OverlapTag {
  static constexpr OverlapKind value = kKind;
};

// Calls body(OverlapTag<kind>{}).
template <class Body>
void dispatch_overlap(OverlapKind kind, Body&& body) {
  switch (kind) {
    case OverlapKind::kIou:
      return body(OverlapTag<OverlapKind::kIou>{});
    case OverlapKind::kGeneralized:
      return body(OverlapTag<OverlapKind::kGeneralized>{});
    case OverlapKind::kDistance:
      return body(OverlapTag<OverlapKind::kDistance>{});
    default:
      return body(OverlapTag<OverlapKind::kComplete>{});
  }
}

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

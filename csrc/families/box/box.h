// Boxes x1, y1, x2, y2 and their overlap: the arithmetic that suppression, matching and the IoU matrices share, written
// once so that all devices decide alike (T may be a vector of floats). Contraction is off in every build, so each
// operation rounds by itself.
#pragma once

#include "core/platform.h"

namespace fastcv::FASTCV_VARIANT {

template <class T>
struct Box {
  T x1, y1, x2, y2;
};

template <class T>
FASTCV_HD T box_area(const Box<T>& box) {
  return (box.x2 - box.x1) * (box.y2 - box.y1);
}

// Zero for boxes apart; torchvision's order of operations.
template <class T>
FASTCV_HD T box_intersection(const Box<T>& a, const Box<T>& b) {
  const T left = greatest(a.x1, b.x1), right = least(a.x2, b.x2);
  const T top = greatest(a.y1, b.y1), bottom = least(a.y2, b.y2);
  const T width = right - left > T{} ? right - left : T{};
  const T height = bottom - top > T{} ? bottom - top : T{};
  return width * height;
}

// Areas are passed in: callers need each many times. 0 / 0 (two boxes without area) is NaN, as torchvision has it.
template <class T>
FASTCV_HD T box_iou(const Box<T>& a, T area_a, const Box<T>& b, T area_b) {
  const T intersection = box_intersection(a, b);
  return intersection / (area_a + area_b - intersection);
}

}  // namespace fastcv::FASTCV_VARIANT

// Instance masks pasted into the image (He et al. 2017, "Mask R-CNN", section 3.1, inference): the soft mask of each
// box, resized to the box and set into zeros.
//
//   masks   (N, 1, P, Q)   soft masks; contiguous
//   boxes   (N, 4)         x1, y1, x2, y2 in pixels of the image; contiguous, float32 or float64
//   pasted  (N, 1, H, W)   the masks' dtype, contiguous; or, with a threshold, one byte per pixel: value > threshold
//
// The values are those of torchvision's paste_masks_in_image. The mask gets `padding` zeros on each side and the box
// grows about its centre by (Q + 2 padding) / Q; its corners are then cut off to integers (towards zero) and include
// their pixels. Pixel x of the w = max(x2 - x1 + 1, 1) columns lies at
//
//   source = max((x - x1 + 0.5) * (Q + 2 padding) / w - 0.5, 0)
//
// of the padded mask and is interpolated linearly along x, then along y. What lies outside of the image is left out.
//
// Interpolation happens in float32 (float64 for float64), every operation rounded by itself, so that the threshold
// decides alike on all devices. A box with a corner that is not finite, or 2^29 pixels away or more, has an empty mask.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"

namespace fastcv {

struct PasteMasksParams {
  const void* masks;
  const void* boxes;
  void* pasted;
  DType dtype;      // of the masks
  DType box_dtype;  // float32 or float64
  bool decides;     // the result is value > threshold, one byte each
  double threshold;
  int64_t count;
  int64_t mask_height, mask_width, padding;  // small enough that the padded sides fit in 30 bits
  int64_t height, width;                     // of the image; height * width fits in 31 bits
};

FASTCV_DECLARE_KERNEL(paste_masks, PasteMasksParams);

namespace FASTCV_VARIANT {

// The pixels of a box along one axis: first .. first + size - 1, of which [begin, end) lie inside the image.
struct PasteSpan {
  int32_t first, size, begin, end;
};

// False where the axis has no pixel in the image.
template <class B>
FASTCV_HD bool paste_span(B low, B high, B scale, int64_t side, PasteSpan* span) {
  constexpr B kFarthest = B(1 << 29);
  const B half = (high - low) * B(0.5) * scale, centre = (high + low) * B(0.5);
  const B first = centre - half, last = centre + half;
  if (!(first > -kFarthest && first < kFarthest && last > -kFarthest && last < kFarthest)) return false;
  const int32_t begin = static_cast<int32_t>(first), end = static_cast<int32_t>(last) + 1;
  span->first = begin;
  span->size = greatest(end - begin, 1);
  span->begin = greatest(begin, 0);
  span->end = end < side ? end : static_cast<int32_t>(side);
  return span->begin < span->end;
}

struct PasteArea {
  PasteSpan x, y;
};

template <class B>
FASTCV_HD bool paste_area_of(const PasteMasksParams& p, int64_t n, PasteArea* area) {
  const B* box = static_cast<const B*>(p.boxes) + 4 * n;
  const B scale = static_cast<B>(static_cast<double>(p.mask_width + 2 * p.padding) / static_cast<double>(p.mask_width));
  return paste_span(box[0], box[2], scale, p.width, &area->x) && paste_span(box[1], box[3], scale, p.height, &area->y);
}

// The pixels of mask n; false where there are none.
FASTCV_HD bool paste_area(const PasteMasksParams& p, int64_t n, PasteArea* area) {
  return p.box_dtype == DType::kFloat64 ? paste_area_of<double>(p, n, area) : paste_area_of<float>(p, n, area);
}

// The two neighbours of a pixel in the mask along one axis; -1 where a neighbour is padding.
template <class A>
struct PasteTap {
  int32_t low, high;
  A weight_low, weight_high;
};

// `step` is (side + 2 padding) / span.size, `offset` counts from span.first.
template <class A>
FASTCV_HD PasteTap<A> paste_tap(int32_t offset, A step, int32_t side, int32_t padding) {
  const int32_t last = side + 2 * padding - 1;
  A source = step * (static_cast<A>(offset) + A(0.5)) - A(0.5);
  source = greatest(source, A(0));
  int32_t low = static_cast<int32_t>(source);
  low = least(low, last);
  const int32_t high = low < last ? low + 1 : last;
  A weight = source - static_cast<A>(low);
  weight = least(weight, A(1));
  const bool low_inside = low >= padding && low < side + padding,
             high_inside = high >= padding && high < side + padding;
  return {low_inside ? low - padding : -1, high_inside ? high - padding : -1, A(1) - weight, weight};
}

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

// Anchors of a feature pyramid (Ren et al. 2015, "Faster R-CNN", section 3.1.1; Lin et al. 2017, "FPN", section 4.1).
//
//   cells    (S, 4)   the boxes of one place of each level, around (0, 0), level after level; contiguous
//   anchors  (A, 4)   level after level, row after row, place after place, each with the level's cells in order
//
// The anchor of place (y, x) of a level and cell a is cells[a] + (x, y, x, y) * stride. As in torchvision the shift is
// rounded to the dtype of the cells, then the sum is.
//
// decode_anchors makes single anchors from their flat index and moves them at once (families/box/box_coding.h), so that
// a detector's inference needs no grid:
//
//   deltas   (K, 4)   decoded  (K, 4)   of the cells' dtype, contiguous
//   indices  (K,)     int64, places in the grid
//
// Boxes are clipped to the image where one is given. An index outside [0, A) is a ValueError on the CPU; on CUDA, where
// looking would cost a synchronisation, it gives a box of zeros. The decoded box is that of decode_boxes with the
// anchor rounded to its dtype, bit for bit.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"
#include "families/box/box_coding.h"

namespace fastcv {

constexpr int kMaxAnchorLevels = 16;

struct AnchorLevel {
  int64_t first;  // flat index of its first anchor
  int64_t height, width;
  int64_t stride_y, stride_x;
  int64_t first_cell, cells;
};

// Kernels use 32-bit indices within a grid: the bindings have checked that it has fewer than 2^31 anchors.
struct AnchorPyramid {
  AnchorLevel level[kMaxAnchorLevels];
  int levels;
  int64_t anchors;
};

struct AnchorGridParams {
  const void* cells;
  void* anchors;  // (images, anchors, 4): the same for every image
  int64_t images;
  DType dtype;
  AnchorPyramid pyramid;
};

struct DecodeAnchorsParams {
  const void* cells;
  const void* deltas;
  const int64_t* indices;
  void* decoded;
  DType dtype;
  int64_t count;
  BoxCoding coding;
  bool clips;
  double image_height, image_width;
  AnchorPyramid pyramid;
};

FASTCV_DECLARE_KERNEL(anchor_grid, AnchorGridParams);
FASTCV_DECLARE_KERNEL(decode_anchors, DecodeAnchorsParams);

namespace FASTCV_VARIANT {

template <class T>
FASTCV_HD T round_to(Accumulate<T> value) {
  return from_float<T>(value);
}

// The distance of a place from the first one, as the dtype holds it.
template <class T>
FASTCV_HD Accumulate<T> anchor_shift(int64_t place, int64_t stride) {
  return to_float(round_to<T>(static_cast<Accumulate<T>>(place * stride)));
}

// `index` in [0, anchors).
template <class T>
FASTCV_HD Box<T> anchor_at(const void* cells, const AnchorPyramid& pyramid, int64_t index) {
  int l = 0;
  while (l + 1 < pyramid.levels && index >= pyramid.level[l + 1].first) ++l;
  const AnchorLevel& level = pyramid.level[l];
  const uint32_t within = static_cast<uint32_t>(index - level.first);
  const uint32_t place = within / static_cast<uint32_t>(level.cells);
  const uint32_t cell = within - place * static_cast<uint32_t>(level.cells);
  const uint32_t y = place / static_cast<uint32_t>(level.width);
  const uint32_t x = place - y * static_cast<uint32_t>(level.width);
  const T* base = static_cast<const T*>(cells) + 4 * (level.first_cell + cell);
  const Accumulate<T> shift_x = anchor_shift<T>(x, level.stride_x), shift_y = anchor_shift<T>(y, level.stride_y);
  return {round_to<T>(shift_x + to_float(base[0])), round_to<T>(shift_y + to_float(base[1])),
          round_to<T>(shift_x + to_float(base[2])), round_to<T>(shift_y + to_float(base[3]))};
}

// Decodes anchor `index` with the deltas at `source` into `target`.
template <class T>
FASTCV_HD void decode_anchor(const DecodeAnchorsParams& p, int64_t index, const T* source, T* target) {
  using A = Accumulate<T>;
  const Box<T> anchor = anchor_at<T>(p.cells, p.pyramid, index);
  const A deltas[4] = {to_float(source[0]), to_float(source[1]), to_float(source[2]), to_float(source[3])};
  const Box<A> box = decode_box(
      deltas, Box<A>{to_float(anchor.x1), to_float(anchor.y1), to_float(anchor.x2), to_float(anchor.y2)}, p.coding);
  A decoded[4] = {box.x1, box.y1, box.x2, box.y2};
  for (int k = 0; k < 4; ++k) {
    // Rounded before it is clipped, so that the order of the two does not matter to the caller.
    const A rounded = to_float(round_to<T>(decoded[k]));
    const A limit = static_cast<A>(k % 2 == 0 ? p.image_width : p.image_height);
    target[k] = round_to<T>(p.clips ? clamp(rounded, A(0), limit) : rounded);
  }
}

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

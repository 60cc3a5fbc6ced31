// Suppression of rotated boxes on the CPU. CPU translation units only.
//
// The overlap of two boxes costs about 250 operations, so it waits until bounds of a few operations say that it may
// matter: first the place of the kept box in the frame of the one under test and the areas; then, for a vector of those
// that pass, the separating sides and what the intersection is at most. Decisions are those of the overlap alone, to
// the last bit: the bounds work with a threshold that is lowered by all that rounding can do.
//
// Measured, 20 000 boxes of 4 to 204 pixels in 1333 x 800 at 0.5, 9700 kept, AVX-512: a box meets the circles of 184
// kept ones. It looks at 20 vectors, in which 12 boxes pass the first bound; that takes 1.1 vectors of the second
// bound, at 15 ns, and 0.9 vectors of overlaps, at 50 ns. 600 ns per box in all.
#pragma once

#include "core/memory.h"
#include "core/simd.h"
#include "families/box/rotated_box.h"
#include "families/box/threshold.h"
#include "ops/nms/nms_suppress_cpu.h"

namespace fastcv::FASTCV_VARIANT {

// 64 bytes of each number of boxes kept that the first bound asks for, and which boxes they are. Free places are NaN,
// which is near nothing.
template <class A>
struct RotatedBlock {
  static constexpr int kSize = 64 / static_cast<int>(sizeof(A));
  A x[kSize], y[kSize], area[kSize], radius[kSize];
  Integer<A> index[kSize];

  void clear() { __builtin_memset(static_cast<void*>(this), 0xff, sizeof(*this)); }
  void prefetch() const {
    __builtin_prefetch(x);
    __builtin_prefetch(y);
    __builtin_prefetch(area);
    __builtin_prefetch(radius);
  }
};

// What an IoU above the threshold asks of two boxes.
//
// rotated_iou errs by less than 64 units of rounding times (radius_a + radius_b)^2 in the intersection, so by at most
// 512 * roundness in the IoU, where the roundness of a box is radius^2 / area: 0.5 for a square, a quarter of the ratio
// of the sides for a long one. Twice that is taken off the threshold, which leaves as much for the bounds' own
// rounding. For boxes so thin that nothing is left, the bounds are those of boxes that touch.
template <class A>
struct RotatedLimits {
  A threshold;
  A of_areas;   // the intersection is above this share of the sum of the areas
  A of_radius;  // |d| < half the side + this share of the other's radius, for the distance d along an axis of either box
  double lowered;

  RotatedLimits(double limit, double roundness) : threshold(round_down<A>(limit)) {
    lowered = limit - roundness * (sizeof(A) == 4 ? 0x1p-14 : 0x1p-43);
    if (!(lowered > 0)) lowered = 0;
    of_areas = lowered > 0 ? static_cast<A>(lowered / (1 + lowered)) : A(-1);
    of_radius = static_cast<A>(1e-5 + (lowered < 0.5 ? 1 - 2 * lowered : 0));
  }
};

// A box under test. Kept boxes that pass the first bound are few and lie apart: they wait until they fill a vector.
template <class A>
struct RotatedCandidate {
  const RotatedBox<A>* boxes;
  RotatedBox<Vector<A>> box;
  Vector<A> threshold, of_areas, of_radius;
  Integer<A> waiting[2 * kLanes<A>];
  int count = 0;  // of those waiting, below kLanes between calls

  RotatedCandidate(const RotatedBox<A>* boxes, const RotatedBox<A>& b, const RotatedLimits<A>& limits)
      : boxes(boxes),
        box{broadcast(b.x),      broadcast(b.y),    broadcast(b.half_width), broadcast(b.half_height),
            broadcast(b.cosine), broadcast(b.sine), broadcast(b.area),       broadcast(b.radius)},
        threshold(broadcast(limits.threshold)),
        of_areas(broadcast(limits.of_areas)),
        of_radius(broadcast(limits.of_radius)) {}

  // Whether a box of blocks [first, last) is found to have an IoU with this one above the threshold.
  bool is_suppressed(const RotatedBlock<A>* first, const RotatedBlock<A>* last) {
    for (; first < last; ++first) {
#pragma GCC unroll 4
      for (int i = 0; i < RotatedBlock<A>::kSize; i += kLanes<A>) {
        const uint32_t near = lanes_near(*first, i);
        pack_lanes(first->index + i, near, waiting + count);
        count += __builtin_popcount(near);
        if (count >= kLanes<A>) {
          if (overlaps(kLanes<A>)) return true;
          count -= kLanes<A>;
          for (int k = 0; k < count; ++k) waiting[k] = waiting[kLanes<A> + k];
        }
      }
    }
    return false;
  }

  // Whether one of those that still wait is.
  bool is_suppressed_at_last() const { return count > 0 && overlaps(count); }

 private:
  FASTCV_INLINE uint32_t lanes_near(const RotatedBlock<A>& kept, int i) const {
    const Vector<A> dx = load(kept.x + i) - box.x, dy = load(kept.y + i) - box.y, area = load(kept.area + i);
    const Vector<A> u = dx * box.cosine - dy * box.sine, v = dx * box.sine + dy * box.cosine;
    const Vector<A> reach = of_radius * load(kept.radius + i);
    const Vector<A> in_x = reach + box.half_width - magnitude_of(u), in_y = reach + box.half_height - magnitude_of(v);
    const Vector<A> alike = least(area, box.area) - of_areas * (area + box.area);
    return lanes_above(least(least(in_x, in_y), alike), Vector<A>{});
  }

  // Whether one of the first `size` that wait has an IoU above the threshold.
  bool overlaps(int size) const {
    A numbers[kRotatedNumbers][kLanes<A>];
    __builtin_memset(numbers, 0xff, sizeof(numbers));  // places that hold no box are NaN: they overlap nothing
    for (int k = 0; k < size; ++k) {
      const RotatedBox<A>& b = boxes[waiting[k]];
      numbers[0][k] = b.x;
      numbers[1][k] = b.y;
      numbers[2][k] = b.half_width;
      numbers[3][k] = b.half_height;
      numbers[4][k] = b.cosine;
      numbers[5][k] = b.sine;
      numbers[6][k] = b.area;
      numbers[7][k] = b.radius;
    }
    const RotatedBox<Vector<A>> kept{load(numbers[0]), load(numbers[1]), load(numbers[2]), load(numbers[3]),
                                     load(numbers[4]), load(numbers[5]), load(numbers[6]), load(numbers[7])};
    return any_above(most_intersection(kept, box), of_areas * (kept.area + box.area)) &&
           any_above(rotated_iou<A>(kept, box), threshold);
  }
};

// For suppress_boxes.
template <class A>
struct RotatedBoxes {
  using Grid = NmsGrid<double, true>;
  using Block = RotatedBlock<A>;
  static constexpr int64_t kListBoxes = 256;
  const RotatedBox<A>* boxes;
  RotatedLimits<A> limits;
  double grid_threshold;

  A area(int64_t i) const { return boxes[i].area; }
  bool is_active(int64_t i) const { return FASTCV_VARIANT::is_active(boxes[i]); }
  Box<double> outline(int64_t i) const {
    const RotatedBox<A>& box = boxes[i];
    const double c = magnitude_of<double>(box.cosine), s = magnitude_of<double>(box.sine);
    const double slack = 1e-5 * box.radius;
    const double half_width = c * box.half_width + s * box.half_height + slack;
    const double half_height = s * box.half_width + c * box.half_height + slack;
    return {box.x - half_width, box.y - half_height, box.x + half_width, box.y + half_height};
  }
  RotatedSides sides(int64_t i) const {
    const RotatedBox<A>& box = boxes[i];
    const double slack = 1e-5 * box.radius;
    return {0.5 * (box.half_width + slack), 0.5 * (box.half_height + slack), box.cosine, box.sine};
  }
  RotatedCandidate<A> candidate(int64_t i) const { return {boxes, boxes[i], limits}; }
  void keep(int64_t i, Block& block, int place) const {
    block.x[place] = boxes[i].x;
    block.y[place] = boxes[i].y;
    block.area[place] = boxes[i].area;
    block.radius[place] = boxes[i].radius;
    block.index[place] = static_cast<Integer<A>>(i);
  }
};

template <class Image, class Members>
void suppress_rotated(const Image& image, const Members& members, double threshold, uint8_t* keep) {
  using A = typename Image::A;
  const Scratch memory(bytes_of<RotatedBox<A>>(members.count));
  RotatedBox<A>* const boxes = memory.as<RotatedBox<A>>();
  double roundness = 0;
  for (int64_t i = 0; i < members.count; ++i) {
    boxes[i] = prepare_rotated_box(image.boxes + image.order[members[i]] * image.stride, image.coordinate_stride);
    if (is_active(boxes[i])) {
      const double radius = boxes[i].radius;
      roundness = greatest(radius * radius / boxes[i].area, roundness);
    }
  }
  const RotatedLimits<A> limits(threshold, roundness);
  suppress_boxes(RotatedBoxes<A>{boxes, limits, limits.lowered}, members, keep);
}

}  // namespace fastcv::FASTCV_VARIANT

// What the kernels of nms see of the boxes: one box in registers, all of them in memory, and who suppresses whom.
#pragma once

#include "core/cuda/warp.cuh"
#include "core/types.h"
#include "ops/nms/nms.h"

namespace fastcv::FASTCV_VARIANT {

constexpr int kGroupLimit = 4096;  // a longer group is left to the tile launches

// A box as the kernels keep it: some numbers, that of the next box next to each.
template <class A>
struct UprightBox {
  using Number = A;
  static constexpr int kNumbers = kUprightNumbers;
  A number[kNumbers];  // x1, y1, x2, y2, area

  template <class T>
  static __device__ UprightBox read(const T* row, int64_t stride) {
    const Box<A> box = read_box(row, stride);
    return {{box.x1, box.y1, box.x2, box.y2, box_area(box)}};
  }
  __device__ Box<A> box() const { return {number[0], number[1], number[2], number[3]}; }
};

template <class A>
struct TurnedBox {
  using Number = A;
  static constexpr int kNumbers = kRotatedNumbers;
  A number[kNumbers];

  template <class T>
  static __device__ TurnedBox read(const T* row, int64_t stride) {
    const RotatedBox<A> box = prepare_rotated_box(row, stride);
    return {{box.x, box.y, box.half_width, box.half_height, box.cosine, box.sine, box.area, box.radius}};
  }
  __device__ RotatedBox<A> box() const {
    return {number[0], number[1], number[2], number[3], number[4], number[5], number[6], number[7]};
  }
};

// Whether a suppresses b. The division waits until a product says that it may matter; see kept_boxes_cpu.h.
template <class A>
__device__ bool suppresses(const UprightBox<A>& a, const UprightBox<A>& b, A threshold) {
  const A intersection = box_intersection(a.box(), b.box());
  const A both = a.number[4] + b.number[4] - intersection;
  return intersection > A(0) && intersection >= threshold * both && intersection / both > threshold;
}
template <class A>
__device__ bool suppresses(const TurnedBox<A>& a, const TurnedBox<A>& b, A threshold) {
  return circles_overlap(a.box(), b.box()) > A(0) && rotated_iou<A>(a.box(), b.box()) > threshold;
}

// Number k of box i lies at numbers[k * stride + i].
template <class B>
FASTCV_HD B load_box(const typename B::Number* numbers, int64_t stride, int64_t i) {
  B box;
  for (int k = 0; k < B::kNumbers; ++k) box.number[k] = numbers[k * stride + i];
  return box;
}
template <class B>
FASTCV_HD void store_box(const B& box, typename B::Number* numbers, int64_t stride, int64_t i) {
  for (int k = 0; k < B::kNumbers; ++k) numbers[k * stride + i] = box.number[k];
}

// The boxes of one image, or of all images one after the other, in order of place; `dropped` is in order of rank.
template <class B>
struct Places {
  using A = typename B::Number;
  A* numbers;
  int64_t stride;  // how many boxes all images have
  int* group;
  int* struck;   // whether a survivor of an earlier tile suppresses the box
  int* dropped;  // the verdict
  unsigned* masks;
  const int64_t* rank;  // null: place and rank are one
  int count;            // of one image
  A threshold;          // rounded down

  __device__ Places of_image(unsigned image) const {
    const int64_t offset = static_cast<int64_t>(image) * count;
    return {numbers + offset,
            stride,
            group + offset,
            struck + offset,
            dropped + offset,
            masks + static_cast<int64_t>(image) * nms_mask_words(count),
            rank != nullptr ? rank + offset : nullptr,
            count,
            threshold};
  }
  __device__ int& dropped_at(int place) const {
    return dropped[rank != nullptr ? static_cast<int>(rank[place]) : place];
  }
  __device__ B box(int place) const { return load_box<B>(numbers, stride, place); }

  // Whether the group that begins at `group` is left to the tile launches.
  __device__ bool is_long(int begin) const {
    return rank == nullptr || (count - begin > kGroupLimit && group[begin + kGroupLimit] == begin);
  }
};

}  // namespace fastcv::FASTCV_VARIANT

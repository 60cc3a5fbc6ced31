// In which order the CPU kernels take regions of interest, and the check of their batch indices. CPU translation units
// only.
#pragma once

#include "core/errors.h"
#include "core/memory.h"
#include "families/roi/roi.h"

namespace fastcv::FASTCV_VARIANT {

// Throws ValueError for a batch index outside [0, batch).
template <int kColumns = kBoxColumns, class A>
void check_batch_indices(const A* boxes, int64_t rois, int64_t batch) {
  for (int64_t k = 0; k < rois; ++k) {
    if (roi_batch_is_valid(boxes[kColumns * k], batch)) continue;
    throw_value_error("boxes[%lld] has batch index %g, which is outside [0, %lld), the batch of the input",
                      static_cast<long long>(k), static_cast<double>(boxes[kColumns * k]),
                      static_cast<long long>(batch));
  }
}

// The RoIs for which member(k) holds, by image and by the row they start in, so that RoIs pooled one after the other
// read the same rows, which the second-level cache then holds. Of rotated boxes, by the row of their centre.
template <class A, int kColumns = kBoxColumns>
class RoiOrder {
 public:
  template <class Member>
  RoiOrder(const A* boxes, int64_t rois, int64_t batch, int64_t height, double spatial_scale, const Member& member)
      : memory_(bytes_of<int64_t>(rois + 1) + bytes_of<int64_t>(batch, height + 1)), order_(memory_.as<int64_t>()) {
    int64_t* first = order_ + rois;
    const int64_t keys = batch * (height + 1);
    const A scale = static_cast<A>(spatial_scale);
    const auto key_of = [&](const A* box) {
      const A row = box[2] * scale;
      const int64_t key = row > A(0) ? row < static_cast<A>(height) ? static_cast<int64_t>(row) : height : 0;
      return static_cast<int64_t>(box[0]) * (height + 1) + key;
    };
    for (int64_t key = 0; key <= keys; ++key) first[key] = 0;
    for (int64_t k = 0; k < rois; ++k) {
      if (member(k)) ++first[key_of(boxes + kColumns * k) + 1];
    }
    for (int64_t key = 0; key < keys; ++key) first[key + 1] += first[key];
    count_ = first[keys];
    for (int64_t k = 0; k < rois; ++k) {
      if (member(k)) order_[first[key_of(boxes + kColumns * k)]++] = k;
    }
  }
  int64_t operator[](int64_t i) const { return order_[i]; }
  int64_t count() const { return count_; }

 private:
  Scratch memory_;
  int64_t* order_;
  int64_t count_;
};

}  // namespace fastcv::FASTCV_VARIANT

// The boxes of an image by where they are, so that a survivor meets its neighbours alone.
//
// A box lies in one cell: that of its corner (x1, y1) in the grid of its level, whose cells are 2^level wide, the least
// power of two above the box's longer side. What a box a suppresses has a side of at least threshold times a's and at
// most a's over threshold, and its corner lies between a's corner less one cell and a's far corner. So a looks at the
// levels from one size to the other and there at (side / cell + 2)^2 cells. For a threshold of 0.5 those are 60. Bounds
// are generous by 1/1000; numbers for which that is not enough (areas near the least that there are) make a box wild: it
// lies in a place of its own, meets all, and all meet it.
//
// Cells hash to as many buckets as there are boxes or up to twice as many. Boxes of a bucket lie side by side in
// `items`, in the order of arrival, on which nothing depends: what is found is struck, whoever finds it.
#pragma once

#include "core/cuda/atomic.cuh"
#include "core/cuda/warp.cuh"
#include "core/hash.h"
#include "ops/nms/nms_boxes.cuh"

namespace fastcv::FASTCV_VARIANT {

template <class A>
struct SpaceLimits;
template <>
struct SpaceLimits<float> {
  using Bits = uint32_t;
  static constexpr int kMantissa = 23, kBias = 127;
  static constexpr float kLeastArea = 8.7e-19f;  // 2^-60
};
template <>
struct SpaceLimits<double> {
  using Bits = uint64_t;
  static constexpr int kMantissa = 52, kBias = 1023;
  static constexpr double kLeastArea = 3e-151;  // 2^-500
};

template <class A>
struct Space {
  using Box = UprightBox<A>;
  using Limits = SpaceLimits<A>;
  using Bits = typename Limits::Bits;
  static constexpr int kMostLevel = Limits::kBias - 1;  // larger boxes are wild

  int *begin, *end;  // of each bucket in items, and at [buckets] of the wild boxes
  int* items;        // places
  int* filled;       // how many of the items have a bucket
  int64_t buckets;   // a power of two
  int count;         // boxes of an image

  __device__ Space of_image(unsigned image) const {
    const int64_t offset = image * (buckets + 1);
    return {begin + offset, end + offset, items + static_cast<int64_t>(image) * count, filled + image, buckets, count};
  }

  // The least level for a side: 2^level is above it. Sides below 2^-kMostLevel share one level.
  __device__ static int level_of(A side) {
    return static_cast<int>(bit_cast<Bits>(side) >> Limits::kMantissa) - Limits::kBias + 1;
  }
  __device__ static A side_of(const Box& box) {
    return greatest(box.number[2] - box.number[0], box.number[3] - box.number[1]);
  }
  __device__ static bool is_wild(const Box& box) {
    return box.number[4] < Limits::kLeastArea || level_of(side_of(box)) > kMostLevel;
  }
  // The cell of a coordinate, which is less than 2^25 (2^54) cells of its box's own level away from 0.
  __device__ static int64_t cell_of(A coordinate, int level) {
    const A scaled = coordinate * bit_cast<A>(static_cast<Bits>(Limits::kBias - level) << Limits::kMantissa);
    const int64_t cell = static_cast<int64_t>(scaled);
    return static_cast<A>(cell) > scaled ? cell - 1 : cell;
  }
  __device__ int64_t bucket_of(int64_t x, int64_t y, int level, int group) const {
    const uint64_t row = hash_key(static_cast<uint64_t>(y) * 4096 + static_cast<uint64_t>(level + 2048));
    const uint64_t key = row + static_cast<uint64_t>(x) + (static_cast<uint64_t>(group) << 40);
    return static_cast<int64_t>(hash_key(key) & static_cast<uint64_t>(buckets - 1));
  }
  // Where a box is kept; -1 for one that takes no part.
  __device__ int64_t bucket_of(const Box& box, int group) const {
    if (!is_active(box.box(), box.number[4])) return -1;
    if (is_wild(box)) return buckets;
    const int level = level_of(side_of(box));
    return bucket_of(cell_of(box.number[0], level), cell_of(box.number[1], level), level, group);
  }
};

// Strikes the places of [first, ...) of a box's group that it suppresses. For one warp.
template <class A>
struct Striker {
  const Places<UprightBox<A>>& places;
  const Space<A>& space;
  int first, group;

  __device__ void strike(const UprightBox<A>& box, int place) const {
    const UprightBox<A> other = places.box(place);  // all is asked for at once: one wait
    const bool open = (places.struck[place] == 0) & (places.group[place] == group) & (place >= first);
    if (open && suppresses(box, other, places.threshold)) places.struck[place] = 1;
  }

  // The items of up to 32 buckets, one of each lane (-1: none), shared out among the lanes.
  __device__ void strike_buckets(const UprightBox<A>& box, int64_t bucket) const {
    const int lane = static_cast<int>(lane_id()), begin = bucket < 0 ? 0 : space.begin[bucket];
    int before = bucket < 0 ? 0 : space.end[bucket] - begin;  // then with all lanes before
    const int own = before;
    for (unsigned delta = 1; delta < kWarpSize; delta *= 2) {
      const int other = warp_shuffle_up(kFullMask, before, delta);
      if (lane >= static_cast<int>(delta)) before += other;
    }
    const int all = warp_shuffle(kFullMask, before, kWarpSize - 1), start = begin - (before - own);
    for (int base = 0; base < all; base += static_cast<int>(kWarpSize)) {
      const int item = base + lane;
      int owner = 0;  // the first lane whose sum is above the item
      for (int half = kWarpSize / 2; half > 0; half /= 2) {
        if (warp_shuffle(kFullMask, before, owner + half - 1) <= item) owner += half;
      }
      const int from = warp_shuffle(kFullMask, start, owner);
      if (item < all) strike(box, space.items[from + item]);
    }
  }

  __device__ void strike_around(const UprightBox<A>& box) const {
    using S = Space<A>;
    if (!is_active(box.box(), box.number[4])) return;
    const int lane = static_cast<int>(lane_id());
    if (S::is_wild(box)) {
      for (int place = first + lane; place < places.count && places.group[place] == group; place += 32) {
        strike(box, place);
      }
      return;
    }
    constexpr A kMargin = A(1) / 1024;
    const A side = S::side_of(box);
    const int least_level = S::level_of(side * places.threshold * (A(1) - kMargin));
    const int most_level = least(S::level_of(side / places.threshold * (A(1) + kMargin)), S::kMostLevel);
    for (int level = least_level; level <= most_level; ++level) {
      const int64_t x = S::cell_of(box.number[0], level) - 1, y = S::cell_of(box.number[1], level) - 1;
      const int columns = static_cast<int>(S::cell_of(box.number[2], level) - x) + 1;
      const int cells = columns * (static_cast<int>(S::cell_of(box.number[3], level) - y) + 1);
      for (int base = 0; base < cells; base += static_cast<int>(kWarpSize)) {
        const int cell = base + lane;
        strike_buckets(box, cell < cells ? space.bucket_of(x + cell % columns, y + cell / columns, level, group) : -1);
      }
    }
    strike_buckets(box, lane == 0 ? space.buckets : -1);  // the wild ones
  }
};

}  // namespace fastcv::FASTCV_VARIANT

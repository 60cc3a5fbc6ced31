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

constexpr int kSpaceBlock = 256, kSpaceSamples = 256;

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
  int* met;          // how many boxes a sample of kSpaceSamples would meet
  int64_t buckets;   // a power of two
  int count;         // boxes of an image

  __device__ Space of_image(unsigned image) const {
    const int64_t offset = image * (buckets + 1);
    return {begin + offset, end + offset, items + static_cast<int64_t>(image) * count, filled + image, met + image,
            buckets,        count};
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
  // Whether to look for neighbours pays: a box that is met so costs as much as ten of those behind a tile.
  __device__ bool is_sparse() const {
    return static_cast<int64_t>(*met) * 10 < static_cast<int64_t>(count) * kSpaceSamples;
  }

  // The cells in which a box of a level can lie that the box may suppress: a rectangle from (x, y) on.
  struct Cells {
    int64_t x, y;
    int columns, count;

    __device__ Cells(const Box& box, int level)
        : x(cell_of(box.number[0], level) - 1),
          y(cell_of(box.number[1], level) - 1),
          columns(static_cast<int>(cell_of(box.number[2], level) - x) + 1),
          count(columns * (static_cast<int>(cell_of(box.number[3], level) - y) + 1)) {}
  };
  // The levels of boxes that it may suppress.
  struct Levels {
    int first, last;

    __device__ Levels(const Box& box, A threshold)
        : first(level_of(side_of(box) * threshold * (A(1) - kMargin))),
          last(least(level_of(side_of(box) / threshold * (A(1) + kMargin)), kMostLevel)) {}
    static constexpr A kMargin = A(1) / 1024;
  };
  __device__ int64_t bucket_of(const Cells& cells, int cell, int level, int group) const {
    return bucket_of(cells.x + cell % cells.columns, cells.y + cell / cells.columns, level, group);
  }

  // How many boxes it would meet, at most 2^23, so that numbers of a sample can be added.
  __device__ int count_around(const Box& box, int group, A threshold) const {
    constexpr int kMost = (1 << 23) - 1;
    if (!is_active(box.box(), box.number[4])) return 0;
    if (is_wild(box)) return least(count, kMost);
    int64_t met_here = end[buckets] - begin[buckets];
    const Levels levels(box, threshold);
    for (int level = levels.first; level <= levels.last; ++level) {
      const Cells cells(box, level);
      for (int cell = 0; cell < cells.count; ++cell) {
        const int64_t bucket = bucket_of(cells, cell, level, group);
        met_here += end[bucket] - begin[bucket];
      }
    }
    return static_cast<int>(least<int64_t>(met_here, kMost));
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
    const typename S::Levels levels(box, places.threshold);
    for (int level = levels.first; level <= levels.last; ++level) {
      const typename S::Cells cells(box, level);
      for (int base = 0; base < cells.count; base += static_cast<int>(kWarpSize)) {
        const int cell = base + lane;
        strike_buckets(box, cell < cells.count ? space.bucket_of(cells, cell, level, group) : -1);
      }
    }
    strike_buckets(box, lane == 0 ? space.buckets : -1);  // the wild ones
  }
};

// The buckets: emptied, counted into `end`, laid out one behind the other, filled.
template <class A>
__global__ void __launch_bounds__(kSpaceBlock, 2) space_empty_kernel(const Space<A> everywhere) {
  const auto space = everywhere.of_image(blockIdx.y);
  const int64_t bucket = static_cast<int64_t>(blockIdx.x) * kSpaceBlock + threadIdx.x;
  if (bucket <= space.buckets) space.end[bucket] = 0;
  if (bucket == 0) *space.filled = *space.met = 0;
}

template <class A, bool kFills>
__global__ void __launch_bounds__(kSpaceBlock, 2)
    space_fill_kernel(const Places<UprightBox<A>> all, const Space<A> everywhere) {
  const auto places = all.of_image(blockIdx.y);
  const auto space = everywhere.of_image(blockIdx.y);
  const int64_t place = static_cast<int64_t>(blockIdx.x) * kSpaceBlock + threadIdx.x;
  if (place >= places.count) return;
  const int64_t bucket = space.bucket_of(places.box(static_cast<int>(place)), places.group[place]);
  if (bucket < 0) return;
  const int at = atomic_add(&space.end[bucket], 1);
  if (kFills) space.items[at] = static_cast<int>(place);
}

template <class A>
__global__ void __launch_bounds__(kSpaceBlock, 2) space_begin_kernel(const Space<A> everywhere) {
  const auto space = everywhere.of_image(blockIdx.y);
  const int64_t bucket = static_cast<int64_t>(blockIdx.x) * kSpaceBlock + threadIdx.x;
  const int own = bucket <= space.buckets ? space.end[bucket] : 0;
  int sum = own;
  for (unsigned delta = 1; delta < kWarpSize; delta *= 2) {
    const int other = warp_shuffle_up(kFullMask, sum, delta);
    if (lane_id() >= delta) sum += other;
  }
  int first = lane_id() == kWarpSize - 1 ? atomic_add(space.filled, sum) : 0;
  first = warp_shuffle(kFullMask, first, kWarpSize - 1) + sum - own;
  if (bucket <= space.buckets) space.begin[bucket] = space.end[bucket] = first;
}

// One block looks up how many boxes a sample of kSpaceSamples would meet.
template <class A>
__global__ void __launch_bounds__(kSpaceSamples, 1)
    space_sample_kernel(const Places<UprightBox<A>> all, const Space<A> everywhere) {
  const auto places = all.of_image(blockIdx.x);
  const auto space = everywhere.of_image(blockIdx.x);
  const int64_t place = static_cast<int64_t>(threadIdx.x) * places.count / kSpaceSamples;
  const int met = space.count_around(places.box(static_cast<int>(place)), places.group[place], places.threshold);
  const int sum = warp_reduce_sum(met);
  if (lane_id() == 0) atomic_add(space.met, sum);
}

}  // namespace fastcv::FASTCV_VARIANT

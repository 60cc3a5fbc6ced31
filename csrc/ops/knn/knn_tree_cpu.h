// A point cloud as a tree for nearest neighbours: leaves of kLeafPoints points that lie together, each with the box
// around them, kFan neighbouring leaves in a node with a box of its own, and so on up to at most kFan nodes. Clouds of
// any density are cut evenly, by their points: what holds many of them is cut at the median of its longest side.
//
// Boxes prune as in point_blocks_cpu.h: their distances round like those of points, so pruning changes no decision.
// CPU translation units only.
//
// Napkin maths, 100 000 points in float32: 12 cuts of all points, two passes each of about 4 cycles a point, 10 M
// cycles, 3 ms at 3 GHz.
#pragma once

#include "core/memory.h"
#include "families/point/point_blocks_cpu.h"

namespace fastcv::FASTCV_VARIANT {

constexpr int64_t kLeafPoints = 32, kFan = 16;

// The points that are cut; aligned, so that one is moved at once.
template <class A>
struct alignas(4 * sizeof(A)) TreePoint {
  A at[3];
  int32_t index;
};

// The value of `rank` of `count` along the axis as a few of the points tell it: one of their values.
template <class A>
A likely_value(const TreePoint<A>* points, int64_t count, int64_t rank, int axis) {
  constexpr int64_t kMost = 24, kFew = 5, kMany = 1000;
  const int64_t taken = count > kMany ? kMost : least(count, kFew);
  A sample[kMost] = {};
  for (int64_t i = 0; i < taken; ++i) {
    const A value = points[(2 * i + 1) * count / (2 * taken)].at[axis];
    int64_t j = i;
    for (; j > 0 && value < sample[j - 1]; --j) sample[j] = sample[j - 1];
    sample[j] = value;
  }
  return sample[rank * taken / count];
}

// Moves points below `limit` (or at it, too) to the front and returns how many they are. No branch depends on them.
template <bool kInclusive, class A>
int64_t move_to_front(TreePoint<A>* points, int64_t count, A limit, int axis) {
  int64_t front = 0;
  for (int64_t i = 0; i < count; ++i) {
    const TreePoint<A> point = points[i];
    const bool goes = kInclusive ? point.at[axis] <= limit : point.at[axis] < limit;
    points[i] = points[front];
    points[front] = point;
    front += goes ? 1 : 0;
  }
  return front;
}

// Moves the points so that the first `rank` are no greater along the axis than the others.
template <class A>
void cut_at(TreePoint<A>* points, int64_t count, int64_t rank, int axis) {
  while (rank > 0 && rank < count) {
    const A limit = likely_value(points, count, rank, axis);
    const int64_t below = move_to_front<false>(points, count, limit, axis);
    if (rank <= below) {
      count = below;
      continue;
    }
    // Where none was below, there is at least one that is equal.
    const int64_t done = below > 0 ? below : move_to_front<true>(points, count, limit, axis);
    if (rank <= done) return;
    points += done;
    rank -= done;
    count -= done;
  }
}

// The axis along which the points, or many of them, extend most.
template <class A>
int longest_axis(const TreePoint<A>* points, int64_t count) {
  constexpr int64_t kMost = 256;
  const int64_t step = ceil_div(count, kMost);
  int longest = 0;
  A most = A(-1);
  for (int axis = 0; axis < 3; ++axis) {
    A low = points[0].at[axis], high = low;
    for (int64_t i = step; i < count; i += step) {
      low = least(points[i].at[axis], low);
      high = greatest(points[i].at[axis], high);
    }
    if (high - low > most) {
      most = high - low;
      longest = axis;
    }
  }
  return longest;
}

// Sorts points into leaves: all but the last are full, and groups of kFan, kFan^2 ... leaves are parts of the tree. What
// has `enough` points or fewer is not cut.
template <class A>
void sort_into_leaves(TreePoint<A>* points, int64_t count, int64_t enough) {
  while (count > enough) {
    const int64_t leaves = ceil_div(count, kLeafPoints);
    int64_t unit = 1;
    while (unit * kFan < leaves) unit *= kFan;
    const int64_t half = leaves / 2 / unit * unit;
    const int64_t first = greatest(half, unit) * kLeafPoints;
    cut_at(points, count, first, longest_axis(points, count));
    sort_into_leaves(points, first, enough);
    points += first;
    count -= first;
  }
}

template <class A>
struct PointTree {
  static constexpr int kMostLevels = 8;  // of 2^31 points

  // The boxes of one level, whole nodes; those behind the last are at infinity, where they are near to nothing.
  struct Level {
    int64_t boxes, padded;
    A *low_x, *low_y, *low_z, *high_x, *high_y, *high_z;

    void place(int64_t count, A* memory) {
      boxes = count;
      padded = round_up(count, kFan);
      low_x = memory, low_y = low_x + padded, low_z = low_y + padded;
      high_x = low_z + padded, high_y = high_x + padded, high_z = high_y + padded;
    }
    A* end() const { return high_z + padded; }
    void set(int64_t box, const Point<A>& low, const Point<A>& high) const {
      low_x[box] = low.x, low_y[box] = low.y, low_z[box] = low.z;
      high_x[box] = high.x, high_y[box] = high.y, high_z[box] = high.z;
    }
    // From a place to kLanes<A> boxes, from `first` on.
    Vector<A> distances(const Point<Vector<A>>& p, int64_t first) const {
      return squared_length(box_gap(p.x, low_x + first, high_x + first), box_gap(p.y, low_y + first, high_y + first),
                            box_gap(p.z, low_z + first, high_z + first));
    }
  };

  int64_t points, levels;
  A *x, *y, *z;    // (leaves * kLeafPoints): the places behind the last point are at infinity
  int32_t* index;  // (leaves * kLeafPoints) of the point in the cloud
  Level level[kMostLevels];

  static size_t bytes_for(int64_t count) {
    int64_t boxes = ceil_div(count, kLeafPoints);
    size_t bytes = bytes_of<A>(3, boxes, kLeafPoints) + bytes_of<int32_t>(boxes, kLeafPoints);
    for (bool more = true; more; boxes = ceil_div(boxes, kFan)) {
      bytes += bytes_of<A>(6, round_up(boxes, kFan));
      more = boxes > kFan;
    }
    return round_up(bytes, size_t{64});
  }

  // Puts `count` points into `memory` (bytes_for(count), 64-byte aligned); those that are not finite are left out. For
  // few queries it takes longer to sort than to look at more points.
  template <class T>
  void build(const T* cloud, int64_t count, int64_t queries, void* memory);

 private:
  void fill_leaves(const TreePoint<A>* sorted);
};

template <class A>
template <class T>
void PointTree<A>::build(const T* cloud, int64_t count, int64_t queries, void* memory) {
  const Scratch sort_memory(bytes_of<TreePoint<A>>(count));
  TreePoint<A>* sorted = sort_memory.as<TreePoint<A>>();
  points = 0;
  for (int64_t i = 0; i < count; ++i) {
    const Point<A> p = read_point(cloud, i);
    if (is_finite(p)) sorted[points++] = {{p.x, p.y, p.z}, static_cast<int32_t>(i)};
  }
  constexpr int64_t kPieces = 6;  // that a query looks into, of those that are not cut
  const int64_t enough = kPieces * points / greatest(queries, int64_t{1});
  sort_into_leaves(sorted, points, greatest(enough, kLeafPoints));
  int64_t boxes = ceil_div(points, kLeafPoints);
  const int64_t places = boxes * kLeafPoints;
  x = static_cast<A*>(memory), y = x + places, z = y + places;
  A* free = z + places;
  levels = 0;
  for (bool more = true; more; boxes = ceil_div(boxes, kFan)) {
    level[levels].place(boxes, free);
    free = level[levels++].end();
    more = boxes > kFan;
  }
  index = reinterpret_cast<int32_t*>(free);
  fill_leaves(sorted);

  const A infinity = static_cast<A>(__builtin_inff());
  for (int64_t l = 0; l < levels; ++l) {
    const Level& here = level[l];
    for (int64_t b = here.boxes; b < here.padded; ++b) {
      here.set(b, {infinity, infinity, infinity}, {infinity, infinity, infinity});
    }
    for (int64_t b = 0; l > 0 && b < here.boxes; ++b) {
      const Level& below = level[l - 1];
      Point<A> low{infinity, infinity, infinity}, high{-infinity, -infinity, -infinity};
      const int64_t end = least((b + 1) * kFan, below.boxes);
      for (int64_t i = b * kFan; i < end; ++i) {
        low = {least(below.low_x[i], low.x), least(below.low_y[i], low.y), least(below.low_z[i], low.z)};
        high = {greatest(below.high_x[i], high.x), greatest(below.high_y[i], high.y),
                greatest(below.high_z[i], high.z)};
      }
      here.set(b, low, high);
    }
  }
}

template <class A>
void PointTree<A>::fill_leaves(const TreePoint<A>* sorted) {
  const A infinity = static_cast<A>(__builtin_inff());
  for (int64_t b = 0; b < level[0].boxes; ++b) {
    Point<A> low{infinity, infinity, infinity}, high{-infinity, -infinity, -infinity};
    for (int64_t i = b * kLeafPoints; i < (b + 1) * kLeafPoints; ++i) {
      if (i >= points) {
        x[i] = y[i] = z[i] = infinity;
        index[i] = INT32_MAX;
        continue;
      }
      const A* at = sorted[i].at;
      x[i] = at[0], y[i] = at[1], z[i] = at[2];
      index[i] = sorted[i].index;
      low = {least(at[0], low.x), least(at[1], low.y), least(at[2], low.z)};
      high = {greatest(at[0], high.x), greatest(at[1], high.y), greatest(at[2], high.z)};
    }
    level[0].set(b, low, high);
  }
}

}  // namespace fastcv::FASTCV_VARIANT

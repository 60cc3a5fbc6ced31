// A point cloud in blocks of neighbouring points, each with the box around it, for searches that skip what is far away.
//
// The finite points are sorted along a Morton curve and cut into blocks of kBlockPoints; the others are left out. The
// distance from a place to a box is computed with the operations of squared_distance, each of which rounds
// monotonically: it is never greater than the computed distance to a point inside. So pruning changes no decision.
// CPU translation units only.
#pragma once

#include "core/memory.h"
#include "core/radix_sort_cpu.h"
#include "core/simd.h"
#include "families/point/point.h"

namespace fastcv::FASTCV_VARIANT {

constexpr int kBlockPoints = 64;

template <class A>
inline Point<Vector<A>> broadcast_point(const Point<A>& p) {
  return {broadcast(p.x), broadcast(p.y), broadcast(p.z)};
}

// How far a coordinate is from those of boxes.
template <class A>
FASTCV_INLINE Vector<A> box_gap(Vector<A> p, const A* low, const A* high) {
  const Vector<A> below = load(low) - p, above = p - load(high);
  const Vector<A> outside = greatest(below, above);
  return outside > Vector<A>{} ? outside : Vector<A>{};
}

template <class A>
struct PointBlocks {
  int64_t points, blocks, padded_blocks;
  A *x, *y, *z;    // (blocks * kBlockPoints): the places behind the last point are at infinity
  int32_t* index;  // (blocks * kBlockPoints) of the point in the cloud; INT32_MAX behind the last
  A *low_x, *low_y, *low_z, *high_x, *high_y, *high_z;  // (padded_blocks), whole vectors; also filled up with infinity

  static int64_t padded_for(int64_t points) {
    const int64_t blocks = ceil_div(points, kBlockPoints);
    return round_up(blocks, kLanes<A>);
  }
  static size_t bytes_for(int64_t points) {
    const int64_t blocks = ceil_div(points, kBlockPoints);
    const size_t bytes = bytes_of<A>(3, blocks, kBlockPoints) + bytes_of<int32_t>(blocks, kBlockPoints) +
                         bytes_of<A>(6, padded_for(points));
    return round_up(bytes, size_t{64});
  }

  // Distances from a place to kLanes<A> boxes, from `first` on.
  Vector<A> box_distances(const Point<Vector<A>>& p, int64_t first) const {
    return squared_length(box_gap(p.x, low_x + first, high_x + first), box_gap(p.y, low_y + first, high_y + first),
                          box_gap(p.z, low_z + first, high_z + first));
  }
  // Distances from a place to kLanes<A> points, from `first` on.
  Vector<A> distances(const Point<Vector<A>>& p, int64_t first) const {
    return squared_distance(Point<Vector<A>>{load(x + first), load(y + first), load(z + first)}, p);
  }

  // Sorts `count` points into `memory` (bytes_for(count), 64-byte aligned).
  template <class T>
  void build(const T* cloud, int64_t count, void* memory);
};

// The bits of a 10-bit number, two zeros after each.
inline uint32_t spread_bits(uint32_t v) {
  v = (v | v << 16) & 0x030000ffu;
  v = (v | v << 8) & 0x0300f00fu;
  v = (v | v << 4) & 0x030c30c3u;
  return (v | v << 2) & 0x09249249u;
}

template <class A>
uint32_t morton_cell(A offset, A scale) {
  const A cell = offset * scale;  // NaN and infinity where the cloud is larger than the largest number
  return spread_bits(cell > A(0) ? cell < A(1023) ? static_cast<uint32_t>(cell) : 1023u : 0u);
}

template <class A>
template <class T>
void PointBlocks<A>::build(const T* cloud, int64_t count, void* memory) {
  const Scratch sort_memory(bytes_of<uint32_t>(4, count));
  uint32_t *keys = sort_memory.as<uint32_t>(), *order = keys + count;
  uint32_t *spare_keys = order + count, *spare_order = spare_keys + count;
  const A infinity = static_cast<A>(__builtin_inff());
  Point<A> low{infinity, infinity, infinity}, high{-infinity, -infinity, -infinity};
  points = 0;
  for (int64_t i = 0; i < count; ++i) {
    const Point<A> p = read_point(cloud, i);
    if (!is_finite(p)) continue;
    low = {least(p.x, low.x), least(p.y, low.y), least(p.z, low.z)};
    high = {greatest(p.x, high.x), greatest(p.y, high.y), greatest(p.z, high.z)};
    order[points++] = static_cast<uint32_t>(i);
  }
  A extent = high.x - low.x;
  extent = greatest(high.y - low.y, extent);
  extent = greatest(high.z - low.z, extent);
  const A scale = extent > A(0) ? A(1023.5) / extent : A(0);
  for (int64_t i = 0; i < points; ++i) {
    const Point<A> p = read_point(cloud, order[i]);
    keys[i] =
        morton_cell(p.x - low.x, scale) | morton_cell(p.y - low.y, scale) << 1 | morton_cell(p.z - low.z, scale) << 2;
  }
  radix_sort(points, keys, order, spare_keys, spare_order);

  blocks = ceil_div(points, kBlockPoints);
  padded_blocks = padded_for(points);
  const int64_t places = blocks * kBlockPoints;
  x = static_cast<A*>(memory), y = x + places, z = y + places;
  low_x = z + places, low_y = low_x + padded_blocks, low_z = low_y + padded_blocks;
  high_x = low_z + padded_blocks, high_y = high_x + padded_blocks, high_z = high_y + padded_blocks;
  index = reinterpret_cast<int32_t*>(high_z + padded_blocks);
  for (int64_t i = 0; i < places; ++i) {
    const bool inside = i < points;
    const Point<A> p = inside ? read_point(cloud, order[i]) : Point<A>{infinity, infinity, infinity};
    x[i] = p.x, y[i] = p.y, z[i] = p.z;
    index[i] = inside ? static_cast<int32_t>(order[i]) : INT32_MAX;
  }
  for (int64_t b = 0; b < padded_blocks; ++b) {
    low = {infinity, infinity, infinity};
    high = b < blocks ? Point<A>{-infinity, -infinity, -infinity} : low;
    const int64_t end = (b + 1) * kBlockPoints < points ? (b + 1) * kBlockPoints : points;
    for (int64_t i = b * kBlockPoints; i < end; ++i) {
      low = {least(x[i], low.x), least(y[i], low.y), least(z[i], low.z)};
      high = {greatest(x[i], high.x), greatest(y[i], high.y), greatest(z[i], high.z)};
    }
    low_x[b] = low.x, low_y[b] = low.y, low_z[b] = low.z;
    high_x[b] = high.x, high_y[b] = high.y, high_z[b] = high.z;
  }
}

}  // namespace fastcv::FASTCV_VARIANT

// Farthest point sampling on the CPU.
//
// The cloud is sorted into blocks of neighbouring points (families/point/point_blocks_cpu.h), each with the greatest
// d(i) inside. A new choice can lower d(i) only in blocks whose box is nearer to it than that; all others are skipped,
// which after the first choices is nearly all of them. The result is that of the plain algorithm, bit for bit: the
// distance to a box is never greater than the computed distance to a point inside. Clouds are shared out among the
// threads.
//
// Napkin maths, 16 384 points, k = 4096, float32: 256 boxes are 16 vectors x 25 instructions a choice (distance, test,
// maximum); about 15 blocks are updated, 60 vectors x 12 instructions. 1200 instructions, 0.2 us; in all 0.8 ms. The
// plain algorithm takes 1024 vectors x 12 instructions a choice, ten times as many.
#include "core/parallel.h"
#include "families/point/point_blocks_cpu.h"
#include "ops/farthest_point_sample/farthest_point_sample.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

// d(i) of every place of the blocks, and of every block the greatest and the point that has it.
template <class A>
struct Sampler {
  const PointBlocks<A>& cloud;
  A* nearest;            // (blocks * kBlockPoints); -1 for chosen points and behind the last
  A* greatest;           // (padded_blocks); -1 where nothing is left
  int32_t* greatest_at;  // (padded_blocks): a place

  static size_t bytes_for(const PointBlocks<A>& cloud) {
    return bytes_of<A>(cloud.blocks, kBlockPoints) + bytes_of<A>(cloud.padded_blocks) +
           bytes_of<int32_t>(cloud.padded_blocks);
  }

  Sampler(const PointBlocks<A>& cloud, void* memory) : cloud(cloud) {
    const int64_t places = cloud.blocks * kBlockPoints;
    nearest = static_cast<A*>(memory);
    greatest = nearest + places;
    greatest_at = reinterpret_cast<int32_t*>(greatest + cloud.padded_blocks);
    const A infinity = static_cast<A>(__builtin_inff());
    for (int64_t i = 0; i < places; ++i) nearest[i] = i < cloud.points ? infinity : A(-1);
    for (int64_t b = 0; b < cloud.padded_blocks; ++b) {
      greatest[b] = b < cloud.blocks ? infinity : A(-1);
      int64_t at = b * kBlockPoints;  // of the lowest index: a block at an infinite distance is never updated
      for (int64_t i = at + 1; b < cloud.blocks && i < (b + 1) * kBlockPoints; ++i) {
        at = cloud.index[i] < cloud.index[at] ? i : at;
      }
      greatest_at[b] = static_cast<int32_t>(at);
    }
  }

  // Lowers d in a block and finds its greatest.
  void update_block(const Point<Vector<A>>& chosen, int64_t block) {
    const int64_t begin = block * kBlockPoints;
    Vector<A> most = broadcast(A(-1));
    for (int64_t first = begin; first < begin + kBlockPoints; first += kLanes<A>) {
      const Vector<A> distance = cloud.distances(chosen, first), before = load(nearest + first);
      const Vector<A> now = least(distance, before);
      store(nearest + first, now);
      most = now > most ? now : most;
    }
    A value = most[0];
    for (int i = 1; i < kLanes<A>; ++i) value = most[i] > value ? most[i] : value;
    greatest[block] = value;
    int32_t at = 0, lowest = INT32_MAX;
    for (int64_t first = begin; first < begin + kBlockPoints; first += kLanes<A>) {
      for (uint32_t equal = lane_bits(load(nearest + first) == broadcast(value)); equal != 0; equal &= equal - 1) {
        const int32_t place = static_cast<int32_t>(first) + __builtin_ctz(equal);
        if (cloud.index[place] >= lowest) continue;
        lowest = cloud.index[place];
        at = place;
      }
    }
    greatest_at[block] = at;
  }

  // Takes the point at a place, and returns the place of the next one, -1 when none is left.
  int64_t choose(int64_t place) {
    nearest[place] = A(-1);
    const Point<Vector<A>> chosen = broadcast_point(Point<A>{cloud.x[place], cloud.y[place], cloud.z[place]});
    const int64_t own = place / kBlockPoints;
    update_block(chosen, own);
    Vector<A> most = broadcast(A(-1));
    for (int64_t b = 0; b < cloud.padded_blocks; b += kLanes<A>) {
      const Vector<A> distance = cloud.box_distances(chosen, b);
      for (uint32_t near = lane_bits(distance < load(greatest + b)); near != 0; near &= near - 1) {
        const int64_t block = b + __builtin_ctz(near);
        if (block != own) update_block(chosen, block);
      }
      const Vector<A> now = load(greatest + b);
      most = now > most ? now : most;
    }
    A value = most[0];
    for (int i = 1; i < kLanes<A>; ++i) value = most[i] > value ? most[i] : value;
    if (value < A(0)) return -1;
    int64_t next = -1;
    for (int64_t b = 0; b < cloud.padded_blocks; b += kLanes<A>) {
      for (uint32_t equal = lane_bits(load(greatest + b) == broadcast(value)); equal != 0; equal &= equal - 1) {
        const int64_t candidate = greatest_at[b + __builtin_ctz(equal)];
        if (next < 0 || cloud.index[candidate] < cloud.index[next]) next = candidate;
      }
    }
    return next;
  }
};

// The place of the first choice: that of point `start`, or else of the first point there is.
template <class A>
int64_t first_place(const PointBlocks<A>& cloud, int64_t start) {
  int64_t first = 0;
  for (int64_t place = 0; place < cloud.points; ++place) {
    if (cloud.index[place] == start) return place;
    if (cloud.index[place] < cloud.index[first]) first = place;
  }
  return first;
}

template <class T>
void sample(const FarthestPointSampleParams& p) {
  using A = Accumulate<T>;
  parallel_for(p.batch, 1, [&](int64_t b, int64_t) {
    const int64_t length = cloud_length(p.lengths, b, p.count);
    const Scratch cloud_memory(PointBlocks<A>::bytes_for(length));
    PointBlocks<A> cloud;
    cloud.build(static_cast<const T*>(p.points) + 3 * b * p.count, length, cloud_memory.as<char>());
    int64_t* indices = p.indices + b * p.k;
    int64_t chosen = 0;
    if (cloud.points > 0) {
      const Scratch memory(Sampler<A>::bytes_for(cloud));
      Sampler<A> sampler(cloud, memory.as<char>());
      int64_t place = first_place(cloud, p.starts == nullptr ? p.start : p.starts[b]);
      while (place >= 0 && chosen < p.k) {
        indices[chosen++] = cloud.index[place];
        if (chosen < p.k) place = sampler.choose(place);
      }
    }
    for (; chosen < p.k; ++chosen) indices[chosen] = -1;
  });
}

}  // namespace

void farthest_point_sample_cpu(const FarthestPointSampleParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { sample<typename decltype(tag)::type>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

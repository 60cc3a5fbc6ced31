// Nearest neighbours on the CPU.
//
// Clouds are sorted into blocks of neighbouring points (families/point/point_blocks_cpu.h). A query computes its
// distances to the boxes of all blocks, looks into the nearest block first, and then into all others that may hold a
// point nearer than the k-th best so far. The k best are kept sorted by distance and index, so that the order of
// looking changes nothing.
//
// Napkin maths, 20 000 queries in 20 000 points, k = 16, float32: 313 boxes are 20 vectors x 14 instructions, and the
// ten or so blocks looked into 40 vectors x 8 instructions and 50 insertions x 20: 1600 instructions a query, 32 M in
// all, 5 ms at two an instruction cycle of 3 GHz. Without blocks: 1250 vectors x 8 instructions, six times as many.
#include "core/parallel.h"
#include "families/point/point_blocks_cpu.h"
#include "ops/knn/knn.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int64_t kQueriesPerTask = 64;

// The k best so far, ascending by distance, then index.
template <class A>
struct Nearest {
  A* distances;
  int32_t* indices;
  int64_t k;
  int64_t count = 0;
  A bound;  // no candidate farther than this is wanted

  // Whether `distance`, `index` comes before the entry `at`.
  bool precedes(A distance, int32_t index, int64_t at) const {
    return distance < distances[at] || (distance == distances[at] && index < indices[at]);
  }

  void offer(A distance, int32_t index) {
    int64_t at = count;
    if (count == k) {
      if (!precedes(distance, index, k - 1)) return;
      --at;
    } else {
      ++count;
    }
    for (; at > 0 && precedes(distance, index, at - 1); --at) {
      distances[at] = distances[at - 1];
      indices[at] = indices[at - 1];
    }
    distances[at] = distance;
    indices[at] = index;
    if (count == k) bound = distances[k - 1];
  }
};

template <class A>
void search_block(const PointBlocks<A>& cloud, const Point<Vector<A>>& query, int64_t block, Nearest<A>* nearest) {
  const Vector<A> infinity = broadcast(static_cast<A>(__builtin_inff()));
  for (int64_t first = block * kBlockPoints; first < (block + 1) * kBlockPoints; first += kLanes<A>) {
    const Vector<A> distance = cloud.distances(query, first);
    uint32_t near = lane_bits((distance <= broadcast(nearest->bound)) & (distance < infinity));
    if (near == 0) continue;
    A lanes[kLanes<A>];
    store(lanes, distance);
    for (; near != 0; near &= near - 1) {
      const int lane = __builtin_ctz(near);
      nearest->offer(lanes[lane], cloud.index[first + lane]);
    }
  }
}

// `box_distance` holds cloud.padded_blocks values.
template <class A>
void search(const PointBlocks<A>& cloud, const Point<A>& place, A* box_distance, Nearest<A>* nearest) {
  const Vector<A> infinity = broadcast(static_cast<A>(__builtin_inff()));
  const Point<Vector<A>> query = broadcast_point(place);
  Vector<A> lane_nearest = infinity;
  for (int64_t b = 0; b < cloud.padded_blocks; b += kLanes<A>) {
    const Vector<A> distance = cloud.box_distances(query, b);
    store(box_distance + b, distance);
    lane_nearest = least(distance, lane_nearest);
  }
  A nearest_box = lane_nearest[0];
  for (int i = 1; i < kLanes<A>; ++i) nearest_box = least(lane_nearest[i], nearest_box);
  int64_t start = 0;
  while (start < cloud.blocks && box_distance[start] != nearest_box) ++start;
  if (start == cloud.blocks) return;
  search_block(cloud, query, start, nearest);
  box_distance[start] = infinity[0];  // done
  for (int64_t b = 0; b < cloud.padded_blocks; b += kLanes<A>) {
    const Vector<A> distance = load(box_distance + b);
    uint32_t near = lane_bits((distance <= broadcast(nearest->bound)) & (distance < infinity));
    for (; near != 0; near &= near - 1) {
      const int lane = __builtin_ctz(near);
      if (box_distance[b + lane] <= nearest->bound) search_block(cloud, query, b + lane, nearest);
    }
  }
}

template <class T>
void find_neighbours(const KnnParams& p) {
  using A = Accumulate<T>;
  const A infinity = static_cast<A>(__builtin_inff());
  const size_t cloud_bytes = PointBlocks<A>::bytes_for(p.count);
  const Scratch clouds(bytes_of<char>(p.batch, cloud_bytes));
  const Scratch headers(bytes_of<PointBlocks<A>>(p.batch));
  PointBlocks<A>* cloud = headers.as<PointBlocks<A>>();
  parallel_for(p.batch, 1, [&](int64_t b, int64_t) {
    cloud[b].build(static_cast<const T*>(p.points) + 3 * b * p.count, cloud_length(p.lengths, b, p.count),
                   clouds.as<char>() + static_cast<size_t>(b) * cloud_bytes);
  });
  const int64_t tasks = ceil_div(p.queries, kQueriesPerTask);
  parallel_for(p.batch * tasks, 1, [&](int64_t task, int64_t) {
    const int64_t b = task / tasks, begin = task % tasks * kQueriesPerTask;
    const int64_t end = least(begin + kQueriesPerTask, p.queries);
    const int64_t asking = cloud_length(p.query_lengths, b, p.queries);
    const Scratch memory(bytes_of<A>(cloud[b].padded_blocks + 1));
    const Scratch list(bytes_of<int32_t>(p.k));
    for (int64_t q = begin; q < end; ++q) {
      const int64_t row = b * p.queries + q;
      Nearest<A> nearest{static_cast<A*>(p.distances) + row * p.k, list.as<int32_t>(), p.k, 0, infinity};
      int64_t* indices = p.indices + row * p.k;
      const Point<A> place = read_point(static_cast<const T*>(p.query), row);
      if (q < asking && is_finite(place)) search(cloud[b], place, memory.as<A>(), &nearest);
      for (int64_t j = 0; j < nearest.count; ++j) indices[j] = nearest.indices[j];
      for (int64_t j = nearest.count; j < p.k; ++j) {
        nearest.distances[j] = infinity;
        indices[j] = -1;
      }
    }
  });
}

}  // namespace

void knn_cpu(const KnnParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { find_neighbours<typename decltype(tag)::type>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

// Nearest neighbours on the CPU.
//
// Clouds are sorted into trees (knn_tree_cpu.h). A query goes down to the nearest leaf first, and then into all others
// that may hold a point nearer than the k-th best so far. The k best are kept sorted by distance and index, so that the
// order of looking changes nothing.
//
// Napkin maths, a query in 100 000 points, k = 16, float32 on AVX-512: some 8 nodes of 20 instructions, 12 leaves of two
// vectors x 12 instructions, and 60 insertions of 12 cycles, most of them into the first leaves: about 1500 cycles.
#include "core/parallel.h"
#include "ops/knn/knn.h"
#include "ops/knn/knn_tree_cpu.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int64_t kQueriesPerTask = 64;

// A vector of the k best, ascending by distance, then index; infinity where there is none.
template <class A>
struct NearestVector {
  Vector<A> distances;
  IntegerVector<A> indices;

  // Puts a candidate in its place; the others move on by one, and the last one falls out. `before` is what comes in
  // from the left: the last of the vector before, or what precedes everything.
  FASTCV_INLINE void insert(Vector<A> distance, IntegerVector<A> index, A before, Integer<A> index_before) {
    Vector<A> moved;
    IntegerVector<A> moved_indices;
#if defined(__AVX512F__)
    if constexpr (sizeof(A) == 4) {
      const __m512i all = reinterpret_cast<__m512i>(distances), ids = reinterpret_cast<__m512i>(indices);
      moved = reinterpret_cast<Vector<A>>(_mm512_alignr_epi32(all, reinterpret_cast<__m512i>(broadcast(before)), 15));
      moved_indices = reinterpret_cast<IntegerVector<A>>(_mm512_alignr_epi32(ids, _mm512_set1_epi32(index_before), 15));
    } else
#endif
    {
      for (int i = 1; i < kLanes<A>; ++i) moved[i] = distances[i - 1], moved_indices[i] = indices[i - 1];
      moved[0] = before;
      moved_indices[0] = index_before;
    }
    const IntegerVector<A> after = (distance < distances) | ((distance == distances) & (index < indices));
    const IntegerVector<A> far_after = (distance < moved) | ((distance == moved) & (index < moved_indices));
    distances = far_after ? moved : after ? distance : distances;
    indices = far_after ? moved_indices : after ? index : indices;
  }
};

// The k best so far.
template <class A>
struct Nearest {
  NearestVector<A>* best;  // of `vectors` vectors
  int64_t k, vectors;
  A bound;  // no candidate farther than this is wanted

  void clear() {
    bound = static_cast<A>(__builtin_inff());
    for (int64_t v = 0; v < vectors; ++v) {
      best[v] = {broadcast(bound), IntegerVector<A>{} + Integer<A>(INT32_MAX)};
    }
  }
  A distance(int64_t i) const { return best[i / kLanes<A>].distances[i % kLanes<A>]; }
  Integer<A> index(int64_t i) const { return best[i / kLanes<A>].indices[i % kLanes<A>]; }

  void offer(A distance_, int32_t index_) {
    const Vector<A> candidate = broadcast(distance_);
    const IntegerVector<A> candidate_index = IntegerVector<A>{} + Integer<A>(index_);
    for (int64_t v = vectors - 1; v > 0; --v) {
      const A before = best[v - 1].distances[kLanes<A> - 1];
      const Integer<A> index_before = best[v - 1].indices[kLanes<A> - 1];
      best[v].insert(candidate, candidate_index, before, index_before);
      if (before < distance_ || (before == distance_ && index_before < index_)) return;
    }
    best[0].insert(candidate, candidate_index, A(-1), 0);
  }
};

template <class A>
struct Search {
  const PointTree<A>& tree;
  Point<Vector<A>> query;
  Nearest<A>* nearest;

  void leaf(int64_t leaf_index) const {
    const Vector<A> infinity = broadcast(static_cast<A>(__builtin_inff())), bound = broadcast(nearest->bound);
    A distances[kLeafPoints];
    uint32_t near = 0;
    const int64_t first = leaf_index * kLeafPoints;
    for (int64_t i = 0; i < kLeafPoints; i += kLanes<A>) {
      const int64_t at = first + i;
      const Vector<A> distance =
          squared_distance(Point<Vector<A>>{load(tree.x + at), load(tree.y + at), load(tree.z + at)}, query);
      store(distances + i, distance);
      near |= lane_bits((distance <= bound) & (distance < infinity)) << i;
    }
    if (near == 0) return;
    // Of many points at the same distance few are wanted.
    const A limit = nearest->bound;
    const Integer<A> last = nearest->index(nearest->k - 1);
    const auto is_late = [&](int i) { return distances[i] == limit && tree.index[first + i] > last; };
    if (nearest->vectors == 1) {
      NearestVector<A> best = nearest->best[0];
      for (; near != 0; near &= near - 1) {
        const int i = __builtin_ctz(near);
        if (is_late(i)) continue;
        best.insert(broadcast(distances[i]), IntegerVector<A>{} + Integer<A>(tree.index[first + i]), A(-1), 0);
      }
      nearest->best[0] = best;
    } else {
      for (; near != 0; near &= near - 1) {
        const int i = __builtin_ctz(near);
        if (is_late(i) || distances[i] > nearest->distance(nearest->k - 1)) continue;
        nearest->offer(distances[i], tree.index[first + i]);
      }
    }
    nearest->bound = nearest->distance(nearest->k - 1);
  }

  // The boxes of one node: the nearest of them first, then the others.
  void node(int64_t level, int64_t index) const {
    A distances[kFan];
    uint32_t near = 0;
    const Vector<A> infinity = broadcast(static_cast<A>(__builtin_inff())), bound = broadcast(nearest->bound);
    Vector<A> lane_nearest = infinity;
    for (int64_t i = 0; i < kFan; i += kLanes<A>) {
      const Vector<A> distance = tree.level[level].distances(query, index * kFan + i);
      store(distances + i, distance);
      lane_nearest = least(distance, lane_nearest);
      near |= lane_bits((distance <= bound) & (distance < infinity)) << i;
    }
    if (near == 0) return;
    if ((near & (near - 1)) != 0) {
      A least_distance = lane_nearest[0];
      for (int i = 1; i < kLanes<A>; ++i) least_distance = least(lane_nearest[i], least_distance);
      int start = 0;
      while (distances[start] != least_distance) ++start;
      visit(level, index * kFan + start);
      near &= ~(1u << start);
    }
    for (; near != 0; near &= near - 1) {
      const int i = __builtin_ctz(near);
      if (distances[i] <= nearest->bound) visit(level, index * kFan + i);
    }
  }

  void visit(int64_t level, int64_t box) const { level == 0 ? leaf(box) : node(level - 1, box); }
};

template <class T>
void find_neighbours(const KnnParams& p) {
  using A = Accumulate<T>;
  const A infinity = static_cast<A>(__builtin_inff());
  const size_t cloud_bytes = PointTree<A>::bytes_for(p.count);
  const Scratch clouds(bytes_of<char>(p.batch, cloud_bytes));
  const Scratch headers(bytes_of<PointTree<A>>(p.batch));
  PointTree<A>* cloud = headers.as<PointTree<A>>();
  parallel_for(p.batch, 1, [&](int64_t b, int64_t) {
    cloud[b].build(static_cast<const T*>(p.points) + 3 * b * p.count, cloud_length(p.lengths, b, p.count), p.queries,
                   clouds.as<char>() + static_cast<size_t>(b) * cloud_bytes);
  });
  const int64_t tasks = ceil_div(p.queries, kQueriesPerTask);
  parallel_for(p.batch * tasks, 1, [&](int64_t task, int64_t) {
    const int64_t b = task / tasks, begin = task % tasks * kQueriesPerTask;
    const int64_t end = least(begin + kQueriesPerTask, p.queries);
    const int64_t asking = cloud_length(p.query_lengths, b, p.queries);
    const int64_t wanted = least(p.k, cloud[b].points), vectors = ceil_div(wanted, kLanes<A>);
    const Scratch memory(bytes_of<NearestVector<A>>(vectors));
    Nearest<A> nearest{memory.as<NearestVector<A>>(), wanted, vectors, infinity};
    for (int64_t q = begin; q < end; ++q) {
      const int64_t row = b * p.queries + q;
      A* distances = static_cast<A*>(p.distances) + row * p.k;
      int64_t* indices = p.indices + row * p.k;
      const Point<A> place = read_point(static_cast<const T*>(p.query), row);
      nearest.clear();
      if (wanted > 0 && q < asking && is_finite(place)) {
        Search<A>{cloud[b], broadcast_point(place), &nearest}.node(cloud[b].levels - 1, 0);
      }
      for (int64_t j = 0; j < p.k; ++j) {
        distances[j] = j < wanted ? nearest.distance(j) : infinity;
        indices[j] = distances[j] < infinity ? nearest.index(j) : -1;
      }
    }
  });
}

}  // namespace

void knn_cpu(const KnnParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { find_neighbours<typename decltype(tag)::type>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

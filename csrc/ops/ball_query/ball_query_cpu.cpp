// Ball query on the CPU.
//
// A query first looks at the first kPrefix points of the cloud, in order: in a ball with many points the k wanted ones
// are among them. Otherwise it goes through the blocks of neighbouring points (families/point/point_blocks_cpu.h) whose
// boxes the ball reaches, marks what lies inside in a bit map, and reads the lowest k bits.
//
// Napkin maths, 2048 queries in 16 384 points, 30 points a ball, k = 32, float32: 64 vectors of the prefix x 8
// instructions, 256 boxes in 16 vectors x 14, eight blocks in 32 vectors x 10, 30 bits marked and 256 words of bit map
// read: 1500 instructions, 0.3 us a query.
#include "core/parallel.h"
#include "families/point/point_blocks_cpu.h"
#include "ops/ball_query/ball_query.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int64_t kQueriesPerTask = 64;
constexpr int64_t kPrefix = 1024;

// Which squared distances are those of neighbours.
template <class A>
struct Ball {
  Vector<A> limit, least;
  bool has_hole;

  explicit Ball(const BallQueryParams& p)
      : limit(broadcast(static_cast<A>(p.squared_radius))),
        least(broadcast(static_cast<A>(p.squared_min_radius))),
        has_hole(p.squared_min_radius > 0) {}
  FASTCV_INLINE uint32_t lanes_inside(Vector<A> distance) const {
    if (!has_hole) return lane_bits(distance < limit);
    return lane_bits((distance < limit) & ((distance >= least) | (distance == Vector<A>{})));
  }
};

// The first points of a cloud in their order, as separate coordinates; filled up with infinity.
template <class A>
struct Prefix {
  A x[kPrefix], y[kPrefix], z[kPrefix];
  int64_t count;

  template <class T>
  void read(const T* cloud, int64_t length) {
    count = least(length, kPrefix);
    const A infinity = static_cast<A>(__builtin_inff());
    for (int64_t i = 0; i < kPrefix; ++i) {
      const Point<A> p = i < count ? read_point(cloud, i) : Point<A>{infinity, infinity, infinity};
      x[i] = p.x, y[i] = p.y, z[i] = p.z;
    }
  }
};

template <class A>
struct Cloud {
  Prefix<A> prefix;
  PointBlocks<A> blocks;
};

// Writes the first neighbours, at most k, and returns how many there are among the first points.
template <class A>
int64_t search_prefix(const Prefix<A>& prefix, const Point<Vector<A>>& query, const Ball<A>& ball, int64_t k,
                      int64_t* indices) {
  int64_t found = 0;
  for (int64_t first = 0; first < prefix.count; first += kLanes<A>) {
    const Point<Vector<A>> points{load(prefix.x + first), load(prefix.y + first), load(prefix.z + first)};
    for (uint32_t near = ball.lanes_inside(squared_distance(points, query)); near != 0; near &= near - 1) {
      indices[found++] = first + __builtin_ctz(near);
      if (found == k) return found;
    }
  }
  return found;
}

// Does the same for all points. `marked` has a bit per point of the cloud, all zero before and after.
template <class A>
int64_t search_blocks(const PointBlocks<A>& cloud, const Point<Vector<A>>& query, const Ball<A>& ball, int64_t k,
                      int64_t* indices, uint64_t* marked, int64_t words) {
  for (int64_t b = 0; b < cloud.padded_blocks; b += kLanes<A>) {
    for (uint32_t boxes = lane_bits(cloud.box_distances(query, b) < ball.limit); boxes != 0; boxes &= boxes - 1) {
      const int64_t begin = (b + __builtin_ctz(boxes)) * kBlockPoints;
      for (int64_t first = begin; first < begin + kBlockPoints; first += kLanes<A>) {
        for (uint32_t near = ball.lanes_inside(cloud.distances(query, first)); near != 0; near &= near - 1) {
          const uint32_t index = static_cast<uint32_t>(cloud.index[first + __builtin_ctz(near)]);
          marked[index / 64] |= uint64_t{1} << index % 64;
        }
      }
    }
  }
  int64_t found = 0;
  for (int64_t word = 0; word < words; ++word) {
    uint64_t bits = marked[word];
    marked[word] = 0;
    for (; bits != 0 && found < k; bits &= bits - 1) indices[found++] = 64 * word + __builtin_ctzll(bits);
  }
  return found;
}

template <class T>
void find_neighbours(const BallQueryParams& p) {
  using A = Accumulate<T>;
  const Ball<A> ball(p);
  const size_t block_bytes = PointBlocks<A>::bytes_for(p.count);
  const Scratch block_memory(bytes_of<char>(p.batch, block_bytes));
  const Scratch cloud_memory(bytes_of<Cloud<A>>(p.batch));
  Cloud<A>* clouds = cloud_memory.as<Cloud<A>>();
  parallel_for(p.batch, 1, [&](int64_t b, int64_t) {
    const T* points = static_cast<const T*>(p.points) + 3 * b * p.count;
    const int64_t length = cloud_length(p.lengths, b, p.count);
    clouds[b].prefix.read(points, length);
    // The prefix alone will do where it is the whole cloud.
    if (length > kPrefix) {
      clouds[b].blocks.build(points, length, block_memory.as<char>() + static_cast<size_t>(b) * block_bytes);
    }
  });
  const int64_t tasks = ceil_div(p.queries, kQueriesPerTask);
  const int64_t words = ceil_div(p.count, 64);
  parallel_for(p.batch * tasks, 1, [&](int64_t task, int64_t) {
    const int64_t b = task / tasks, begin = task % tasks * kQueriesPerTask;
    const int64_t end = least(begin + kQueriesPerTask, p.queries);
    const int64_t asking = cloud_length(p.query_lengths, b, p.queries);
    const int64_t length = cloud_length(p.lengths, b, p.count);
    const Scratch memory(bytes_of<uint64_t>(words));
    uint64_t* marked = memory.as<uint64_t>();
    __builtin_memset(marked, 0, static_cast<size_t>(words) * sizeof(uint64_t));
    for (int64_t q = begin; q < end; ++q) {
      int64_t* indices = p.indices + (b * p.queries + q) * p.k;
      const Point<A> place = read_point(static_cast<const T*>(p.query), b * p.queries + q);
      int64_t found = 0;
      if (q < asking && is_finite(place)) {
        const Point<Vector<A>> query = broadcast_point(place);
        found = search_prefix(clouds[b].prefix, query, ball, p.k, indices);
        if (found < p.k && length > kPrefix) {
          found = search_blocks(clouds[b].blocks, query, ball, p.k, indices, marked, words);
        }
      }
      const int64_t fill = p.repeat_first && found > 0 ? indices[0] : -1;
      for (int64_t j = found; j < p.k; ++j) indices[j] = fill;
    }
  });
}

}  // namespace

void ball_query_cpu(const BallQueryParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { find_neighbours<typename decltype(tag)::type>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

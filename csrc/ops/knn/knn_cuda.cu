// Nearest neighbours on CUDA. See knn.h for the meaning.
#include "core/cuda/launch.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "families/point/point.h"
#include "ops/knn/knn.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

// A thread owns a query and walks over the cloud in the order of the indices, which the block brings into shared memory
// kTile points at a time. Up to kMostInRegisters neighbours are kept sorted in registers, where an insertion is an
// unrolled chain of selections; more of them stay in the rows of the result, in the first-level cache. Only a strictly
// smaller distance moves a neighbour, so that of equals the lower index stays first.
//
// Napkin maths, 8 clouds of 8192 points, 2048 queries each, k = 16, float32: 134 M distances at 10 instructions (8 for
// the distance, 2 for the loop and the test) are 80 us of issue slots on 132 SMs x 128 lanes; about 100 insertions per
// query and 40 instructions each add 4 us, more where the lanes of a warp diverge.

constexpr int kBlockSize = 128;
constexpr int kTile = 256;
constexpr int kMostInRegisters = 16;

// `kSlots` neighbours in registers.
template <class A, int kSlots>
struct RegisterList {
  A distance[kSlots];
  int index[kSlots];

  FASTCV_HD RegisterList(A infinity, const KnnParams&, int64_t) {
#pragma unroll
    for (int j = 0; j < kSlots; ++j) {
      distance[j] = infinity;
      index[j] = -1;
    }
  }
  FASTCV_HD A bound() const { return distance[kSlots - 1]; }
  FASTCV_HD void insert(A d, int i) {
#pragma unroll
    for (int j = kSlots - 1; j > 0; --j) {
      if (d < distance[j - 1]) {
        distance[j] = distance[j - 1];
        index[j] = index[j - 1];
      } else if (d < distance[j]) {
        distance[j] = d;
        index[j] = i;
      }
    }
    if (d < distance[0]) {
      distance[0] = d;
      index[0] = i;
    }
  }
  FASTCV_HD void write(const KnnParams& p, int64_t row) const {
#pragma unroll
    for (int j = 0; j < kSlots; ++j) {
      if (j >= p.k) continue;
      static_cast<A*>(p.distances)[row * p.k + j] = distance[j];
      p.indices[row * p.k + j] = index[j];
    }
  }
};

// The rows of the result themselves.
template <class A>
struct RowList {
  A* distance;
  int64_t* index;
  int last;
  A farthest;

  FASTCV_HD RowList(A infinity, const KnnParams& p, int64_t row)
      : distance(static_cast<A*>(p.distances) + row * p.k),
        index(p.indices + row * p.k),
        last(static_cast<int>(p.k) - 1),
        farthest(infinity) {
    for (int j = 0; row >= 0 && j <= last; ++j) {
      distance[j] = infinity;
      index[j] = -1;
    }
  }
  FASTCV_HD A bound() const { return farthest; }
  FASTCV_HD void insert(A d, int i) {
    int at = last;
    for (; at > 0 && d < distance[at - 1]; --at) {
      distance[at] = distance[at - 1];
      index[at] = index[at - 1];
    }
    distance[at] = d;
    index[at] = i;
    farthest = distance[last];
  }
  FASTCV_HD void write(const KnnParams&, int64_t) const {}
};

template <class T, class List>
__global__ void __launch_bounds__(kBlockSize, 2) knn_kernel(const KnnParams p, unsigned blocks_per_cloud) {
  using A = Accumulate<T>;
  FASTCV_SHARED(A, x, kTile);
  FASTCV_SHARED(A, y, kTile);
  FASTCV_SHARED(A, z, kTile);
  const int thread = static_cast<int>(threadIdx.x);
  const unsigned b = blockIdx.x / blocks_per_cloud, block = blockIdx.x % blocks_per_cloud;
  const int q = static_cast<int>(block) * kBlockSize + thread;
  const int asking = static_cast<int>(cloud_length(p.query_lengths, b, p.queries));
  const int count = static_cast<int>(cloud_length(p.lengths, b, p.count));
  const int64_t row = q < p.queries ? b * p.queries + q : -1;
  const A infinity = static_cast<A>(__builtin_inff());
  List list(infinity, p, row);
  const bool asks = q < asking;
  Point<A> query{infinity, infinity, infinity};
  if (asks) query = read_point(static_cast<const T*>(p.query), row);
  const T* points = static_cast<const T*>(p.points) + 3 * b * p.count;
  for (int first = 0; first < count; first += kTile) {
    const int tile = least(count - first, kTile);
    for (int i = thread; i < tile; i += kBlockSize) {
      const Point<A> point = read_point(points, first + i);
      x[i] = point.x;
      y[i] = point.y;
      z[i] = point.z;
    }
    block_sync();
    for (int i = 0; asks && i < tile; ++i) {
      const A distance = squared_distance(Point<A>{x[i], y[i], z[i]}, query);
      if (distance < list.bound()) list.insert(distance, first + i);
    }
    block_sync();
  }
  if (row >= 0) list.write(p, row);
}

template <class T, class List>
void find_neighbours(const KnnParams& p, Stream stream) {
  const int64_t blocks = ceil_div<int64_t>(p.queries, kBlockSize);
  launch(knn_kernel<T, List>, {{p.batch * blocks}, {kBlockSize}}, stream, p, static_cast<unsigned>(blocks));
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void knn_cuda(const KnnParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = Accumulate<T>;
    if (params.k <= 4) {
      find_neighbours<T, RegisterList<A, 4>>(params, stream);
    } else if (params.k <= kMostInRegisters) {
      find_neighbours<T, RegisterList<A, kMostInRegisters>>(params, stream);
    } else {
      find_neighbours<T, RowList<A>>(params, stream);
    }
  });
}

}  // namespace fastcv

// Farthest point sampling on CUDA. See farthest_point_sample.h for the meaning.
#include "core/cuda/launch.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "families/point/point.h"
#include "ops/farthest_point_sample/farthest_point_sample.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

// A block owns a cloud; its threads own the points thread, thread + kBlockSize ... and their d. Each choice lowers d in
// one pass, in which every thread finds its greatest; those are reduced within warps, then all warps reduce the warps'
// results, each for itself, so that a choice costs one barrier. Results of the warps alternate between two buffers:
// nobody can overwrite a buffer before the barrier after its last reader.
//
// A thread keeps up to kMostPoints points and their d in registers; more of them, and float64, stay in memory.
//
// Napkin maths, 8192 points, k = 2048, float32: 16 points a thread of 11 instructions, and 30 for the reductions, which
// take one instruction each: 200 instructions x 16 warps over 4 issue slots are 800 cycles, 0.5 us a choice and 1 ms in
// all. A cloud uses one of the multiprocessors: batches are for free up to 132.

constexpr int kBlockSize = 512;
constexpr int kWarps = kBlockSize / static_cast<int>(kWarpSize);
constexpr int kNoPoint = 0x7fffffff;
constexpr int kFewPoints = 2, kMostPoints = 16;  // of a thread, in registers

// The greatest value of a warp and the lowest index that has it. Values are not NaN, and not negative but for -1: as
// integers, the bits of such floats have the same order.
template <class A>
__device__ __forceinline__ void reduce_greatest(A* value, int* index) {
  if constexpr (sizeof(A) == 4) {
    const int key = bit_cast<int>(*value), greatest = warp_reduce_max(key);
    *index = warp_reduce_min(key == greatest ? *index : kNoPoint);
    *value = bit_cast<A>(greatest);
  } else {
    const A greatest = warp_reduce_max(*value);
    *index = warp_reduce_min(*value == greatest ? *index : kNoPoint);
    *value = greatest;
  }
}

// The points of a thread, kPoints of them in registers. Negative d: the point cannot be chosen.
template <class T, int kPoints>
class OwnPoints {
  using A = Accumulate<T>;

 public:
  __device__ OwnPoints(const T* points, A*, int count) {
#pragma unroll
    for (int n = 0; n < kPoints; ++n) {
      const int i = static_cast<int>(threadIdx.x) + n * kBlockSize;
      place_[n] = i < count ? read_point(points, i) : Point<A>{A(0), A(0), A(0)};
      nearest_[n] = i < count && is_finite(place_[n]) ? static_cast<A>(__builtin_inff()) : A(-1);
    }
  }

  // d = body(i, point, d) for each.
  template <class Body>
  __device__ __forceinline__ void update(const Body& body) {
#pragma unroll
    for (int n = 0; n < kPoints; ++n) {
      nearest_[n] = body(static_cast<int>(threadIdx.x) + n * kBlockSize, place_[n], nearest_[n]);
    }
  }

 private:
  Point<A> place_[kPoints];
  A nearest_[kPoints];
};

// The same in memory.
template <class T>
class OwnPoints<T, 0> {
  using A = Accumulate<T>;

 public:
  __device__ OwnPoints(const T* points, A* nearest, int count) : points_(points), nearest_(nearest), count_(count) {
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kBlockSize) {
      nearest[i] = is_finite(read_point(points, i)) ? static_cast<A>(__builtin_inff()) : A(-1);
    }
  }

  template <class Body>
  __device__ __forceinline__ void update(const Body& body) {
    for (int i = static_cast<int>(threadIdx.x); i < count_; i += kBlockSize) {
      nearest_[i] = body(i, read_point(points_, i), nearest_[i]);
    }
  }

 private:
  const T* points_;
  A* nearest_;
  int count_;
};

template <class T, int kPoints>
__global__ void __launch_bounds__(kBlockSize, 1) farthest_point_sample_kernel(const FarthestPointSampleParams p) {
  using A = Accumulate<T>;
  FASTCV_SHARED(A, warp_value, 2 * kWarps);
  FASTCV_SHARED(int, warp_index, 2 * kWarps);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / static_cast<int>(kWarpSize);
  const int lane = static_cast<int>(lane_id());
  const int64_t b = blockIdx.x;
  const int count = static_cast<int>(cloud_length(p.lengths, b, p.count));
  const int wanted = static_cast<int>(p.k);
  const T* points = static_cast<const T*>(p.points) + 3 * b * p.count;
  int64_t* indices = p.indices + b * p.k;
  OwnPoints<T, kPoints> own(points, static_cast<A*>(p.nearest) + b * p.count, count);

  // The first choice: d is infinite, and only point `start` is preferred.
  const int64_t start = p.starts == nullptr ? p.start : p.starts[b];
  A value = A(-1);
  int index = kNoPoint;
  own.update([&](int i, const Point<A>&, A nearest) {
    const A preference = nearest < A(0) ? A(-1) : i == start ? A(1) : A(0);
    if (preference > value) {
      value = preference;
      index = i;
    }
    return nearest;
  });
  for (int chosen = 0; chosen < wanted; ++chosen) {
    reduce_greatest(&value, &index);
    const int buffer = chosen % 2 * kWarps;
    if (lane == 0) {
      warp_value[buffer + warp] = value;
      warp_index[buffer + warp] = index;
    }
    block_sync();
    value = lane < kWarps ? warp_value[buffer + lane] : A(-1);
    index = lane < kWarps ? warp_index[buffer + lane] : kNoPoint;
    reduce_greatest(&value, &index);
    if (value < A(0)) {  // nothing is left
      for (int j = chosen + thread; j < wanted; j += kBlockSize) indices[j] = -1;
      return;
    }
    if (thread == 0) indices[chosen] = index;
    const int latest = index;
    const Point<A> place = read_point(points, latest);
    value = A(-1);
    index = kNoPoint;
    own.update([&](int i, const Point<A>& point, A nearest) {
      const A distance = squared_distance(point, place);
      const A less = distance < nearest ? distance : nearest;
      nearest = i == latest || nearest < A(0) ? A(-1) : less;
      if (nearest > value) {
        value = nearest;
        index = i;
      }
      return nearest;
    });
  }
}

template <class T>
void sample(const FarthestPointSampleParams& p, Stream stream) {
  const LaunchShape shape({p.batch}, {kBlockSize});
  if constexpr (sizeof(Accumulate<T>) == 4) {
    if (p.count <= kFewPoints * kBlockSize) {
      return launch(farthest_point_sample_kernel<T, kFewPoints>, shape, stream, p);
    }
    if (p.count <= kMostPoints * kBlockSize) {
      return launch(farthest_point_sample_kernel<T, kMostPoints>, shape, stream, p);
    }
  }
  launch(farthest_point_sample_kernel<T, 0>, shape, stream, p);
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void farthest_point_sample_cuda(const FarthestPointSampleParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) { sample<typename decltype(tag)::type>(params, stream); });
}

}  // namespace fastcv

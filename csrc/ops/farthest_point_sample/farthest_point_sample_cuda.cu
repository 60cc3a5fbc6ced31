// Farthest point sampling on CUDA. See farthest_point_sample.h for the meaning.
#include "core/cuda/launch.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "families/point/point.h"
#include "ops/farthest_point_sample/farthest_point_sample.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

// A block owns a cloud; its threads own the points thread, thread + kBlockSize ... and keep d(i) in the workspace. Each
// choice lowers d in one pass, in which every thread finds its greatest; those are reduced within warps, then all warps
// reduce the warps' results, each for itself, so that a choice costs one barrier. Results of the warps alternate
// between two buffers: nobody can overwrite a buffer before the barrier after its last reader.
//
// Napkin maths, 8192 points, k = 2048, float32: 16 points a thread, about 20 instructions each, and 60 for the
// reductions: 400 instructions x 16 warps over 4 issue slots are 1600 cycles, about 1 us a choice and 2 ms in all. A
// cloud uses one of the SMs: batches are for free up to 132.

constexpr int kBlockSize = 512;
constexpr int kWarps = kBlockSize / static_cast<int>(kWarpSize);
constexpr int kNoPoint = 0x7fffffff;

// The greatest value of a warp and the lowest index that has it.
template <class A>
__device__ __forceinline__ void reduce_greatest(A* value, int* index) {
  const A greatest = warp_reduce_max(*value);
  *index = warp_reduce_min(*value == greatest ? *index : kNoPoint);
  *value = greatest;
}

template <class T>
__global__ void __launch_bounds__(kBlockSize, 2) farthest_point_sample_kernel(const FarthestPointSampleParams p) {
  using A = Accumulate<T>;
  FASTCV_SHARED(A, warp_value, 2 * kWarps);
  FASTCV_SHARED(int, warp_index, 2 * kWarps);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / static_cast<int>(kWarpSize);
  const int lane = static_cast<int>(lane_id());
  const int64_t b = blockIdx.x;
  const int count = static_cast<int>(cloud_length(p.lengths, b, p.count));
  const int wanted = static_cast<int>(p.k);
  const T* points = static_cast<const T*>(p.points) + 3 * b * p.count;
  A* nearest = static_cast<A*>(p.nearest) + b * p.count;
  int64_t* indices = p.indices + b * p.k;
  const A infinity = static_cast<A>(__builtin_inff());

  // The first choice: d is infinite, and only point `start` is preferred.
  const int64_t start = p.starts == nullptr ? p.start : p.starts[b];
  A value = A(-1);
  int index = kNoPoint;
  for (int i = thread; i < count; i += kBlockSize) {
    const bool finite = is_finite(read_point(points, i));
    nearest[i] = finite ? infinity : A(-1);
    const A preference = !finite ? A(-1) : i == start ? A(1) : A(0);
    if (preference > value) {
      value = preference;
      index = i;
    }
  }
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
    for (int i = thread; i < count; i += kBlockSize) {
      A least = nearest[i];
      if (least < A(0)) continue;
      const A distance = squared_distance(read_point(points, i), place);
      least = i == latest ? A(-1) : distance < least ? distance : least;
      nearest[i] = least;
      if (least > value) {
        value = least;
        index = i;
      }
    }
  }
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void farthest_point_sample_cuda(const FarthestPointSampleParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) {
    launch(farthest_point_sample_kernel<typename decltype(tag)::type>, {{params.batch}, {kBlockSize}}, stream, params);
  });
}

}  // namespace fastcv

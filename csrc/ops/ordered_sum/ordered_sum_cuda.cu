// Ordered sums on CUDA: a block per piece, whose threads are shared out among its channels; then, for each channel, the
// pieces. Bound by memory.
//
// Napkin maths for an H200, 100 MB: 23 us at 4.3 TB/s, and 2 us for the launch that adds up the pieces.
#include "core/cuda/launch.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "ops/ordered_sum/ordered_sum.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kBlockSize = 256;
static_assert(kBlockSize >= kMostSumChannels, "a channel has at least one thread");

// Which channel of its block a thread works for, and as which of so many threads.
struct Share {
  int channel, lane, lanes;
  int step;  // between the threads of a channel
  bool works;
};

// Neighbouring threads read neighbours in memory: of one channel, or of neighbouring channels where `across`.
FASTCV_HD Share share_of(int thread, int channels, int lanes, bool across) {
  Share share{thread / lanes, thread % lanes, lanes, 1, false};
  if (across) share = {thread % channels, thread / channels, lanes, channels, false};
  share.works = share.channel < channels && share.lane < lanes;
  return share;
}

// The sum of a channel's threads, in a fixed order; valid in its lane 0. All threads of the block must come.
inline __device__ double sum_of_lanes(double* sums, const Share& share, double value) {
  const int thread = static_cast<int>(threadIdx.x);
  sums[thread] = value;
  block_sync();
  for (int half = kBlockSize / 2; half > 0; half /= 2) {
    if (share.works && share.lane < half && share.lane + half < share.lanes) {
      sums[thread] += sums[thread + half * share.step];
    }
    block_sync();
  }
  return sums[thread];
}

template <class T>
__global__ void __launch_bounds__(kBlockSize, 2) sum_pieces_kernel(const OrderedSumParams p) {
  FASTCV_SHARED(double, sums, kBlockSize);
  const SumPieces& cut = p.cut;
  const int64_t piece = blockIdx.x / cut.b_count;
  const int64_t a0 = piece / cut.c_count * cut.a_size, a1 = a0 + cut.a_size < p.a ? a0 + cut.a_size : p.a;
  const int64_t b0 = blockIdx.x % cut.b_count * cut.b_size;
  const int64_t c0 = piece % cut.c_count * cut.c_size;
  const int channels = static_cast<int>(p.b - b0 < cut.b_size ? p.b - b0 : cut.b_size);
  const int run = static_cast<int>(p.c - c0 < cut.c_size ? p.c - c0 : cut.c_size);
  const bool across = p.c == 1;
  const Share share = share_of(static_cast<int>(threadIdx.x), channels, kBlockSize / channels, across);
  double sum = 0;
  if (share.works) {
    const T* source = static_cast<const T*>(p.input) + (b0 + share.channel) * p.c + c0;
    const int64_t row = p.b * p.c;
    if (across) {
#pragma unroll 4
      for (int64_t a = a0 + share.lane; a < a1; a += share.lanes) sum += to_float(source[a * row]);
    } else {
      for (int64_t a = a0; a < a1; ++a) {
#pragma unroll 4
        for (int k = share.lane; k < run; k += share.lanes) sum += to_float(source[a * row + k]);
      }
    }
  }
  sum = sum_of_lanes(sums, share, sum);
  if (share.works && share.lane == 0) p.pieces[piece * p.b + b0 + share.channel] = sum;
}

// `lanes` threads per channel, a power of two.
template <class T>
__global__ void __launch_bounds__(kBlockSize, 2)
    finish_sums_kernel(const OrderedSumParams p, int64_t pieces, int lanes) {
  FASTCV_SHARED(double, sums, kBlockSize);
  const int channels = kBlockSize / lanes;
  const Share share = share_of(static_cast<int>(threadIdx.x), channels, lanes, false);
  const int64_t b = static_cast<int64_t>(blockIdx.x) * channels + share.channel;
  double sum = 0;
  if (b < p.b) {
#pragma unroll 4
    for (int64_t k = share.lane; k < pieces; k += lanes) sum += p.pieces[k * p.b + b];
  }
  sum = sum_of_lanes(sums, share, sum);
  if (b < p.b && share.lane == 0) {
    static_cast<T*>(p.output)[b] = from_float<T>(static_cast<Accumulate<T>>(sum / p.divisor));
  }
}

template <class T>
void sum_all(const OrderedSumParams& p, Stream stream) {
  const int64_t pieces = p.cut.a_count * p.cut.c_count;
  launch(sum_pieces_kernel<T>, {{grid_size(pieces * p.cut.b_count, 1)}, {kBlockSize}}, stream, p);
  const int lanes = pieces > 64 ? kBlockSize : pieces > 1 ? 32 : 1;
  launch(finish_sums_kernel<T>, {{grid_size(p.b, kBlockSize / lanes)}, {kBlockSize}}, stream, p, pieces, lanes);
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void ordered_sum_cuda(const OrderedSumParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) { sum_all<typename decltype(tag)::type>(params, stream); });
}

}  // namespace fastcv

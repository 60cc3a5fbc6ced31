// Kernels with a planted fault, and the same without: for tests/test_ptx.py.
//
// Each has one block of 128 threads and copies `in` to `out`, 128 floats, in a roundabout way.
#include "core/cuda/mma.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"

namespace fastcv::cuda {

constexpr int kThreads = 128;

// Two groups of copies are under way; the first is read.
template <bool kFault>
__global__ void wait_count(const float* in, float* out) {
  FASTCV_DYNAMIC_SHARED(float, tile);
  const unsigned thread = threadIdx.x;
  for (unsigned group = 0; group < 2; ++group) {
    if (thread < kThreads / 4) copy_async_16(tile + kThreads * group + 4 * thread, in + 4 * thread, true);
    commit_copies();
  }
  wait_for_copies<kFault ? 2 : 1>();
  block_sync();
  out[thread] = tile[thread];
  wait_for_copies<0>();
}

// The thread returns before what it asked for has come.
template <bool kFault>
__global__ void copies_at_exit(const float* in, float* out) {
  FASTCV_DYNAMIC_SHARED(float, tile);
  const unsigned thread = threadIdx.x;
  if (thread < kThreads / 4) copy_async_16(tile + 4 * thread, in + 4 * thread, true);
  commit_copies();
  out[thread] = in[thread];
  if (!kFault) wait_for_copies<0>();
}

// Sixteen bytes at a multiple of four.
template <bool kFault>
__global__ void vector_load(const float* in, float* out) {
  const unsigned thread = threadIdx.x;
  if (thread >= kThreads / 4) return;
  const float4 four = *reinterpret_cast<const float4*>(in + 4 * thread + (kFault && thread == 5 ? 1 : 0));
  *reinterpret_cast<float4*>(out + 4 * thread) = four;
}

template <bool kFault>
__global__ void copy_alignment(const float* in, float* out) {
  FASTCV_DYNAMIC_SHARED(float, tile);
  const unsigned thread = threadIdx.x;
  if (thread < kThreads / 4) copy_async_16(tile + 4 * thread, in + 4 * thread - (kFault && thread == 5 ? 1 : 0), true);
  commit_copies();
  wait_for_copies<0>();
  block_sync();
  out[thread] = tile[thread];
}

// One past the end, where another array lies on the GPU.
template <bool kFault>
__global__ void shared_end(const float* in, float* out) {
  FASTCV_SHARED(float, tile, kThreads);
  FASTCV_SHARED(float, other, kThreads);
  const unsigned thread = threadIdx.x;
  other[thread] = 0;
  tile[thread + kFault] = in[thread];
  block_sync();
  out[thread] = tile[thread + kFault] + other[thread];
}

template <bool kFault>
__global__ void dynamic_shared_end(const float* in, float* out) {
  FASTCV_DYNAMIC_SHARED(float, tile);
  const unsigned thread = threadIdx.x;
  tile[2 * thread + kFault] = in[thread];
  block_sync();
  tile[2 * thread + 1 + kFault] = 0;
  out[thread] = tile[2 * thread + kFault];
}

// One past the end of a tensor.
template <bool kFault>
__global__ void global_end(const float* in, float* out) {
  const unsigned thread = threadIdx.x;
  const float value = in[thread + kFault];
  out[thread] = kFault ? in[thread] + 0 * value : value;
}

template <bool kFault>
__global__ void global_begin(const float* in, float* out) {
  const int thread = static_cast<int>(threadIdx.x);
  out[thread - kFault] = in[thread];
  if (kFault && thread == kThreads - 1) out[thread] = in[thread];
}

template <bool kFault>
__global__ void divergent_shuffle(const float* in, float* out) {
  const unsigned thread = threadIdx.x;
  float value = in[thread];
  if (!kFault || thread % 2 == 0) value = warp_shuffle_xor(kFullMask, warp_shuffle_xor(kFullMask, value, 2), 2);
  if (kFault && thread % 2 == 1) value = warp_any(kFullMask, value > 2) ? value : value;
  out[thread] = value;
}

template <bool kFault>
__global__ void missing_barrier(const float* in, float* out) {
  FASTCV_SHARED(float, tile, kThreads);
  const unsigned thread = threadIdx.x;
  tile[thread] = in[thread];
  if (!kFault) block_sync();
  const float mine = tile[kThreads - 1 - thread];
  out[kThreads - 1 - thread] = mine;
}

template <bool kFault>
__global__ void divergent_barrier(const float* in, float* out) {
  FASTCV_SHARED(float, tile, kThreads);
  const unsigned thread = threadIdx.x;
  tile[thread] = in[thread];
  if (kFault && thread < 32) {
    if (block_any(in[thread] < 0)) tile[thread] = 0;
  } else {
    block_sync();
  }
  out[thread] = tile[thread];
}

// A lane that waits for its warp while the others wait for the block.
template <bool kFault>
__global__ void thread_missing_at_barrier(const float* in, float* out) {
  FASTCV_SHARED(float, tile, kThreads);
  const unsigned thread = threadIdx.x;
  tile[thread] = in[thread];
  if (kFault && thread == 7) {
    warp_sync(kFullMask);
  } else {
    block_sync();
  }
  out[thread] = tile[thread];
}

// A product of fragments that one lane has left out.
template <bool kFault>
__global__ void lane_missing_at_mma(const float* in, float* out) {
  const unsigned thread = threadIdx.x;
  float d[4] = {in[thread], 0, 0, 0};
  const uint32_t a[4] = {}, b[2] = {};
  if (!kFault || thread != 40) mma_words<float16>(d, a, b);
  out[thread] = d[0];
}

// tf32 without the rounding.
template <bool kFault>
__global__ void unrounded_tf32(const float* in, float* out) {
  const unsigned thread = threadIdx.x;
  float d[4] = {in[thread], 0, 0, 0};
  const uint32_t bits = __float_as_uint(1.0f / (3 + static_cast<float>(thread)));
  const uint32_t a[4] = {kFault ? bits : round_to_tf32(bits)}, b[2] = {};
  mma_words<float>(d, a, b);
  out[thread] = d[0];
}

template <bool kFault>
__global__ void division_by_zero(const float* in, float* out) {
  const unsigned thread = threadIdx.x;
  const unsigned divisor = static_cast<unsigned>(in[thread]) - thread - kFault;  // in[i] = i + 1
  out[thread] = thread / divisor > 500 ? 0 : in[thread];
}

template <bool kFault>
__global__ void __launch_bounds__(kFault ? 64 : 128) launch_bounds(const float* in, float* out) {
  out[threadIdx.x] = in[threadIdx.x];
}

#define FASTCV_CASE(name)                                     \
  template __global__ void name<false>(const float*, float*); \
  template __global__ void name<true>(const float*, float*);
FASTCV_CASE(wait_count)
FASTCV_CASE(copies_at_exit)
FASTCV_CASE(vector_load)
FASTCV_CASE(copy_alignment)
FASTCV_CASE(shared_end)
FASTCV_CASE(dynamic_shared_end)
FASTCV_CASE(global_end)
FASTCV_CASE(global_begin)
FASTCV_CASE(divergent_shuffle)
FASTCV_CASE(missing_barrier)
FASTCV_CASE(divergent_barrier)
FASTCV_CASE(thread_missing_at_barrier)
FASTCV_CASE(lane_missing_at_mma)
FASTCV_CASE(unrounded_tf32)
FASTCV_CASE(division_by_zero)
FASTCV_CASE(launch_bounds)

}  // namespace fastcv::cuda

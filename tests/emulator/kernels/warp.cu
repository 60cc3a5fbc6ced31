// Kernels whose lanes talk within a warp.
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/cuda/launch.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "emulator/kernels/cases.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

// Inclusive sums of each warp's 32 values.
__global__ void scan_kernel(const int* input, int* output) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  int sum = input[i];
  for (unsigned delta = 1; delta < kWarpSize; delta *= 2) {
    const int before = warp_shuffle_up(kFullMask, sum, delta);
    if (lane_id() >= delta) sum += before;
  }
  output[i] = sum;
}

bool warp_scan() {
  constexpr int kCount = 256;
  Buffer<int> input(kCount), output(kCount);
  for (int i = 0; i < kCount; ++i) input[i] = i * 7 % 23 - 11;
  launch(scan_kernel, {2, 128}, kStream, input.data(), output.data());
  synchronize();
  for (int i = 0, sum = 0; i < kCount; ++i) {
    sum = (i % 32 == 0 ? 0 : sum) + input[i];
    if (output[i] != sum) return false;
  }
  return true;
}

struct Pair {
  int16_t first, second;
};

// Values that need all bits of their type.
template <class T>
struct Values {
  static FASTCV_HD T at(unsigned lane) { return static_cast<T>(lane * 0x9e3779b97f4a7c15u); }
};
template <>
struct Values<float> {
  static FASTCV_HD float at(unsigned lane) { return 1.0f / static_cast<float>(lane + 3); }
};
template <>
struct Values<double> {
  static FASTCV_HD double at(unsigned lane) { return 1.0 / (lane + 3); }
};
template <>
struct Values<Pair> {
  static FASTCV_HD Pair at(unsigned lane) {
    return {static_cast<int16_t>(lane), static_cast<int16_t>(-static_cast<int>(lane))};
  }
};

template <class T>
FASTCV_HD bool same_value(T a, T b) {
  return a == b;
}
FASTCV_HD bool same_value(Pair a, Pair b) {
  return a.first == b.first && a.second == b.second;
}

template <class T>
__device__ bool shuffles_are_right() {
  const unsigned lane = lane_id();
  const T own = Values<T>::at(lane);
  bool right = same_value(warp_shuffle(kFullMask, own, 7), Values<T>::at(7));
  right &= same_value(warp_shuffle(kFullMask, own, static_cast<int>(lane * 5 + 32)), Values<T>::at(lane * 5 % 32));
  right &= same_value(warp_shuffle_down(kFullMask, own, 3), Values<T>::at(lane + 3 < 32 ? lane + 3 : lane));
  right &= same_value(warp_shuffle_up(kFullMask, own, 5), Values<T>::at(lane >= 5 ? lane - 5 : lane));
  return right & same_value(warp_shuffle_xor(kFullMask, own, 6), Values<T>::at(lane ^ 6));
}

__global__ void shuffle_kernel(int* right) {
  right[threadIdx.x] = shuffles_are_right<float>() & shuffles_are_right<double>() & shuffles_are_right<int32_t>() &
                       shuffles_are_right<int64_t>() & shuffles_are_right<uint32_t>() & shuffles_are_right<uint64_t>() &
                       shuffles_are_right<Pair>();
}

bool all_true(Buffer<int>& flags) {
  for (size_t i = 0; i < flags.count(); ++i) {
    if (flags[i] != 1) return false;
  }
  return true;
}

bool shuffles() {
  Buffer<int> right(64);
  launch(shuffle_kernel, {1, 64}, kStream, right.data());
  synchronize();
  return all_true(right);
}

// The even and the odd lanes vote apart, the odd ones twice as often.
__global__ void vote_kernel(int* right) {
  const unsigned lane = lane_id();
  if (lane % 2 == 0) {
    right[threadIdx.x] = warp_ballot(0x55555555u, lane < 8) == 0x55u && count_lanes(0x55u) == 4;
  } else {
    const unsigned mask = warp_ballot(0xaaaaaaaau, lane >= 16);
    bool is_right = mask == 0xaaaa0000u && first_lane(mask) == 17;
    is_right &= warp_any(0xaaaaaaaau, lane == 3) && !warp_any(0xaaaaaaaau, lane == 4);
    is_right &= warp_all(0xaaaaaaaau, lane != 4) && !warp_all(0xaaaaaaaau, lane != 3);
    right[threadIdx.x] = is_right;
  }
  right[threadIdx.x] &= warp_all(kFullMask, right[threadIdx.x] == 1);
}

bool warp_votes() {
  Buffer<int> right(64);
  launch(vote_kernel, {1, 64}, kStream, right.data());
  synchronize();
  return all_true(right);
}

// Each lane hands its value to the next through shared memory, several times over.
__global__ void rotate_kernel(int* output) {
  FASTCV_SHARED(int, slots, 64);
  int value = static_cast<int>(threadIdx.x);
  const unsigned first = threadIdx.x / kWarpSize * kWarpSize;
  for (int round = 0; round < 5; ++round) {
    slots[threadIdx.x] = value;
    warp_sync(kFullMask);
    value = slots[first + (lane_id() + 1) % kWarpSize];
    warp_sync(kFullMask);
  }
  output[threadIdx.x] = value;
}

bool warp_memory() {
  Buffer<int> output(64);
  launch(rotate_kernel, {1, 64}, kStream, output.data());
  synchronize();
  for (int i = 0; i < 64; ++i) {
    if (output[i] != i / 32 * 32 + (i + 5) % 32) return false;
  }
  return true;
}

// [sum, max, min] for each lane; every lane has the same bits.
__global__ void reduce_kernel(const float* input, float* output) {
  const float value = input[threadIdx.x];
  output[threadIdx.x] = warp_reduce_sum(static_cast<float>(lane_id()) * 0.1f);
  output[threadIdx.x + 32] = warp_reduce_max(value);
  output[threadIdx.x + 64] = warp_reduce_min(value);
}

bool warp_reductions() {
  Buffer<float> input(32), output(96);
  for (int i = 0; i < 32; ++i) input[i] = static_cast<float>(i * 11 % 32) - 20.0f;
  input[9] = std::numeric_limits<float>::quiet_NaN();  // was -17: neither the largest nor the smallest
  float sums[32];
  for (int i = 0; i < 32; ++i) sums[i] = static_cast<float>(i) * 0.1f;
  for (int offset = 16; offset > 0; offset /= 2) {
    for (int i = 0; i < offset; ++i) sums[i] += sums[i + offset];
  }
  launch(reduce_kernel, {1, 32}, kStream, input.data(), output.data());
  synchronize();
  for (int i = 0; i < 32; ++i) {
    if (output[i] != sums[0] || output[i + 32] != 11.0f || output[i + 64] != -20.0f) return false;
  }
  return true;
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

CaseList warp_cases() {
  using namespace fastcv::FASTCV_VARIANT;
  static constexpr Case kCases[] = {
      {"warp_scan", warp_scan},
      {"shuffles", shuffles},
      {"warp_votes", warp_votes},
      {"warp_memory", warp_memory},
      {"warp_reductions", warp_reductions},
  };
  return {kCases, sizeof(kCases) / sizeof(kCases[0])};
}

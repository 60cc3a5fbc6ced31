// Neighbouring channels moved as one, for the kernels that sample regions of interest.
#pragma once

#include "core/cuda/launch.cuh"
#include "core/cuda/pack.cuh"
#include "core/types.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

// Adds weight * pixel to the sums of kVector neighbouring channels.
template <class T, int kVector>
__device__ __forceinline__ void add_pixel(const T* pixel, Accumulate<T> weight, Accumulate<T> (&sum)[kVector]) {
  const auto values = load_pack<kVector>(pixel);
  for (int v = 0; v < kVector; ++v) {
    sum[v] = multiply_add(weight, static_cast<Accumulate<T>>(to_float(values.value[v])), sum[v]);
  }
}

// Whether kVector channels of a tensor of these strides, channels second, can be moved as one.
template <class T, int kVector>
bool moves_as_one(const void* data, const int64_t (&strides)[4]) {
  bool even = strides[1] == 1 && reinterpret_cast<uintptr_t>(data) % (kVector * sizeof(T)) == 0;
  for (int i : {0, 2, 3}) even = even && strides[i] % kVector == 0;
  return even;
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

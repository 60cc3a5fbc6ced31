// Sparse convolution with at most 16 input channels in a group, for every dtype: first layers, where the map outweighs
// the features.
//
// A thread makes two output rows by kColumns output channels, rows of a warp side by side so that the map is read in
// whole lines. The weight lies in shared memory, in the type of the sums, as many kernel elements at a time as fit; all
// lanes read the same of it, one 16-byte broadcast for 8 multiply-adds.
//
// Napkin maths for an H200, 4 -> 16, 120 000 sites, 27 elements: the map is 13 MB, 3 us; 0.2 G multiply-adds, 7 us at
// 30 T/s; features and results, 10 MB in float32, 2 us. With 3.5 blocks for each multiprocessor waiting for the
// features of one element after another is what remains: sources are read one element ahead.
#pragma once

#include "core/cuda/launch.cuh"
#include "core/cuda/pack.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "ops/sparse_conv/sparse_conv.h"

namespace fastcv::FASTCV_VARIANT {

constexpr int kFewChannels = 16;
constexpr int kFewBlock = 128, kFewRows = 2;
constexpr int kFewBytes = 32 << 10;  // of shared memory for the weight

// Four neighbouring channels from `first` on, zeros past the last.
template <class T>
__device__ __forceinline__ void load_four(const T* row, int first, int channels, bool vectors, Accumulate<T> (&to)[4]) {
  if (vectors) {
    const Pack<T, 4> pack = load_pack<4>(row + first);
#pragma unroll
    for (int c = 0; c < 4; ++c) to[c] = to_float(pack.value[c]);
  } else {
#pragma unroll
    for (int c = 0; c < 4; ++c) to[c] = first + c < channels ? to_float(row[first + c]) : Accumulate<T>(0);
  }
}

// Results that leave at once.
template <class T, int kColumns>
constexpr int kFewPack = least(16 / static_cast<int>(sizeof(T)), kColumns);

template <class T, int kColumns>
__global__ void __launch_bounds__(kFewBlock, 2)
    few_channels_kernel(const SparseConvParams p, unsigned column_tiles, bool vectors, bool packs) {
  using A = Accumulate<T>;
  constexpr int kWeights = kFewBytes / static_cast<int>(sizeof(A));
  using Unit = Pack<A, 16 / sizeof(A)>;
  constexpr int kUnit = 16 / static_cast<int>(sizeof(A)), kPack = kFewPack<T, kColumns>;
  FASTCV_SHARED(Unit, shared, kWeights / kUnit);
  A* const weights = reinterpret_cast<A*>(shared);  // [element][depth][kColumns]
  const int thread = static_cast<int>(threadIdx.x);
  const int group = static_cast<int>(blockIdx.y / column_tiles);
  const int o0 = static_cast<int>(blockIdx.y % column_tiles) * kColumns;
  const int in_channels = static_cast<int>(p.in_channels), out_channels = static_cast<int>(p.out_channels);
  const int depth = (in_channels + 3) / 4 * 4;
  const int elements_at_once = kWeights / (depth * kColumns);
  const int64_t in_row = p.groups * p.in_channels;
  const T* input = static_cast<const T*>(p.input) + group * p.in_channels;
  const T* weight = static_cast<const T*>(p.weight) + group * p.group_stride + o0 * p.out_stride;
  const int64_t m0 = static_cast<int64_t>(blockIdx.x) * (kFewBlock * kFewRows) + thread;
  const auto look_up = [&](int64_t k, int (&to)[kFewRows]) {
#pragma unroll
    for (int r = 0; r < kFewRows; ++r) {
      const int64_t m = m0 + r * kFewBlock;
      to[r] = k < p.volume && m < p.outputs ? p.neighbours[k * p.outputs + m] : -1;
    }
  };

  A sum[kFewRows][kColumns] = {};
  int next[kFewRows];
  look_up(0, next);
  for (int64_t chunk = 0; chunk < p.volume; chunk += elements_at_once) {
    const int elements = p.volume - chunk < elements_at_once ? static_cast<int>(p.volume - chunk) : elements_at_once;
    block_sync();  // the weights of the chunk before have been read
    for (int i = thread; i < elements * depth * kColumns; i += kFewBlock) {
      const int column = i % kColumns, d = i / kColumns % depth, e = i / kColumns / depth;
      A value = A(0);
      if (d < in_channels && o0 + column < out_channels) {
        value = to_float(weight[column * p.out_stride + (chunk + e) * p.element_stride + d * p.in_stride]);
      }
      weights[i] = value;
    }
    block_sync();
    for (int e = 0; e < elements; ++e) {
      int sources[kFewRows];
      bool any = false;
#pragma unroll
      for (int r = 0; r < kFewRows; ++r) {
        sources[r] = next[r] < p.inputs ? next[r] : -1;
        any = any || sources[r] >= 0;
      }
      look_up(chunk + e + 1, next);
      if (!warp_any(kFullMask, any)) continue;
      const Unit* unit = shared + e * depth * (kColumns / kUnit);
      for (int d = 0; d < depth; d += 4) {
        A x[kFewRows][4];
#pragma unroll
        for (int r = 0; r < kFewRows; ++r) {
#pragma unroll
          for (int c = 0; c < 4; ++c) x[r][c] = A(0);
          if (sources[r] >= 0) load_four(input + sources[r] * in_row, d, in_channels, vectors, x[r]);
        }
#pragma unroll
        for (int c = 0; c < 4; ++c) {
#pragma unroll
          for (int j = 0; j < kColumns; j += kUnit) {
            const Unit w = *unit++;
#pragma unroll
            for (int r = 0; r < kFewRows; ++r) {
#pragma unroll
              for (int u = 0; u < kUnit; ++u) sum[r][j + u] = multiply_add(x[r][c], w.value[u], sum[r][j + u]);
            }
          }
        }
      }
    }
  }

  const T* bias = p.bias == nullptr ? nullptr : static_cast<const T*>(p.bias) + group * p.out_channels + o0;
#pragma unroll
  for (int r = 0; r < kFewRows; ++r) {
    const int64_t m = m0 + r * kFewBlock;
    if (m >= p.outputs) continue;
    T* target = static_cast<T*>(p.output) + (m * p.groups + group) * p.out_channels + o0;
#pragma unroll
    for (int j0 = 0; j0 < kColumns; j0 += kPack) {
      Pack<T, kPack> pack;
#pragma unroll
      for (int u = 0; u < kPack; ++u) {
        const bool has_bias = bias != nullptr && o0 + j0 + u < out_channels;
        pack.value[u] = from_float<T>(sum[r][j0 + u] + (has_bias ? A(to_float(bias[j0 + u])) : A(0)));
      }
      if (packs) {
        if (o0 + j0 < out_channels) store_pack(target + j0, pack);
        continue;
      }
#pragma unroll
      for (int u = 0; u < kPack; ++u) {
        if (o0 + j0 + u < out_channels) target[j0 + u] = pack.value[u];
      }
    }
  }
}

template <class T>
void convolve_few_channels(const SparseConvParams& p, Stream stream) {
  const bool vectors = p.in_channels % 4 == 0 && reinterpret_cast<uintptr_t>(p.input) % sizeof(Pack<T, 4>) == 0;
  const auto run = [&](auto kernel, int columns, int pack) {
    const bool packs = p.out_channels % pack == 0 && reinterpret_cast<uintptr_t>(p.output) % (pack * sizeof(T)) == 0;
    const int64_t column_tiles = ceil_div<int64_t>(p.out_channels, columns);
    launch(kernel, {{grid_size(p.outputs, kFewBlock * kFewRows), column_tiles * p.groups}, {kFewBlock}}, stream, p,
           static_cast<unsigned>(column_tiles), vectors, packs);
  };
  if (p.out_channels <= 4) {
    run(&few_channels_kernel<T, 4>, 4, kFewPack<T, 4>);
  } else {
    run(&few_channels_kernel<T, 16>, 16, kFewPack<T, 16>);
  }
}

}  // namespace fastcv::FASTCV_VARIANT

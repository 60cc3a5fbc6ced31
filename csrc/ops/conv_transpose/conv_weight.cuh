// The gradient of the weight on CUDA: for each tap the product, over all pixels i of the input, of input channels and
// output channels at i * stride - padding + k * dilation.
#pragma once

#include "core/cuda/launch.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "ops/conv_transpose/conv_tile.cuh"

namespace fastcv::FASTCV_VARIANT {

constexpr int kWeightTile = 64, kWeightThreads = 256, kWeightPixels = 16;

struct WeightKernelParams {
  ConvAxis axes[3];
  const void* input;
  const void* output;
  void* weight;
  PixelStrides input_strides, output_strides;
  int64_t batch, in_channels, out_channels, taps;
  int64_t row_tiles, column_tiles;
};

// A pixel of the input within the range of a tap, as one thread walks them.
struct PixelCursor {
  int64_t image, z, y, x;

  __device__ __forceinline__ void advance(const TapRange (&range)[3], int64_t by) {
    x += by;
    while (x >= range[2].end && image >= 0) {
      x -= range[2].end - range[2].begin;
      if (++y < range[1].end) continue;
      y = range[1].begin;
      if (++z < range[0].end) continue;
      z = range[0].begin;
      ++image;
    }
  }
};

// A block of 256 threads computes 64 input channels x 64 output channels of one tap, 4 x 4 per thread, and walks all
// pixels in order, 16 at a time through shared memory. Sums are therefore deterministic; few channels make few blocks,
// and leave a large GPU idle.
template <class T>
__global__ void __launch_bounds__(kWeightThreads, 2) weight_kernel(const WeightKernelParams p) {
  using S = Accumulate<T>;
  FASTCV_SHARED(S, tile_a, kWeightPixels * (kWeightTile + 1));
  FASTCV_SHARED(S, tile_b, kWeightPixels * (kWeightTile + 1));
  FASTCV_SHARED(int64_t, origins, 2 * kWeightPixels);  // of the input pixel and of the output pixel; negative: none
  int64_t index = blockIdx.x;
  const int64_t first_column = index % p.column_tiles * kWeightTile;
  index /= p.column_tiles;
  const int64_t first_row = index % p.row_tiles * kWeightTile;
  index /= p.row_tiles;
  const int64_t tap = index % p.taps, group = index / p.taps;
  const TapRange range[3] = {tap_range(p.axes[0], tap / (p.axes[1].kernel * p.axes[2].kernel)),
                             tap_range(p.axes[1], tap / p.axes[2].kernel % p.axes[1].kernel),
                             tap_range(p.axes[2], tap % p.axes[2].kernel)};
  int64_t pixels = p.batch;
  for (const TapRange& r : range) pixels *= r.end - r.begin;

  const int thread = static_cast<int>(threadIdx.x);
  const T* input = static_cast<const T*>(p.input) + group * p.in_channels * p.input_strides.channel;
  const T* output = static_cast<const T*>(p.output) + group * p.out_channels * p.output_strides.channel;
  PixelCursor cursor{0, range[0].begin, range[1].begin, range[2].begin};
  if (pixels > 0 && thread < kWeightPixels) cursor.advance(range, thread);
  const int row = thread / 16, column = thread % 16;
  S sum[4][4] = {};
  for (int64_t first = 0; first < pixels; first += kWeightPixels) {
    block_sync();
    if (thread < kWeightPixels) {
      const bool valid = first + thread < pixels;
      const int64_t from = (cursor.z * p.axes[1].input + cursor.y) * p.axes[2].input + cursor.x;
      const int64_t to_z = cursor.z * p.axes[0].stride + range[0].offset;
      const int64_t to_y = cursor.y * p.axes[1].stride + range[1].offset;
      const int64_t to_x = cursor.x * p.axes[2].stride + range[2].offset;
      const int64_t to = (to_z * p.axes[1].output + to_y) * p.axes[2].output + to_x;
      origins[thread] = valid ? cursor.image * p.input_strides.image + from * p.input_strides.pixel : -1;
      origins[kWeightPixels + thread] = cursor.image * p.output_strides.image + to * p.output_strides.pixel;
      cursor.advance(range, kWeightPixels);
    }
    block_sync();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      // Neighbouring threads read neighbouring memory: channels, or pixels where those are innermost.
      const bool by_channel_a = p.input_strides.channel == 1, by_channel_b = p.output_strides.channel == 1;
      const int k_a = by_channel_a ? thread / 64 + 4 * i : thread % 16;
      const int m = by_channel_a ? thread % 64 : thread / 16 + 16 * i;
      const int k_b = by_channel_b ? thread / 64 + 4 * i : thread % 16;
      const int n = by_channel_b ? thread % 64 : thread / 16 + 16 * i;
      const bool valid_a = origins[k_a] >= 0 && first_row + m < p.in_channels;
      const bool valid_b = origins[k_b] >= 0 && first_column + n < p.out_channels;
      tile_a[k_a * (kWeightTile + 1) + m] =
          valid_a ? to_float(input[origins[k_a] + (first_row + m) * p.input_strides.channel]) : S(0);
      tile_b[k_b * (kWeightTile + 1) + n] =
          valid_b ? to_float(output[origins[kWeightPixels + k_b] + (first_column + n) * p.output_strides.channel])
                  : S(0);
    }
    block_sync();
#pragma unroll
    for (int k = 0; k < kWeightPixels; ++k) {
      S a[4], b[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a[i] = tile_a[k * (kWeightTile + 1) + row + 16 * i];
        b[i] = tile_b[k * (kWeightTile + 1) + column + 16 * i];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] = multiply_add(a[i], b[j], sum[i][j]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t c = first_row + row + 16 * i;
    if (c >= p.in_channels) continue;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t o = first_column + column + 16 * j;
      if (o >= p.out_channels) continue;
      static_cast<T*>(p.weight)[((group * p.in_channels + c) * p.out_channels + o) * p.taps + tap] =
          from_float<T>(sum[i][j]);
    }
  }
}

}  // namespace fastcv::FASTCV_VARIANT

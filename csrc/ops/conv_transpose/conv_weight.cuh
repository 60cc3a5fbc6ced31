// The gradient of the weight on CUDA: for each tap the product, over all pixels i of the input, of input channels and
// output channels at i * stride - padding + k * dilation.
//
// The pixels of a tap are cut into pieces, whose number depends on the sizes alone (conv_weight_pieces): enough blocks
// for a large GPU also where channels are few. Each piece is summed in order by one block, the pieces in order by
// add_pieces_kernel; a single piece goes straight to the weight. Two kernels: plain arithmetic here, tensor cores in
// conv_weight_mma.cuh.
//
// Napkin maths for an H200, U-Net's 64 x 64 x 512 -> 256, 2 x 2, stride 2, float32 without tf32: 4.3 GFLOP at half of 60
// TFLOP/s, 0.14 ms.
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
  int64_t row_tiles, column_tiles, groups;
  int64_t pieces;
  void* workspace;  // [piece][group][tap][input channel][output channel]; unused for one piece
};

// What one block sums.
struct WeightTask {
  int64_t group, tap, piece;
  int64_t first_row, first_column;  // channels of the group
  int64_t begin, count;             // pixels, of those that the tap reaches
  TapRange range[3];
};

inline __device__ WeightTask weight_task(const WeightKernelParams& p) {
  WeightTask task;
  unsigned index = blockIdx.x;  // pieces outermost
  const auto take = [&](int64_t count) {
    const unsigned value = index % static_cast<unsigned>(count);
    index /= static_cast<unsigned>(count);
    return static_cast<int64_t>(value);
  };
  task.first_column = take(p.column_tiles) * kWeightTile;
  task.first_row = take(p.row_tiles) * kWeightTile;
  task.tap = take(p.taps);
  task.group = take(p.groups);
  task.piece = index;
  const unsigned tap = static_cast<unsigned>(task.tap), size_y = static_cast<unsigned>(p.axes[1].kernel);
  const unsigned size_x = static_cast<unsigned>(p.axes[2].kernel);
  task.range[0] = tap_range(p.axes[0], tap / (size_y * size_x));
  task.range[1] = tap_range(p.axes[1], tap / size_x % size_y);
  task.range[2] = tap_range(p.axes[2], tap % size_x);
  int64_t pixels = p.batch;
  for (const TapRange& r : task.range) pixels *= r.end - r.begin;
  const int64_t share = ceil_div(pixels, p.pieces);
  task.begin = task.piece * share;
  const int64_t rest = pixels - task.begin;
  task.count = rest <= 0 ? 0 : least(rest, share);
  return task;
}

// A pixel of the input within the range of a tap, as one thread walks them. I: the type of its place, 32 bits where
// the tensor cores wait for it.
template <class I>
struct PixelCursor {
  I image, z, y, x;
  TapRangeOf<I> range[3];

  // The pixel `index` of the range; of an empty one any.
  __device__ PixelCursor(const TapRange (&ranges)[3], int64_t index) {
    for (int i = 0; i < 3; ++i) {
      range[i] = {static_cast<I>(ranges[i].begin), static_cast<I>(ranges[i].end), static_cast<I>(ranges[i].offset)};
    }
    const auto take = [&](const TapRange& r) {
      const int64_t size = r.end > r.begin ? r.end - r.begin : 1, place = r.begin + index % size;
      index /= size;
      return static_cast<I>(place);
    };
    x = take(ranges[2]);
    y = take(ranges[1]);
    z = take(ranges[0]);
    image = static_cast<I>(index);
  }

  // The offsets of channel 0 of this pixel, and of the output pixel that the tap leads to.
  __device__ __forceinline__ void locate(const WeightKernelParams& p, int64_t& from, int64_t& to) const {
    const auto stride = [&](int axis) { return static_cast<I>(p.axes[axis].stride); };
    const int64_t row = static_cast<int64_t>(z) * p.axes[1].input + y;
    const I to_z = z * stride(0) + range[0].offset, to_y = y * stride(1) + range[1].offset;
    const I to_x = x * stride(2) + range[2].offset;
    const int64_t to_row = static_cast<int64_t>(to_z) * p.axes[1].output + to_y;
    from = image * p.input_strides.image + (row * p.axes[2].input + x) * p.input_strides.pixel;
    to = image * p.output_strides.image + (to_row * p.axes[2].output + to_x) * p.output_strides.pixel;
  }

  __device__ __forceinline__ void advance(I by) {
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

// The sum of one piece for channels c and o of the task's group.
template <class T>
__device__ __forceinline__ void store_weight(const WeightKernelParams& p, const WeightTask& task, int64_t c, int64_t o,
                                             Accumulate<T> sum) {
  if (c >= p.in_channels || o >= p.out_channels) return;
  if (p.pieces == 1) {
    static_cast<T*>(p.weight)[((task.group * p.in_channels + c) * p.out_channels + o) * p.taps + task.tap] =
        from_float<T>(sum);
  } else {
    const int64_t matrix = (task.piece * p.groups + task.group) * p.taps + task.tap;
    static_cast<Accumulate<T>*>(p.workspace)[(matrix * p.in_channels + c) * p.out_channels + o] = sum;
  }
}

// One thread per element of the weight, as the workspace orders them.
template <class T>
__global__ void __launch_bounds__(kWeightThreads, 2) add_pieces_kernel(const WeightKernelParams p, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kWeightThreads + threadIdx.x;
  if (i >= count) return;
  const Accumulate<T>* source = static_cast<const Accumulate<T>*>(p.workspace) + i;
  Accumulate<T> sum = 0;
  for (int64_t piece = 0; piece < p.pieces; ++piece) sum += source[piece * count];
  const int64_t o = i % p.out_channels, c = i / p.out_channels % p.in_channels;
  const int64_t tap = i / p.out_channels / p.in_channels % p.taps, group = i / p.out_channels / p.in_channels / p.taps;
  static_cast<T*>(p.weight)[((group * p.in_channels + c) * p.out_channels + o) * p.taps + tap] = from_float<T>(sum);
}

// A block of 256 threads computes 64 input channels x 64 output channels of one tap, 4 x 4 per thread, and walks the
// pixels of its piece in order, 16 at a time through shared memory.
template <class T>
__global__ void __launch_bounds__(kWeightThreads, 2) weight_kernel(const WeightKernelParams p) {
  using S = Accumulate<T>;
  FASTCV_SHARED(S, tile_a, kWeightPixels * (kWeightTile + 1));
  FASTCV_SHARED(S, tile_b, kWeightPixels * (kWeightTile + 1));
  FASTCV_SHARED(int64_t, origins, 2 * kWeightPixels);  // of the input pixel and of the output pixel; negative: none
  const WeightTask task = weight_task(p);
  const int thread = static_cast<int>(threadIdx.x);
  const T* input = static_cast<const T*>(p.input) + task.group * p.in_channels * p.input_strides.channel;
  const T* output = static_cast<const T*>(p.output) + task.group * p.out_channels * p.output_strides.channel;
  const int row = thread / 16, column = thread % 16;
  S sum[4][4] = {};
  PixelCursor<int64_t> cursor(task.range, task.begin + (thread < task.count ? thread : 0));
  for (int64_t first = 0; first < task.count; first += kWeightPixels) {
    block_sync();
    if (thread < kWeightPixels) {
      origins[thread] = -1;
      if (first + thread < task.count) {
        cursor.locate(p, origins[thread], origins[kWeightPixels + thread]);
        cursor.advance(kWeightPixels);
      }
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
      const bool valid_a = origins[k_a] >= 0 && task.first_row + m < p.in_channels;
      const bool valid_b = origins[k_b] >= 0 && task.first_column + n < p.out_channels;
      tile_a[k_a * (kWeightTile + 1) + m] =
          valid_a ? to_float(input[origins[k_a] + (task.first_row + m) * p.input_strides.channel]) : S(0);
      tile_b[k_b * (kWeightTile + 1) + n] =
          valid_b ? to_float(output[origins[kWeightPixels + k_b] + (task.first_column + n) * p.output_strides.channel])
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
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      store_weight<T>(p, task, task.first_row + row + 16 * i, task.first_column + column + 16 * j, sum[i][j]);
    }
  }
}

}  // namespace fastcv::FASTCV_VARIANT

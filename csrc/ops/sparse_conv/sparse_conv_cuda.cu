// Sparse convolution on CUDA. See sparse_conv.h for the meaning.
//
// Four ways forward: few input channels (sparse_few.cuh), tensor cores (sparse_mma.cuh), those of sm_90a by warpgroups
// (sparse_conv_wgmma_cuda.cu), and the kernel here, right for every dtype, number of channels and groups. The gradient to the input is the same over the reverse map. Two
// kernels make the gradient to the weight: tensor cores (sparse_weight_mma.cuh) and the one here.
//
// Forward: a block makes a tile of kTileRows output rows by kTileColumns output channels of one group, and keeps it in
// registers from the first kernel element to the last. An element that none of the rows has is skipped. For the others
// the block gathers kDepth input channels of the rows' neighbours into shared memory, the weight beside them, and
// every thread adds to its 4 x 4 sums. No atomics: each output is one thread's.
//
// Weight gradient: a block makes a tile of input by output channels of one kernel element from one piece of the output
// rows; it gathers the rows of kDepth pairs at a time. A second kernel adds up the pieces in their order.
//
// Napkin maths, 64 -> 64 channels, 50 000 sites with 9 neighbours, float32: 3.7 GFLOP; at 16 loads from shared memory
// for 32 FMAs per step half of the 60 TFLOP/s of an H200 are out of reach, so 0.15 ms; gathering 115 MB out of L2 takes
// 0.02 ms.
#include "core/cuda/block_rank.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "ops/sparse_conv/sparse_conv.h"
#include "ops/sparse_conv/sparse_few.cuh"
#include "ops/sparse_conv/sparse_mma.cuh"
#include "ops/sparse_conv/sparse_weight_mma.cuh"
#include "ops/sparse_conv/sparse_wgmma.cuh"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kBlockSize = 128;
constexpr int kTileRows = 64;
constexpr int kTileColumns = 32;
constexpr int kDepth = 16;
constexpr int kThreadRows = 4, kThreadColumns = 4;
constexpr int kColumnThreads = kTileColumns / kThreadColumns;  // threads side by side
static_assert(kTileRows / kThreadRows * kColumnThreads == kBlockSize);
constexpr int kPitch = kTileRows + 1;

// Adds the product of [kDepth][kPitch] and [kDepth][kTileColumns] in shared memory to this thread's sums: its rows are
// row, row + 16, ... and its columns are neighbours.
template <class A>
__device__ __forceinline__ void add_products(const A* left, const A* right, A (&sum)[kThreadRows][kThreadColumns]) {
  const int row = static_cast<int>(threadIdx.x) / kColumnThreads;
  const int column = static_cast<int>(threadIdx.x) % kColumnThreads * kThreadColumns;
#pragma unroll 4
  for (int d = 0; d < kDepth; ++d) {
    A a[kThreadRows], b[kThreadColumns];
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) a[i] = left[d * kPitch + row + i * (kTileRows / kThreadRows)];
#pragma unroll
    for (int j = 0; j < kThreadColumns; ++j) b[j] = right[d * kTileColumns + column + j];
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
#pragma unroll
      for (int j = 0; j < kThreadColumns; ++j) sum[i][j] = multiply_add(a[i], b[j], sum[i][j]);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kBlockSize, 2) convolve_kernel(const SparseConvParams p, unsigned column_tiles) {
  using A = Accumulate<T>;
  FASTCV_SHARED(A, gathered, kDepth * kPitch);
  FASTCV_SHARED(A, weights, kDepth * kTileColumns);
  FASTCV_SHARED(int, sources, kTileRows);
  FASTCV_SHARED(int, targets, kTileRows);
  const int thread = static_cast<int>(threadIdx.x);
  const int group = static_cast<int>(blockIdx.y / column_tiles);
  const int o0 = static_cast<int>(blockIdx.y % column_tiles) * kTileColumns;
  const int in_channels = static_cast<int>(p.in_channels), out_channels = static_cast<int>(p.out_channels);
  const int64_t in_row = p.groups * p.in_channels;
  const T* input = static_cast<const T*>(p.input) + group * p.in_channels;
  const T* weight = static_cast<const T*>(p.weight) + group * p.group_stride + o0 * p.out_stride;

  int own = -1;  // the row whose neighbours this thread looks up
  if (thread < kTileRows) {
    own = ordered_row(p, static_cast<int64_t>(blockIdx.x) * kTileRows + thread);
    targets[thread] = own;
  }
  block_sync();
  A sum[kThreadRows][kThreadColumns] = {};
  for (int64_t k = 0; k < p.volume; ++k) {
    bool present = false;
    if (thread < kTileRows) {
      int source = -1;
      if (own >= 0) source = p.neighbours[k * p.outputs + own];
      present = source >= 0 && source < p.inputs;
      sources[thread] = present ? source : -1;
    }
    if (!block_any(present)) continue;
    for (int i0 = 0; i0 < in_channels; i0 += kDepth) {
      for (int e = thread; e < kTileRows * kDepth; e += kBlockSize) {
        const int row = e / kDepth, d = e % kDepth;
        A value = A(0);
        if (sources[row] >= 0 && i0 + d < in_channels) value = to_float(input[sources[row] * in_row + i0 + d]);
        gathered[d * kPitch + row] = value;
      }
      for (int e = thread; e < kTileColumns * kDepth; e += kBlockSize) {
        const int column = e / kDepth, d = e % kDepth;
        A value = A(0);
        if (o0 + column < out_channels && i0 + d < in_channels) {
          value = to_float(weight[column * p.out_stride + k * p.element_stride + (i0 + d) * p.in_stride]);
        }
        weights[d * kTileColumns + column] = value;
      }
      block_sync();
      add_products(gathered, weights, sum);
      block_sync();
    }
  }

  const int row = thread / kColumnThreads, column = thread % kColumnThreads * kThreadColumns;
  const T* bias = p.bias == nullptr ? nullptr : static_cast<const T*>(p.bias) + group * p.out_channels + o0;
#pragma unroll
  for (int i = 0; i < kThreadRows; ++i) {
    const int64_t m = targets[row + i * (kTileRows / kThreadRows)];
    if (m < 0) continue;
    T* target = static_cast<T*>(p.output) + (m * p.groups + group) * p.out_channels + o0;
#pragma unroll
    for (int j = 0; j < kThreadColumns; ++j) {
      if (o0 + column + j >= out_channels) continue;
      const A offset = bias == nullptr ? A(0) : A(to_float(bias[column + j]));
      target[column + j] = from_float<T>(sum[i][j] + offset);
    }
  }
}

// blockIdx.x: kernel element and piece; blockIdx.y: group, tile of input channels (the rows), tile of output channels.
// The workspace is [piece][group][k][in_channels][out_channels].
template <class T>
__global__ void __launch_bounds__(kBlockSize, 2)
    weight_kernel(const SparseConvWeightParams p, unsigned pieces, unsigned row_tiles, unsigned column_tiles) {
  using A = Accumulate<T>;
  FASTCV_SHARED(A, inputs, kDepth * kPitch);
  FASTCV_SHARED(A, gradients, kDepth * kTileColumns);
  FASTCV_SHARED(int, sources, kBlockSize);
  FASTCV_SHARED(int, targets, kBlockSize);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t k = blockIdx.x / pieces;
  const unsigned piece = blockIdx.x % pieces;
  const int o0 = static_cast<int>(blockIdx.y % column_tiles) * kTileColumns;
  const int i0 = static_cast<int>(blockIdx.y / column_tiles % row_tiles) * kTileRows;
  const int group = static_cast<int>(blockIdx.y / column_tiles / row_tiles);
  const int in_channels = static_cast<int>(p.in_channels), out_channels = static_cast<int>(p.out_channels);
  const int64_t piece_rows = ceil_div(static_cast<unsigned>(p.outputs), pieces);
  const int64_t begin = piece * piece_rows;
  const int64_t end = least(begin + piece_rows, p.outputs);
  const T* input = static_cast<const T*>(p.input) + group * p.in_channels + i0;
  const T* gradient = static_cast<const T*>(p.grad_output) + group * p.out_channels + o0;

  A sum[kThreadRows][kThreadColumns] = {};
  for (int64_t m0 = begin; m0 < end; m0 += kBlockSize) {
    // The pairs of the next kBlockSize rows, in their order.
    int source = -1;
    if (m0 + thread < end) source = p.neighbours[k * p.outputs + m0 + thread];
    const bool present = source >= 0 && source < p.inputs;
    int pairs;
    const int place = block_rank<kBlockSize>(present, pairs);
    if (present) {
      sources[place] = source;
      targets[place] = thread;
    }
    block_sync();
    for (int first = 0; first < pairs; first += kDepth) {
      for (int e = thread; e < kTileRows * kDepth; e += kBlockSize) {
        const int d = e / kTileRows, i = e % kTileRows;
        A value = A(0);
        if (first + d < pairs && i0 + i < in_channels) {
          value = to_float(input[sources[first + d] * (p.groups * p.in_channels) + i]);
        }
        inputs[d * kPitch + i] = value;
      }
      for (int e = thread; e < kTileColumns * kDepth; e += kBlockSize) {
        const int d = e / kTileColumns, o = e % kTileColumns;
        A value = A(0);
        if (first + d < pairs && o0 + o < out_channels) {
          value = to_float(gradient[(m0 + targets[first + d]) * (p.groups * p.out_channels) + o]);
        }
        gradients[d * kTileColumns + o] = value;
      }
      block_sync();
      add_products(inputs, gradients, sum);
      block_sync();
    }
  }

  const int row = thread / kColumnThreads, column = thread % kColumnThreads * kThreadColumns;
  A* target =
      static_cast<A*>(p.workspace) + ((piece * p.groups + group) * p.volume + k) * p.in_channels * p.out_channels;
#pragma unroll
  for (int r = 0; r < kThreadRows; ++r) {
    const int i = i0 + row + r * (kTileRows / kThreadRows);
    if (i >= in_channels) continue;
#pragma unroll
    for (int j = 0; j < kThreadColumns; ++j) {
      if (o0 + column + j < out_channels) target[i * p.out_channels + o0 + column + j] = sum[r][j];
    }
  }
}

// One thread per element of grad_weight; blockIdx.y is an output channel.
template <class T>
__global__ void __launch_bounds__(kBlockSize, 2) add_pieces_kernel(const SparseConvWeightParams p, unsigned pieces) {
  using A = Accumulate<T>;
  const unsigned index = blockIdx.x * kBlockSize + threadIdx.x;  // k * in_channels + i
  const unsigned in_channels = static_cast<unsigned>(p.in_channels),
                 out_channels = static_cast<unsigned>(p.out_channels);
  if (index >= static_cast<unsigned>(p.volume) * in_channels) return;
  const int64_t size = p.groups * p.volume * p.in_channels * p.out_channels;
  for (unsigned channel = blockIdx.y; channel < out_channels * p.groups; channel += gridDim.y) {
    const unsigned group = channel / out_channels, o = channel % out_channels;
    const A* source =
        static_cast<const A*>(p.workspace) + (group * p.volume * p.in_channels + index) * p.out_channels + o;
    A sum = A(0);
    for (unsigned piece = 0; piece < pieces; ++piece) sum += source[piece * size];
    static_cast<T*>(p.grad_weight)[channel * (p.volume * p.in_channels) + index] = from_float<T>(sum);
  }
}

template <class T>
void convolve(const SparseConvParams& p, Stream stream) {
  const bool few = p.in_channels > 0 && p.in_channels <= kFewChannels;
  if (few && p.out_channels <= 2 * kFewChannels) return convolve_few_channels<T>(p, stream);
  if constexpr (sizeof(T) <= 4) {
    if (suits_warpgroups<T>(p, stream)) return convolve_on_warpgroups(p, stream);
    if ((sizeof(T) == 2 || p.tf32) && suits_tensor_cores<T>(p)) return convolve_on_tensor_cores<T>(p, stream);
  }
  if (few) return convolve_few_channels<T>(p, stream);
  const int64_t column_tiles = ceil_div<int64_t>(p.out_channels, kTileColumns);
  launch(convolve_kernel<T>, {{grid_size(p.outputs, kTileRows), column_tiles * p.groups}, {kBlockSize}}, stream, p,
         static_cast<unsigned>(column_tiles));
}

template <class T>
void weight_gradient(const SparseConvWeightParams& p, Stream stream) {
  const int64_t pieces = weight_gradient_pieces(p.outputs);
  const auto run = [&](auto kernel, int threads, int rows, int columns) {
    const int64_t row_tiles = ceil_div<int64_t>(p.in_channels, rows);
    const int64_t column_tiles = ceil_div<int64_t>(p.out_channels, columns);
    launch(kernel, {{p.volume * pieces, p.groups * row_tiles * column_tiles}, {threads}}, stream, p,
           static_cast<unsigned>(pieces), static_cast<unsigned>(row_tiles), static_cast<unsigned>(column_tiles));
  };
  bool done = false;
  if constexpr (sizeof(T) <= 4) {
    if ((sizeof(T) == 2 || p.tf32) && suits_tensor_cores<T>(p)) {
      using Tile = WeightMmaTile<T>;
      run(&weight_mma_kernel<T>, Tile::kThreads, Tile::kRows, Tile::kColumns);
      done = true;
    }
  }
  if (!done) run(&weight_kernel<T>, kBlockSize, kTileRows, kTileColumns);
  const int64_t channels = p.groups * p.out_channels;
  launch(add_pieces_kernel<T>,
         {{grid_size(p.volume * p.in_channels, kBlockSize), least(channels, 65535)}, {kBlockSize}}, stream, p,
         static_cast<unsigned>(pieces));
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void sparse_conv_cuda(const SparseConvParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) { convolve<typename decltype(tag)::type>(params, stream); });
}

void sparse_conv_weight_cuda(const SparseConvWeightParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) { weight_gradient<typename decltype(tag)::type>(params, stream); });
}

}  // namespace fastcv

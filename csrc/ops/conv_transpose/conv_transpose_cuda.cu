// Transposed convolution on CUDA. See conv_transpose.h for the meaning, conv_geometry.h for the phases.
//
// Output and input gradient are implicit matrix products: rows are target sites of one phase, columns are channels, and
// the sum runs over the taps of the phase and the channels of the source. Nothing is stored in between, nothing is
// added twice, no atomics. Three kernels: plain arithmetic for everything; tensor cores for float16, bfloat16 and, where
// tf32 is allowed, float32 whose source has its channels innermost (conv_mma.cuh); and, of those, the one for kernels as
// large as their stride (conv_spread.cuh). The weight is packed first, [group][tap][column][depth], so that all read it
// along the sum. The gradient of the weight is in conv_weight.cuh.
#include "core/cuda/launch.cuh"
#include "ops/conv_transpose/conv_mma.cuh"
#include "ops/conv_transpose/conv_spread.cuh"
#include "ops/conv_transpose/conv_tile.cuh"
#include "ops/conv_transpose/conv_weight.cuh"
#include "ops/conv_transpose/conv_weight_mma.cuh"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kBlockSize = 256;
constexpr int kStepDepth = 16;

struct PackParams {
  const void* weight;
  void* packed;
  int64_t count, taps, depth, columns;
  int64_t weight_rows;  // input channels of a group
  bool forward;
};

// One thread per element of the packed weight; reads are strided, writes are not.
template <class T>
__global__ void __launch_bounds__(kBlockSize, 2) pack_kernel(const PackParams p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  if (i >= p.count) return;
  const int64_t k = i % p.depth, column = i / p.depth % p.columns, tap = i / p.depth / p.columns % p.taps;
  const int64_t group = i / p.depth / p.columns / p.taps;
  const int64_t c = p.forward ? k : column, o = p.forward ? column : k;
  const int64_t outputs = p.forward ? p.columns : p.depth;
  static_cast<T*>(p.packed)[i] =
      static_cast<const T*>(p.weight)[((group * p.weight_rows + c) * outputs + o) * p.taps + tap];
}

// A block of 256 threads computes 64 sites x 64 columns, each thread 4 x 4 of them 16 apart. Steps of 16 channels of
// one tap go through shared memory: 1 024 products per thread and step against 8 loads from global memory. Threads that
// are neighbours read and write neighbouring memory whichever axis is innermost.
//
// Napkin maths for an H200, U-Net's 4 x 512 x 64 x 64 -> 256, 2 x 2, stride 2, float32 without tf32: 17.2 GFLOP; 8 loads
// from shared memory to 16 multiply-adds leave half of 60 TFLOP/s: 0.6 ms. 8 192 blocks read 256 KB each: 2.1 GB out of
// L2, 0.4 ms beside it.
template <class T>
__global__ void __launch_bounds__(kBlockSize, 2) gather_kernel(const GatherKernelParams<int64_t> p) {
  using S = Accumulate<T>;
  FASTCV_SHARED(S, tile_a, kStepDepth * (kTileSites + 1));
  FASTCV_SHARED(S, tile_b, kStepDepth * (kTileColumns + 1));
  FASTCV_SHARED(Site<int64_t>, sites, kTileSites);
  FASTCV_SHARED(int64_t, origins, kTileSites);
  const BlockTask<int64_t> task = block_task(p);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < kTileSites) sites[thread] = locate_site(p, task, task.first_site + thread);
  const T* source = static_cast<const T*>(p.source) + task.group * p.depth * p.source_strides.channel;
  const T* packed = static_cast<const T*>(p.packed) + task.group * p.taps * p.columns * p.depth;
  const bool source_by_channel = p.source_strides.channel == 1, target_by_channel = p.target_strides.channel == 1;
  const int row = target_by_channel ? thread / 16 : thread % 16, column = target_by_channel ? thread % 16 : thread / 16;
  S sum[4][4] = {};
  for_each_tap(p, task, [&](int64_t tap, int64_t offset_z, int64_t offset_y, int64_t offset_x) {
    block_sync();  // sites are written; the origins of the tap before have been read
    if (thread < kTileSites) origins[thread] = locate_source(p, sites[thread], offset_z, offset_y, offset_x);
    const T* matrix = packed + tap * p.columns * p.depth;
    for (int64_t first = 0; first < p.depth; first += kStepDepth) {
      block_sync();
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int m = source_by_channel ? thread / 16 + 16 * i : thread % 64;
        const int k = source_by_channel ? thread % 16 : thread / 64 + 4 * i;
        const bool valid = origins[m] >= 0 && first + k < p.depth;
        tile_a[k * (kTileSites + 1) + m] =
            valid ? to_float(source[origins[m] + (first + k) * p.source_strides.channel]) : S(0);
        const int n = thread / 16 + 16 * i, l = thread % 16;
        const bool inside = task.first_column + n < p.columns && first + l < p.depth;
        tile_b[l * (kTileColumns + 1) + n] =
            inside ? to_float(matrix[(task.first_column + n) * p.depth + first + l]) : S(0);
      }
      block_sync();
#pragma unroll
      for (int k = 0; k < kStepDepth; ++k) {
        S a[4], b[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          a[i] = tile_a[k * (kTileSites + 1) + row + 16 * i];
          b[i] = tile_b[k * (kTileColumns + 1) + column + 16 * i];
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) sum[i][j] = multiply_add(a[i], b[j], sum[i][j]);
        }
      }
    }
  });
  block_sync();  // a phase without taps has met no barrier yet
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t target = sites[row + 16 * i].target;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t n = task.first_column + column + 16 * j;
      if (target < 0 || n >= p.columns) continue;
      T* const to = static_cast<T*>(p.target) + target + (task.group * p.columns + n) * p.target_strides.channel;
      *to = from_float<T>(finished(p, task, n, sum[i][j]));
    }
  }
}

int64_t taps_of(const ConvTransposeParams& p) {
  return p.axes[0].kernel * p.axes[1].kernel * p.axes[2].kernel;
}

PixelStrides pixel_strides(bool channels_last, int64_t channels, int64_t pixels) {
  if (channels_last) return {channels * pixels, 1, channels};
  return {channels * pixels, pixels, 1};
}

int64_t pixels_of(const ConvTransposeParams& p, bool input) {
  int64_t count = 1;
  for (const ConvAxis& axis : p.axes) count *= input ? axis.input : axis.output;
  return count;
}

void gather(const ConvTransposeParams& params, bool forward, Stream stream) {
  GatherKernelParams<int64_t> p{};
  int64_t phases = 1, sites = params.batch;
  for (int i = 0; i < 3; ++i) {
    p.axes[i] = gather_axis(params.axes[i], forward);
    phases *= phases_of(p.axes[i]);
    sites *= sites_of_phase(p.axes[i]);
  }
  p.source = forward ? params.input : params.output;
  p.target = forward ? params.output : params.input;
  p.packed = params.packed;
  p.bias = params.bias;
  p.relu = params.relu;
  p.batch = params.batch;
  p.groups = params.groups;
  p.depth = forward ? params.in_channels : params.out_channels;
  p.columns = forward ? params.out_channels : params.in_channels;
  p.taps = taps_of(params);
  const PixelStrides input =
      pixel_strides(params.input_channels_last, params.groups * params.in_channels, pixels_of(params, true));
  const PixelStrides output =
      pixel_strides(params.output_channels_last, params.groups * params.out_channels, pixels_of(params, false));
  p.source_strides = forward ? input : output;
  p.target_strides = forward ? output : input;
  p.site_tiles = ceil_div<int64_t>(sites, kTileSites);
  p.column_tiles = ceil_div<int64_t>(p.columns, kTileColumns);
  const int64_t blocks = grid_size(p.site_tiles * p.column_tiles * p.groups * phases, 1);
  dispatch_floating(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (sizeof(T) <= 4) {
      if ((sizeof(T) == 2 || params.tf32) && suits_tensor_cores<T>(p)) {
        if (p.groups < 65536 && suits_spread<T>(p)) return launch_spread<T>(p, stream);
        return launch(mma_kernel<T>, {{blocks}, {GatherTile<T>::kThreads}}, stream, in_32_bits(p));
      }
    }
    launch(gather_kernel<T>, {{blocks}, {kBlockSize}}, stream, p);
  });
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void conv_transpose_pack_cuda(const ConvTransposeParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  PackParams p{};
  p.weight = params.weight;
  p.packed = params.packed;
  p.taps = taps_of(params);
  p.forward = params.packs_forward;
  p.depth = p.forward ? params.in_channels : params.out_channels;
  p.columns = p.forward ? params.out_channels : params.in_channels;
  p.weight_rows = params.in_channels;
  p.count = params.groups * p.taps * p.depth * p.columns;
  dispatch_floating(params.dtype, [&](auto tag) {
    launch(pack_kernel<typename decltype(tag)::type>, {{grid_size(p.count, kBlockSize)}, {kBlockSize}}, stream, p);
  });
}

void conv_transpose_forward_cuda(const ConvTransposeParams& params, Stream stream) {
  FASTCV_VARIANT::gather(params, true, stream);
}

void conv_transpose_backward_input_cuda(const ConvTransposeParams& params, Stream stream) {
  FASTCV_VARIANT::gather(params, false, stream);
}

void conv_transpose_backward_weight_cuda(const ConvTransposeParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  WeightKernelParams p{};
  for (int i = 0; i < 3; ++i) p.axes[i] = params.axes[i];
  p.input = params.input;
  p.output = params.output;
  p.weight = params.weight;
  p.batch = params.batch;
  p.in_channels = params.in_channels;
  p.out_channels = params.out_channels;
  p.input_strides =
      pixel_strides(params.input_channels_last, params.groups * params.in_channels, pixels_of(params, true));
  p.output_strides =
      pixel_strides(params.output_channels_last, params.groups * params.out_channels, pixels_of(params, false));
  p.row_tiles = ceil_div<int64_t>(params.in_channels, kWeightTile);
  p.column_tiles = ceil_div<int64_t>(params.out_channels, kWeightTile);
  p.taps = taps_of(params);
  p.groups = params.groups;
  p.pieces = conv_weight_pieces(params);
  p.workspace = params.workspace;
  const int64_t blocks = grid_size(p.row_tiles * p.column_tiles * p.taps * p.groups * p.pieces, 1);
  const int64_t count = p.groups * p.in_channels * p.out_channels * p.taps;
  dispatch_floating(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    bool done = false;
    if constexpr (sizeof(T) <= 4) {
      if ((sizeof(T) == 2 || params.tf32) && suits_tensor_cores<T>(p)) {
        launch(weight_mma_kernel<T>, {{blocks}, {WeightMmaTile<T>::kThreads}}, stream, p);
        done = true;
      }
    }
    if (!done) launch(weight_kernel<T>, {{blocks}, {kWeightThreads}}, stream, p);
    if (p.pieces > 1) {
      launch(add_pieces_kernel<T>, {{grid_size(count, kWeightThreads)}, {kWeightThreads}}, stream, p, count);
    }
  });
}

}  // namespace fastcv

// Deformable convolution on CUDA. See deform_conv2d.h for the meaning. Maps have channels innermost, so that a warp reads
// each corner of 32 channels as one run.
//
// Forward: a block of 256 threads makes a tile of 64 positions x 64 output channels. For each kernel element and 32
// channels it takes the samples into shared memory and multiplies them with the weight. Nothing else is stored.
//
// Backward: the gradients of the columns go to memory (N, P, K, C), made by the same tiles. Then
//   offset, mask   a warp for each sample sums over the channels of its offset group, in one order;
//   input          gathers: torch has sorted the samples, stably, by the cell their first corner lies in. A pixel is a
//                  corner of samples in four cells, two runs of two neighbouring cells: a warp looks for the ends of
//                  both runs and sums their samples in order, a lane for each channel;
//   weight         tiles of 64 output channels x 64 channels of one kernel element over a piece of the positions, with
//                  samples taken anew; the pieces are summed in order.
// No atomics: the same bits in every run.
//
// Napkin maths, 256 -> 256, 3 x 3, 50 x 68, float32, a GPU with 15 TFLOP/s outside of the tensor cores and 1.5 TB/s:
// 4.0 GFLOP forward, 0.27 ms; each sample is taken 4 times, once for each tile of output channels, at about 45
// instructions to the 64 products that it is good for: 0.2 ms more. Columns' gradients 31 MB, written once, read by the
// offsets' warps and once for each of four corners: 0.1 ms from memory at worst. Products of the backward 0.54 ms; the
// sort of 30 600 keys 0.05 ms.
#include "ops/deform_conv2d/deform_sample.cuh"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kWarps = kTileThreads / 32;

// ---- forward --------------------------------------------------------------------------------------------------------

// Grid: (image and tile of positions, tile of output channels, group).
template <class T>
__global__ void __launch_bounds__(kTileThreads) forward_kernel(DeformConv2dParams p) {
  using A = Accumulate<T>;
  FASTCV_SHARED(A, rows, kTileSide * kTilePitch);
  FASTCV_SHARED(A, columns, kTileDepth * kTileSide);
  const DeformGeometry& g = p.geometry;
  const int64_t positions = g.y.output * g.x.output, taps = g.y.kernel * g.x.kernel;
  const int64_t in_channels = g.in_channels / g.groups, out_channels = g.out_channels / g.groups;
  const int64_t tiles = ceil_div(positions, kTileSide);
  const int64_t n = blockIdx.x / tiles, first = blockIdx.x % tiles * kTileSide;
  const int64_t first_out = static_cast<int64_t>(blockIdx.y) * kTileSide, group = blockIdx.z;
  const T* const weight = static_cast<const T*>(p.weight) + group * taps * in_channels * out_channels;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  ProductTile<A> tile;
  for (int64_t tap = 0; tap < taps; ++tap) {
    for (int64_t c = 0; c < in_channels; c += kTileDepth) {
      for (int i = thread / 32; i < kTileSide; i += kWarps) {
        const bool valid = first + i < positions && c + lane < in_channels;
        rows[i * kTilePitch + lane] = valid ? column_of<T>(g, n, tap, first + i, group * in_channels + c + lane) : A(0);
      }
      for (int i = thread; i < kTileDepth * kTileSide; i += kTileThreads) {
        const int64_t k = c + i / kTileSide, o = first_out + i % kTileSide;
        const bool valid = k < in_channels && o < out_channels;
        columns[i] = valid ? to_float(weight[(tap * in_channels + k) * out_channels + o]) : A(0);
      }
      block_sync();
      tile.add(rows, columns);
      block_sync();
    }
  }
  const A* const bias = static_cast<const A*>(p.bias);
  tile.for_each([&](int row, int column, A sum) {
    const int64_t position = first + row, channel = group * out_channels + first_out + column;
    if (position >= positions || first_out + column >= out_channels) return;
    if (bias != nullptr) sum += bias[channel];
    static_cast<T*>(p.output)[output_index(g, n, channel, position)] = from_float<T>(sum);
  });
}

// ---- gradients of the columns ---------------------------------------------------------------------------------------

// Grid: (image and tile of positions, tile of (kernel element, channel), group). The weight is (G, O / G, K, C / G).
template <class T>
__global__ void __launch_bounds__(kTileThreads) columns_kernel(DeformConv2dBackwardParams p) {
  using A = Accumulate<T>;
  FASTCV_SHARED(A, rows, kTileSide * kTilePitch);
  FASTCV_SHARED(A, columns, kTileDepth * kTileSide);
  const DeformGeometry& g = p.geometry;
  const int64_t positions = g.y.output * g.x.output, taps = g.y.kernel * g.x.kernel;
  const int64_t in_channels = g.in_channels / g.groups, out_channels = g.out_channels / g.groups;
  const int64_t tiles = ceil_div(positions, kTileSide), width = taps * in_channels;
  const int64_t n = blockIdx.x / tiles, first = blockIdx.x % tiles * kTileSide, group = blockIdx.z;
  const T* const weight = static_cast<const T*>(p.weight) + group * out_channels * width;
  const T* const gradient = static_cast<const T*>(p.grad_output);
  const int thread = static_cast<int>(threadIdx.x);
  // Walks the tiles of columns, of which there may be more than a grid has blocks along y.
  for (int64_t start = static_cast<int64_t>(blockIdx.y) * kTileSide; start < width; start += gridDim.y * kTileSide) {
    ProductTile<A> tile;
    for (int64_t o = 0; o < out_channels; o += kTileDepth) {
      for (int i = thread; i < kTileSide * kTileDepth; i += kTileThreads) {
        const int64_t row = i % kTileSide, k = i / kTileSide;
        const bool valid = first + row < positions && o + k < out_channels;
        rows[row * kTilePitch + k] =
            valid ? to_float(gradient[output_index(g, n, group * out_channels + o + k, first + row)]) : A(0);
        const bool has_weight = start + row < width && o + k < out_channels;
        columns[i] = has_weight ? to_float(weight[(o + k) * width + start + row]) : A(0);
      }
      block_sync();
      tile.add(rows, columns);
      block_sync();
    }
    A* const target = static_cast<A*>(p.columns);
    tile.for_each([&](int row, int column, A sum) {
      if (first + row >= positions || start + column >= width) return;
      const int64_t tap = (start + column) / in_channels, c = group * in_channels + (start + column) % in_channels;
      target[((n * positions + first + row) * taps + tap) * g.in_channels + c] = sum;
    });
  }
}

// ---- offset and mask ------------------------------------------------------------------------------------------------

// One of the samples (n, d, k, p), which are numbered in that order.
struct SampleIndex {
  int64_t n, d, tap, p;
  __device__ SampleIndex(int64_t index, const DeformGeometry& g) {
    const int64_t positions = g.y.output * g.x.output, taps = g.y.kernel * g.x.kernel;
    p = index % positions;
    tap = index / positions % taps;
    d = index / positions / taps % g.offset_groups;
    n = index / positions / taps / g.offset_groups;
  }
};

__device__ __forceinline__ int64_t count_samples(const DeformGeometry& g) {
  return g.batch * g.offset_groups * g.y.kernel * g.x.kernel * g.y.output * g.x.output;
}

// A warp for each sample.
template <class T>
__global__ void __launch_bounds__(kTileThreads) places_kernel(DeformConv2dBackwardParams p) {
  using A = Accumulate<T>;
  const DeformGeometry& g = p.geometry;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (index >= count_samples(g)) return;
  const SampleIndex at(index, g);
  const int64_t positions = g.y.output * g.x.output, taps = g.y.kernel * g.x.kernel, pixels = g.y.input * g.x.input;
  const int64_t channels = g.in_channels / g.offset_groups;
  const Place<A> place = find_place<T, true>(g, at.n, at.d, at.tap, at.p);
  const A* const column =
      static_cast<const A*>(p.columns) + ((at.n * positions + at.p) * taps + at.tap) * g.in_channels;
  const T* const image = static_cast<const T*>(g.input) + at.n * pixels * g.in_channels;
  A mask = 0, of_y = 0, of_x = 0;
  for (int64_t c = at.d * channels + lane_id(); c < (at.d + 1) * channels; c += kWarpSize) {
    A v[2][2];
    read_corners(g, place, image + c, v);
    const A above = (A(1) - place.fx) * v[0][0] + place.fx * v[0][1];
    const A under = (A(1) - place.fx) * v[1][0] + place.fx * v[1][1];
    const A gradient = column[c];
    mask += gradient * ((A(1) - place.fy) * above + place.fy * under);
    of_y += gradient * (under - above);
    of_x += gradient * ((A(1) - place.fy) * (v[0][1] - v[0][0]) + place.fy * (v[1][1] - v[1][0]));
  }
  mask = warp_reduce_sum(mask);
  of_y = warp_reduce_sum(of_y) * place.mask;
  of_x = warp_reduce_sum(of_x) * place.mask;
  if (lane_id() != 0) return;
  const int64_t group = index / positions;  // (n, d, k)
  if (p.grad_mask != nullptr) static_cast<T*>(p.grad_mask)[index] = from_float<T>(place.inside ? mask : A(0));
  if (p.grad_offset != nullptr) {
    T* const target = static_cast<T*>(p.grad_offset) + 2 * group * positions + at.p;
    target[0] = from_float<T>(place.inside ? of_y : A(0));
    target[positions] = from_float<T>(place.inside ? of_x : A(0));
  }
}

// ---- input ----------------------------------------------------------------------------------------------------------

// Cells are numbered (n, d, row + 1, column + 1); samples outside lie in none and come last.
__device__ __forceinline__ int64_t cell(const DeformGeometry& g, int64_t n, int64_t d, int64_t row, int64_t column) {
  return ((n * g.offset_groups + d) * (g.y.input + 1) + row + 1) * (g.x.input + 1) + column + 1;
}

template <class T>
__global__ void __launch_bounds__(kTileThreads) keys_kernel(DeformConv2dBackwardParams p) {
  const DeformGeometry& g = p.geometry;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kTileThreads + threadIdx.x;
  if (index >= count_samples(g)) return;
  const SampleIndex at(index, g);
  const auto place = find_place<T, false>(g, at.n, at.d, at.tap, at.p);
  p.keys[index] = place.inside ? cell(g, at.n, at.d, place.row, place.column) : cell(g, g.batch, 0, -1, -1);
}

// How many of the sorted keys are below `key`.
__device__ __forceinline__ int64_t count_below(const int64_t* keys, int64_t count, int64_t key) {
  int64_t low = 0;
  while (count > 0) {
    const int64_t half = count / 2;
    if (keys[low + half] < key) {
      low += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  return low;
}

// A warp for each pixel and 32 channels of one offset group.
template <class T>
__global__ void __launch_bounds__(kTileThreads) input_kernel(DeformConv2dBackwardParams p) {
  using A = Accumulate<T>;
  const DeformGeometry& g = p.geometry;
  const int64_t pixels = g.y.input * g.x.input, channels = g.in_channels / g.offset_groups;
  const int64_t runs = ceil_div(channels, static_cast<int64_t>(kWarpSize));
  const int64_t positions = g.y.output * g.x.output, taps = g.y.kernel * g.x.kernel;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (index >= g.batch * g.offset_groups * runs * pixels) return;
  const int64_t pixel = index % pixels, d = index / pixels / runs % g.offset_groups;
  const int64_t n = index / pixels / runs / g.offset_groups;
  const int64_t channel = index / pixels % runs * kWarpSize + lane_id(), c = d * channels + channel;
  const int64_t y = pixel / g.x.input, x = pixel % g.x.input, samples = count_samples(g);
  A sum = 0;
  for (int i = 1; i >= 0; --i) {  // as the lower corner of samples above, then as the upper
    const int64_t begin = count_below(p.sorted_keys, samples, cell(g, n, d, y - i, x - 1));
    const int64_t end = count_below(p.sorted_keys, samples, cell(g, n, d, y - i, x) + 1);
    for (int64_t s = begin; s < end; ++s) {
      const SampleIndex at(p.samples[s], g);
      const Place<A> place = find_place<T, false>(g, n, d, at.tap, at.p);
      const int j = static_cast<int>(x - place.column);
      if (channel >= channels) continue;
      const A column = static_cast<const A*>(p.columns)[((n * positions + at.p) * taps + at.tap) * g.in_channels + c];
      sum = multiply_add(place.weight(i, j), place.mask * column, sum);
    }
  }
  if (channel >= channels) return;
  const int64_t target =
      g.input_channels_last ? (n * pixels + pixel) * g.in_channels + c : (n * g.in_channels + c) * pixels + pixel;
  static_cast<T*>(p.grad_input)[target] = from_float<T>(sum);
}

// ---- weight ---------------------------------------------------------------------------------------------------------

// Grid: (tile of output channels, tile of channels, group and kernel element) x pieces along x.
template <class T>
__global__ void __launch_bounds__(kTileThreads, 2) weight_kernel(DeformConv2dBackwardParams p, int64_t pieces) {
  using A = Accumulate<T>;
  FASTCV_SHARED(A, rows, kTileSide * kTilePitch);
  FASTCV_SHARED(A, columns, kTileDepth * kTileSide);
  const DeformGeometry& g = p.geometry;
  const int64_t positions = g.y.output * g.x.output, taps = g.y.kernel * g.x.kernel, all = g.batch * positions;
  const int64_t in_channels = g.in_channels / g.groups, out_channels = g.out_channels / g.groups;
  const int64_t piece = blockIdx.x % pieces, rest = blockIdx.x / pieces;
  const int64_t group = rest / taps, tap = rest % taps;
  const int64_t first_out = static_cast<int64_t>(blockIdx.y) * kTileSide;
  const int64_t first_in = static_cast<int64_t>(blockIdx.z) * kTileSide;
  const int64_t size = ceil_div(all, pieces), end = least((piece + 1) * size, all);
  const T* const gradient = static_cast<const T*>(p.grad_output);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  ProductTile<A> tile;  // rows are output channels
  for (int64_t at = piece * size; at < end; at += kTileDepth) {
    // A warp has the same position twice in a row, for 64 channels; and the same output channel for 32 positions.
    for (int k = thread / 32; k < kTileDepth; k += kWarps) {
      const int64_t n = (at + k) / positions, position = (at + k) % positions;
#pragma unroll 1
      for (int c = lane; c < kTileSide; c += 32) {
        const bool valid = at + k < end && first_in + c < in_channels;
        columns[k * kTileSide + c] =
            valid ? column_of<T>(g, n, tap, position, group * in_channels + first_in + c) : A(0);
      }
    }
    const int64_t n = (at + lane) / positions, position = (at + lane) % positions;
    for (int o = thread / 32; o < kTileSide; o += kWarps) {
      const bool valid = at + lane < end && first_out + o < out_channels;
      rows[o * kTilePitch + lane] =
          valid ? to_float(gradient[output_index(g, n, group * out_channels + first_out + o, position)]) : A(0);
    }
    block_sync();
    tile.add(rows, columns);
    block_sync();
  }
  A* const target = static_cast<A*>(p.pieces) + piece * g.out_channels * in_channels * taps;
  tile.for_each([&](int row, int column, A sum) {
    const int64_t o = first_out + row, c = first_in + column;
    if (o >= out_channels || c >= in_channels) return;
    target[((group * out_channels + o) * in_channels + c) * taps + tap] = sum;
  });
}

template <class T>
__global__ void __launch_bounds__(kTileThreads) pieces_kernel(DeformConv2dBackwardParams p, int64_t pieces) {
  using A = Accumulate<T>;
  const DeformGeometry& g = p.geometry;
  const int64_t elements = g.out_channels * (g.in_channels / g.groups) * g.y.kernel * g.x.kernel;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kTileThreads + threadIdx.x;
  if (index >= elements) return;
  const A* const from = static_cast<const A*>(p.pieces) + index;
  A sum = from[0];
  for (int64_t i = 1; i < pieces; ++i) sum += from[i * elements];
  static_cast<T*>(p.grad_weight)[index] = from_float<T>(sum);
}

template <class T>
void run_backward(const DeformConv2dBackwardParams& p, Stream stream) {
  const DeformGeometry& g = p.geometry;
  const int64_t samples = g.batch * g.offset_groups * g.taps() * g.positions();
  if (p.step == DeformStep::kKeys) {
    launch(keys_kernel<T>, {grid_size(samples, kTileThreads), kTileThreads}, stream, p);
    return;
  }
  const int64_t in_channels = g.in_channels / g.groups, out_channels = g.out_channels / g.groups;
  if (p.columns != nullptr) {
    const int64_t tiles = g.batch * ceil_div(g.positions(), kTileSide);
    const int64_t across = least(ceil_div(g.taps() * in_channels, kTileSide), 65535);
    launch(columns_kernel<T>, {{tiles, across, g.groups}, kTileThreads}, stream, p);
  }
  if (p.grad_offset != nullptr || p.grad_mask != nullptr) {
    launch(places_kernel<T>, {grid_size(samples, kWarps), kTileThreads}, stream, p);
  }
  if (p.grad_input != nullptr) {
    const int64_t runs = g.offset_groups * ceil_div(g.in_channels / g.offset_groups, kWarpSize);
    launch(input_kernel<T>, {grid_size(g.batch * runs * g.pixels(), kWarps), kTileThreads}, stream, p);
  }
  if (p.grad_weight != nullptr) {
    const int64_t pieces = deform_weight_pieces(g), elements = g.out_channels * in_channels * g.taps();
    const Extent grid(pieces * g.groups * g.taps(), ceil_div(out_channels, kTileSide),
                      ceil_div(in_channels, kTileSide));
    launch(weight_kernel<T>, {grid, kTileThreads}, stream, p, pieces);
    launch(pieces_kernel<T>, {grid_size(elements, kTileThreads), kTileThreads}, stream, p, pieces);
  }
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void deform_conv2d_cuda(const DeformConv2dParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  const DeformGeometry& g = params.geometry;
  const Extent grid(g.batch * ceil_div(g.positions(), kTileSide), ceil_div(g.out_channels / g.groups, kTileSide),
                    g.groups);
  dispatch_floating(g.dtype, [&](auto tag) {
    launch(forward_kernel<typename decltype(tag)::type>, {grid, kTileThreads}, stream, params);
  });
}

void deform_conv2d_backward_cuda(const DeformConv2dBackwardParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.geometry.dtype,
                    [&](auto tag) { run_backward<typename decltype(tag)::type>(params, stream); });
}

}  // namespace fastcv

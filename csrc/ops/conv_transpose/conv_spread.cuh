// Transposed convolution whose kernel is as large as its stride, on tensor cores: every input pixel spreads over a square
// of its own, and no other adds to that. So it is one product of matrices, (pixels x channels) times (channels x taps *
// output channels), and a scatter of the results. The source has its channels innermost: its rows are a matrix already,
// and so is the packed weight, [tap][column][depth].
//
// A block of eight warps computes 128 pixels x 128 columns, each warp 64 x 32 (core/cuda/mma_tile.cuh). Where a row is
// read from and where its results go is worked out once, before the steps. The results travel through shared memory and
// leave in packs of 16 bytes: of channels where those are innermost; of pixels of an image row where they are not and
// the kernel is two pixels wide. For those the columns' order is [tap without x][column][tap of x], so that the pixels
// of a pack are neighbours. The order of each sum is that of mma_kernel: the same bits.
//
// Napkin maths for an H200, Mask R-CNN's 512 x 256 x 14 x 14 -> 256, 2 x 2, stride 2, float16: 52.6 GFLOP are 12.8e6
// HMMA of 4096 products; at one in two cycles on each of 132 multiprocessors 0.11 ms. 6272 blocks read 128 KB each out
// of L2, 0.15 ms at 5.5 TB/s; 51 MB in and 205 MB out are 0.06 ms. All three overlap, two blocks on a multiprocessor:
// 0.17 ms (mma_kernel: 0.4). A step is 103 instructions of a warp for 32 HMMA (mma_kernel: 207 for 16), before the steps
// there are 671 (1215), after them some 350 that run: 8 steps of this layer are 1 850 for 256 HMMA.
#pragma once

#include "ops/conv_transpose/conv_mma.cuh"

namespace fastcv::FASTCV_VARIANT {

template <class T>
using SpreadTile = MmaTile<T, 128, 128, 64>;

// Whether each target site gets one tap of one source site, and its results can leave in packs.
template <class T>
bool suits_spread(const GatherKernelParams<int64_t>& p) {
  using Tile = SpreadTile<T>;
  int64_t rows = p.batch;
  for (const GatherAxis& a : p.axes) {
    if (!a.forward || a.kernel != a.out_step || a.padding != 0 || a.target != a.source * a.kernel) return false;
    if (a.dilation != 1 && a.kernel != 1) return false;
    rows *= a.source;
  }
  const bool packs = p.target_strides.channel == 1 ? p.columns % Tile::kCopyElements == 0 : p.axes[2].kernel == 2;
  return packs && is_aligned_16(p.target) && rows >= Tile::kRows && rows < (1 << 30) &&
         p.taps * p.columns >= Tile::kColumns && p.taps * p.columns < (1 << 30);
}

// Where results go: the sum of a row's and a column's offset. Negative: nowhere.
struct SpreadPlaces {
  int64_t *rows, *columns;
  float* bias;

  // The pixel of tap 0 of source row m.
  __device__ static int64_t of_row(const GatherKernelParams<int>& p, int m) {
    const int x = m % p.axes[2].source, line = m / p.axes[2].source, y = line % p.axes[1].source;
    const int plane = line / p.axes[1].source, z = plane % p.axes[0].source, image = plane / p.axes[0].source;
    if (image >= p.batch) return -1;
    const int64_t line_at = static_cast<int64_t>(z * p.axes[0].kernel) * p.axes[1].target + y * p.axes[1].kernel;
    return image * p.target_strides.image +
           (line_at * p.axes[2].target + x * p.axes[2].kernel) * p.target_strides.pixel;
  }
  __device__ static int64_t of_column(const GatherKernelParams<int>& p, int tap, int column) {
    const int x = tap % p.axes[2].kernel, line = tap / p.axes[2].kernel;
    const int64_t line_at = static_cast<int64_t>(line / p.axes[1].kernel) * p.axes[1].target + line % p.axes[1].kernel;
    return column * p.target_strides.channel + (line_at * p.axes[2].target + x) * p.target_strides.pixel;
  }
};

// Results of a tile in shared memory: [pixel][column], or [column without tap of x][pixel][tap of x].
template <class T>
struct SpreadResults {
  using Tile = SpreadTile<T>;
  static constexpr int kPack = Tile::kCopyElements;
  static constexpr int kPitch = Tile::kColumns + kPack;           // of a pixel
  static constexpr int kLinePitch = 2 * Tile::kRows + 2 * kPack;  // of a column: 8 banks from one to the next
  static constexpr int kLines = Tile::kColumns / 2;
  static constexpr int kElements = greatest(Tile::kRows * kPitch, kLines* kLinePitch);
  T* memory;

  __device__ __forceinline__ void put(bool by_channel, int row, int column, const Pack<T, 2>& pair) const {
    T* const to = memory + (by_channel ? row * kPitch + column : column / 2 * kLinePitch + 2 * row);
    *reinterpret_cast<Pack<T, 2>*>(to) = pair;
  }

  // Threads that are neighbours write neighbouring channels.
  __device__ __forceinline__ void write_channels(const SpreadPlaces& places, T* target) const {
    constexpr int kPacks = Tile::kColumns / kPack, kRowStep = Tile::kThreads / kPacks;
    const int column = static_cast<int>(threadIdx.x) % kPacks * kPack, first = static_cast<int>(threadIdx.x) / kPacks;
    if (places.columns[column] < 0) return;
    target += places.columns[column];
#pragma unroll
    for (int i = 0; i < Tile::kRows / kRowStep; ++i) {
      const int row = first + i * kRowStep;
      const int64_t offset = places.rows[row];
      if (offset >= 0)
        store_pack(target + offset, *reinterpret_cast<const Pack<T, kPack>*>(memory + row * kPitch + column));
    }
  }

  // Threads that are neighbours write neighbouring pixels, kCount each, which are of one image row.
  template <int kCount>
  __device__ __forceinline__ void write_pixels(const SpreadPlaces& places, T* target) const {
    constexpr int kPacks = 2 * Tile::kRows / kCount,
                  kLineStep = Tile::kThreads / kPacks > 0 ? Tile::kThreads / kPacks : 1;
    static_assert(kPacks <= Tile::kThreads);
    const int pixel = static_cast<int>(threadIdx.x) % kPacks * kCount, first = static_cast<int>(threadIdx.x) / kPacks;
    const int64_t offset = places.rows[pixel / 2];
    if (offset < 0) return;
    target += offset;
#pragma unroll 8
    for (int i = 0; i < kLines / kLineStep; ++i) {
      const int line = first + i * kLineStep;
      const int64_t there = places.columns[2 * line];
      if (there < 0) break;
      store_pack(target + there, *reinterpret_cast<const Pack<T, kCount>*>(memory + line * kLinePitch + pixel));
    }
  }
};

template <class T>
constexpr size_t spread_bytes() {
  return greatest(kMmaStages * SpreadTile<T>::kStageWords * sizeof(uint32_t), SpreadResults<T>::kElements * sizeof(T));
}

template <class T>
__global__ void __launch_bounds__(SpreadTile<T>::kThreads, 2)
    spread_kernel(const GatherKernelParams<int> p, unsigned column_tiles) {
  using Tile = SpreadTile<T>;
  using Results = SpreadResults<T>;
  constexpr int kRowCopies = Tile::kDepth / Tile::kCopyElements, kRowStep = Tile::kThreads / kRowCopies;
  constexpr int kOfThread = Tile::kRows / kRowStep;  // rows, and columns, that a thread copies a part of
  static_assert(Tile::kRows == Tile::kColumns && Tile::kThreads == 2 * Tile::kRows);
  FASTCV_DYNAMIC_SHARED(CopyUnit, shared);
  FASTCV_SHARED(int64_t, row_places, Tile::kRows);
  FASTCV_SHARED(int64_t, column_places, Tile::kColumns);
  FASTCV_SHARED(float, bias, Tile::kColumns);
  uint32_t* const stages = reinterpret_cast<uint32_t*>(shared);
  const SpreadPlaces places{row_places, column_places, bias};
  const bool by_channel = p.target_strides.channel == 1;
  const int thread = static_cast<int>(threadIdx.x), group = static_cast<int>(blockIdx.y);
  const int first_row = static_cast<int>(blockIdx.x / column_tiles) * Tile::kRows;
  const int first_column = static_cast<int>(blockIdx.x % column_tiles) * Tile::kColumns, all = p.taps * p.columns;
  // Column n of the product: which row of the packed weight that is.
  const auto packed_row = [&](int n) {
    if (by_channel) return n;
    const int line = n / 2, column = line % p.columns;
    return (line / p.columns * 2 + n % 2) * p.columns + column;
  };
  if (thread < Tile::kRows) {
    places.rows[thread] = SpreadPlaces::of_row(p, first_row + thread);
  } else {
    const int n = first_column + thread - Tile::kRows, at = n < all ? packed_row(n) : 0;
    const int column = at % p.columns;
    places.columns[thread - Tile::kRows] = n < all ? SpreadPlaces::of_column(p, at / p.columns, column) : -1;
    places.bias[thread - Tile::kRows] =
        n < all && p.bias != nullptr ? static_cast<const float*>(p.bias)[group * p.columns + column] : 0.0f;
  }

  const T* const source = static_cast<const T*>(p.source) + group * p.depth;
  const T* const packed = static_cast<const T*>(p.packed) + static_cast<int64_t>(group) * all * p.depth;
  const int part = thread % kRowCopies, own = thread / kRowCopies;
  const int rows = p.batch * p.axes[0].source * p.axes[1].source * p.axes[2].source;
  const T *from_row[kOfThread], *from_column[kOfThread];  // null: beyond the edge
#pragma unroll
  for (int i = 0; i < kOfThread; ++i) {
    const int m = first_row + own + i * kRowStep, n = first_column + own + i * kRowStep;
    const int64_t offset = Tile::kCopyElements * part;
    from_row[i] = m < rows ? source + m * p.source_strides.pixel + offset : nullptr;
    from_column[i] = n < all ? packed + static_cast<int64_t>(packed_row(n)) * p.depth + offset : nullptr;
  }
  const auto fetch = [&](int step) {
    uint32_t* const to = stages + step % kMmaStages * Tile::kStageWords + own * Tile::kPitch + 4 * part;
    const int channel = step * Tile::kDepth;
    const bool inside = channel + Tile::kCopyElements * part < p.depth;
#pragma unroll
    for (int i = 0; i < kOfThread; ++i) {
      const bool valid_row = inside && from_row[i] != nullptr, valid_column = inside && from_column[i] != nullptr;
      copy_async_16(to + i * kRowStep * Tile::kPitch, valid_row ? from_row[i] + channel : source, valid_row);
      copy_async_16(to + (Tile::kRows + i * kRowStep) * Tile::kPitch, valid_column ? from_column[i] + channel : packed,
                    valid_column);
    }
  };
  Tile tile;
  const auto use = [&](int step) {
    const uint32_t* const at = stages + step % kMmaStages * Tile::kStageWords;
    tile.multiply(at, at + Tile::kRows * Tile::kPitch);
  };
  pipeline(ceil_div(p.depth, Tile::kDepth), fetch, use);

  const Results results{reinterpret_cast<T*>(shared)};
  tile.for_each_pair([&](int row, int column, float one, float two) {
    if (p.bias != nullptr) {
      one += places.bias[column];
      two += places.bias[column + 1];
    }
    if (p.relu) {
      one = one < 0.0f ? 0.0f : one;
      two = two < 0.0f ? 0.0f : two;
    }
    results.put(by_channel, row, column, {{from_float<T>(one), from_float<T>(two)}});
  });
  block_sync();
  T* const target = static_cast<T*>(p.target) + group * p.columns * p.target_strides.channel;
  const int width = p.axes[2].target;
  if (by_channel) return results.write_channels(places, target);
  if (width % Results::kPack == 0) return results.template write_pixels<Results::kPack>(places, target);
  if constexpr (Results::kPack == 8) {
    if (width % 4 == 0) return results.template write_pixels<4>(places, target);
  }
  results.template write_pixels<2>(places, target);
}

template <class T>
void launch_spread(const GatherKernelParams<int64_t>& p, Stream stream) {
  using Tile = SpreadTile<T>;
  static_assert(spread_bytes<T>() + Tile::kRows * 20 <= kMaxSharedBytes);
  const int64_t rows = p.batch * p.axes[0].source * p.axes[1].source * p.axes[2].source;
  const int64_t column_tiles = ceil_div<int64_t>(p.taps * p.columns, Tile::kColumns);
  launch(spread_kernel<T>,
         {{grid_size(grid_size(rows, Tile::kRows) * column_tiles, 1), p.groups}, {Tile::kThreads}, spread_bytes<T>()},
         stream, in_32_bits(p), static_cast<unsigned>(column_tiles));
}

}  // namespace fastcv::FASTCV_VARIANT

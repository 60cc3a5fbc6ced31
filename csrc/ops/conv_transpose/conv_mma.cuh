// The gathering product on tensor cores: float16, bfloat16, and float32 where tf32 is allowed, source channels
// innermost.
//
// A block of four warps computes 64 sites x 64 columns, each warp 32 x 32 (core/cuda/mma_tile.cuh). Steps of 32
// channels (16 of float32) of one tap travel from global to shared memory in 16-byte asynchronous copies, two steps
// ahead of the arithmetic; a pixel beyond the border arrives as zeros.
//
// Napkin maths for an H200, Mask R-CNN's 512 x 256 x 14 x 14 -> 256, 2 x 2, stride 2, float16: 52.6 GFLOP, 0.13 ms at
// half of 790 TFLOP/s; 51 MB in and 205 MB out are 0.06 ms. Per step a block moves 8 KB out of L2 for 131 072
// multiply-adds, 3.3 GB in all, so 0.6 ms at 5.5 TB/s of L2 if nothing were shared: the four column tiles and four
// phases of a site tile run side by side and find its rows in L1 or in flight.
#pragma once

#include "core/cuda/mma_tile.cuh"
#include "core/cuda/pack.cuh"
#include "ops/conv_transpose/conv_tile.cuh"

namespace fastcv::FASTCV_VARIANT {

template <class T>
using GatherTile = MmaTile<T, kTileSites, kTileColumns, 32>;

inline bool is_aligned_16(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

// The axis and whether its numbers, and those that taps_of_phase makes of them, fit in 32 bits.
inline GatherAxisOf<int> in_32_bits(const GatherAxis& a) {
  const auto cut = [](int64_t number) { return static_cast<int>(number); };
  return {cut(a.source),  cut(a.target),   cut(a.kernel),   cut(a.in_step), cut(a.out_step),
          cut(a.padding), cut(a.dilation), cut(a.tap_step), a.forward};
}
inline bool fits_32_bits(const GatherAxis& a) {
  constexpr int64_t kMost = 1 << 30;
  for (int64_t number : {a.source, a.target, a.kernel, a.in_step, a.out_step, a.padding, a.dilation, a.tap_step}) {
    if (number >= kMost) return false;
  }
  const int64_t reach = a.kernel * a.dilation + a.padding, sites = sites_of_phase(a) * (a.forward ? 1 : a.in_step);
  return reach < kMost && sites + reach < kMost;
}

// The parameters with 32-bit numbers, whose divisions cost a tenth.
inline GatherKernelParams<int> in_32_bits(const GatherKernelParams<int64_t>& p) {
  GatherKernelParams<int> cut{};
  for (int i = 0; i < 3; ++i) cut.axes[i] = in_32_bits(p.axes[i]);
  cut.source = p.source;
  cut.packed = p.packed;
  cut.bias = p.bias;
  cut.target = p.target;
  cut.source_strides = p.source_strides;
  cut.target_strides = p.target_strides;
  cut.batch = static_cast<int>(p.batch);
  cut.depth = static_cast<int>(p.depth);
  cut.columns = static_cast<int>(p.columns);
  cut.taps = static_cast<int>(p.taps);
  cut.site_tiles = static_cast<int>(p.site_tiles);
  cut.column_tiles = static_cast<int>(p.column_tiles);
  cut.groups = static_cast<int>(p.groups);
  cut.relu = p.relu;
  return cut;
}

template <class T>
bool suits_tensor_cores(const GatherKernelParams<int64_t>& p) {
  constexpr int64_t kMost = 1 << 30;
  for (const GatherAxis& axis : p.axes) {
    if (!fits_32_bits(axis)) return false;
  }
  return p.source_strides.channel == 1 && p.depth > 0 && p.depth % GatherTile<T>::kCopyElements == 0 &&
         is_aligned_16(p.source) && is_aligned_16(p.packed) && p.site_tiles < kMost / kTileSites &&
         p.columns * p.depth < kMost && p.taps * ceil_div(p.depth, GatherTile<T>::kDepth) < kMost &&
         p.groups * p.columns < kMost && p.groups * p.depth < kMost;
}

// Walks the steps of a block: taps of its phase, channels within each.
struct StepCursor {
  TapRunOf<int> z, y, x;
  int i = 0, j = 0, k = 0;  // which tap of each run
  int first = 0;            // channel

  __device__ StepCursor(const GatherKernelParams<int>& p, const BlockTask<int>& task)
      : z(taps_of_phase(p.axes[0], task.phase_z)),
        y(taps_of_phase(p.axes[1], task.phase_y)),
        x(taps_of_phase(p.axes[2], task.phase_x)) {}

  __device__ int taps() const { return z.count * y.count * x.count; }
  __device__ int tap(const GatherKernelParams<int>& p) const {
    const int k_z = z.first + i * p.axes[0].tap_step, k_y = y.first + j * p.axes[1].tap_step;
    return (k_z * p.axes[1].kernel + k_y) * p.axes[2].kernel + x.first + k * p.axes[2].tap_step;
  }
  // Returns whether the next step belongs to another tap.
  __device__ bool advance(int step, int depth) {
    first += step;
    if (first < depth) return false;
    first = 0;
    if (++k < x.count) return true;
    k = 0;
    if (++j < y.count) return true;
    j = 0;
    ++i;
    return true;
  }
};

// Brings the results of a block from its registers to memory by way of shared memory, where a row of them is kPitch
// elements long: neighbouring threads then write neighbouring channels, 16 bytes each, or neighbouring sites, whichever
// is innermost in the target. All stages of the pipeline are free by now.
template <class T>
__device__ __forceinline__ void write_tile(const GatherKernelParams<int>& p, const BlockTask<int>& task,
                                           const GatherTile<T>& tile, const Site<int>* sites, T* results) {
  using Tile = GatherTile<T>;
  constexpr int kPack = Tile::kCopyElements, kPitch = kTileColumns + kPack;
  tile.for_each_pair([&](int row, int column, float first, float second) {
    const int n = task.first_column + column;
    Pack<T, 2> pair{};
    if (n < p.columns) pair.value[0] = from_float<T>(finished(p, task, n, first));
    if (n + 1 < p.columns) pair.value[1] = from_float<T>(finished(p, task, n + 1, second));
    *reinterpret_cast<Pack<T, 2>*>(results + row * kPitch + column) = pair;
  });
  block_sync();
  const int thread = static_cast<int>(threadIdx.x), columns = least(p.columns - task.first_column, kTileColumns);
  const int64_t stride = p.target_strides.channel;
  T* const target = static_cast<T*>(p.target) + (task.group * p.columns + task.first_column) * stride;
  if (stride == 1 && p.columns % kPack == 0 && reinterpret_cast<uintptr_t>(p.target) % 16 == 0) {
    constexpr int kPacksOfRow = kTileColumns / kPack;
#pragma unroll
    for (int i = 0; i < kTileSites * kPacksOfRow / Tile::kThreads; ++i) {
      const int item = i * Tile::kThreads + thread, row = item / kPacksOfRow, column = item % kPacksOfRow * kPack;
      const int64_t offset = sites[row].target;
      if (offset < 0 || column >= columns) continue;
      store_pack(target + offset + column, *reinterpret_cast<const Pack<T, kPack>*>(results + row * kPitch + column));
    }
  } else {
    for (int item = thread; item < kTileSites * kTileColumns; item += Tile::kThreads) {
      const int row = stride == 1 ? item / kTileColumns : item % kTileSites;
      const int column = stride == 1 ? item % kTileColumns : item / kTileSites;
      const int64_t offset = sites[row].target;
      if (offset >= 0 && column < columns) target[offset + column * stride] = results[row * kPitch + column];
    }
  }
}

template <class T>
__global__ void __launch_bounds__(GatherTile<T>::kThreads, 2) mma_kernel(const GatherKernelParams<int> p) {
  using Tile = GatherTile<T>;
  constexpr int kRowCopies = Tile::kDepth / Tile::kCopyElements;  // threads that copy one row
  constexpr int kRowStep = Tile::kThreads / kRowCopies, kRowsOfThread = Tile::kRows / kRowStep;
  FASTCV_SHARED(CopyUnit, shared, kMmaStages * Tile::kStageWords / 4);
  FASTCV_SHARED(Site<int>, sites, kTileSites);
  uint32_t* const stages = reinterpret_cast<uint32_t*>(shared);
  const BlockTask<int> task = block_task(p);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < kTileSites) sites[thread] = locate_site(p, task, task.first_site + thread);
  block_sync();
  const T* source = static_cast<const T*>(p.source) + task.group * p.depth;
  const int matrix_elements = p.columns * p.depth;
  const T* packed = static_cast<const T*>(p.packed) + static_cast<int64_t>(task.group) * p.taps * matrix_elements;

  StepCursor cursor(p, task);
  const int part = thread % kRowCopies, first_row = thread / kRowCopies;
  int64_t origins[kRowsOfThread];
  const T* matrix = packed;
  const auto locate = [&] {
#pragma unroll
    for (int i = 0; i < kRowsOfThread; ++i) {
      origins[i] = locate_source(p, sites[first_row + i * kRowStep], cursor.z.offset + cursor.i * cursor.z.offset_step,
                                 cursor.y.offset + cursor.j * cursor.y.offset_step,
                                 cursor.x.offset + cursor.k * cursor.x.offset_step);
    }
    const int first_element = (task.first_column + first_row) * p.depth;
    matrix = packed + static_cast<int64_t>(cursor.tap(p)) * matrix_elements + first_element;
  };
  bool other_tap = true;
  const auto fetch = [&](int step) {
    if (other_tap) locate();
    uint32_t* rows = stages + step % kMmaStages * Tile::kStageWords;
    const int channel = cursor.first + Tile::kCopyElements * part;
    const bool inside = channel < p.depth;
#pragma unroll
    for (int i = 0; i < kRowsOfThread; ++i) {
      const int row = first_row + i * kRowStep, word = row * Tile::kPitch + 4 * part;
      const bool valid_a = inside && origins[i] >= 0;
      copy_async_16(rows + word, valid_a ? source + origins[i] + channel : source, valid_a);
      const bool valid_b = inside && task.first_column + row < p.columns;
      copy_async_16(rows + Tile::kRows * Tile::kPitch + word,
                    valid_b ? matrix + i * kRowStep * p.depth + channel : packed, valid_b);
    }
    other_tap = cursor.advance(Tile::kDepth, p.depth);
  };
  Tile tile;
  const auto use = [&](int step) {
    const uint32_t* rows = stages + step % kMmaStages * Tile::kStageWords;
    tile.multiply(rows, rows + Tile::kRows * Tile::kPitch);
  };
  pipeline(cursor.taps() * ceil_div(p.depth, Tile::kDepth), fetch, use);
  static_assert(kTileSites * (kTileColumns + Tile::kCopyElements) * sizeof(T) <= sizeof shared);
  write_tile<T>(p, task, tile, sites, reinterpret_cast<T*>(shared));
}

}  // namespace fastcv::FASTCV_VARIANT

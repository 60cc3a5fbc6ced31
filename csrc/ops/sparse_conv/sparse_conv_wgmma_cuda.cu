// Sparse convolution by warpgroups: float16 and bfloat16 on sm_90a, from 64 input channels on, for multiples of 256 output
// channels. Compiled for that architecture alone; sparse_wgmma.cuh tells what comes here, the rest is sparse_mma.cuh's.
//
// A block makes 192 output rows by 256 output channels of one group: three warpgroups of 64 rows, each thread with its
// 128 sums in registers from the first kernel element to the last. Neighbours are looked up, elements skipped and rows
// copied as in sparse_mma.cuh, two steps of 64 input channels ahead; the tensor cores read both operands from shared
// memory. A sum runs over kernel elements in ascending order, in each over input channels in steps of 16, as there; within
// such a step the order is the hardware's, and the same in every run.
//
// Napkin maths for an H200, beside the 128 x 128 tiles of sparse_mma.cuh: SubM 3^3, 256 -> 256, 50 000 sites of workload
// G1's surface, sorted rows. A step is 6.3 MFLOP and 56 KB (missing neighbours cost nothing): 192 + 256 rows of 128 bytes,
// where the same work in tiles of 128 x 128 takes 96 KB.
//
//   per tile                          here            128 x 128
//   instructions for each of its mma  0.29            5.5          147 for 4 HGMMA, which are 512 mma; 176 for 32
//   tiles, kernel elements of each    261, 10.4       782, 10.0
//   GFLOP, ms at 790 (half of it)     68, 0.09        66, 0.17     mma.sync reaches half of what wgmma does
//   MB out of L2, ms at 5.5 TB/s      611, 0.11       998, 0.18
//   ms, tiles one after the other     0.147           0.221        each limited by the slower of the two, 3 us without
//                                                                  a product; a multiprocessor holds 1, of those 2
//   ms, rows in coordinates' order    0.22            0.43         24.6 elements: 162 GFLOP
//
// 1.5 and 2 times faster; 100 000 sites 0.26 and 0.41 ms. With fewer the tiles do not divide well by 132: 35 000 sites
// 0.14 and 0.17 ms. All of it hangs on what the tensor cores reach: with mma.sync at 500 TFLOP/s the other kernel takes
// 0.20 and 0.34 ms (1.4 and 1.6 times), with wgmma at 650 this one takes 0.165 and 0.26 (1.3 and 1.6 times).
// 128 sums leave 40 of 168 registers. Clusters of two that share the weight would read about 30 % less.
#include "core/cuda/launch.cuh"
#include "core/cuda/pack.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "core/cuda/wgmma.cuh"
#include "ops/sparse_conv/sparse_conv.h"
#include "ops/sparse_conv/sparse_mma.cuh"
#include "ops/sparse_conv/sparse_wgmma.cuh"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kRows = kWgmmaRows, kColumns = kWgmmaColumns;
constexpr int kThreads = kRows / kWarpgroupRows * kWarpgroupThreads, kWarps = kThreads / 32;
constexpr int kStages = 3;
constexpr int kRowStep = kThreads / kSwizzledUnits;  // a thread copies one unit of every kRowStep'th row
constexpr int kStageHalves = (kRows + kColumns) * kSwizzledHalves;
constexpr int kSourceRounds = ceil_div(kMapElements, kWarps);
constexpr size_t kSharedBytes =
    kSwizzleBytes + kStages * kStageHalves * sizeof(uint16_t) + kMapElements * kRows * sizeof(int);
static_assert(kColumns == kWarpgroupColumns && kWgmmaDepth == kSwizzledHalves);
static_assert(kSharedBytes + (kRows + kMapElements) * sizeof(int) <= kMaxSharedBytesOfSm90);
static_assert(kRows % kRowStep == 0 && kRowStep % 8 == 0 && kRows * 64 % kSwizzleBytes == 0);

// For the kernel elements from `chunk` on: sources[element][row], and which elements any row has, as bits.
__device__ __forceinline__ unsigned look_up(const SparseConvParams& p, int64_t chunk, const int* targets, int* sources,
                                            int* present) {
  const int lane = static_cast<int>(lane_id()), warp = static_cast<int>(threadIdx.x) / 32;
  const int elements = p.volume - chunk < kMapElements ? static_cast<int>(p.volume - chunk) : kMapElements;
  int found[kSourceRounds][kRows / 32];
#pragma unroll
  for (int i = 0; i < kSourceRounds; ++i) {
    const int e = warp + i * kWarps;
    const int32_t* const row = p.neighbours + (chunk + e) * p.outputs;
#pragma unroll
    for (int g = 0; g < kRows / 32; ++g) {
      const int m = targets[32 * g + lane];
      found[i][g] = e < elements && m >= 0 ? row[m] : -1;
    }
  }
#pragma unroll
  for (int i = 0; i < kSourceRounds; ++i) {
    const int e = warp + i * kWarps;
    if (e >= kMapElements) break;
    bool any = false;
#pragma unroll
    for (int g = 0; g < kRows / 32; ++g) {
      const bool valid = found[i][g] >= 0 && found[i][g] < p.inputs;
      sources[e * kRows + 32 * g + lane] = valid ? found[i][g] : -1;
      any = any || valid;
    }
    any = warp_any(kFullMask, any);
    if (lane == 0) present[e] = any;
  }
  block_sync();
  return warp_ballot(kFullMask, present[lane] != 0);
}

// Starts the products of a step.
template <class T>
__device__ __forceinline__ void multiply_stage(WarpgroupSums& sums, SwizzledMatrix<T> stage, int warpgroup) {
  const SwizzledMatrix<T> rows = stage.from(warpgroup * kWarpgroupRows * kSwizzledHalves);
  const SwizzledMatrix<T> columns = stage.from(kRows * kSwizzledHalves);
  fence_registers(sums);
#pragma unroll
  for (int k = 0; k < kWgmmaDepth; k += kWarpgroupDepth) multiply_warpgroup(sums, rows.from(k), columns.from(k));
  commit_products();
}

// Adds the bias and writes the warp's 16 rows, through shared memory, so that the stores are of 512 contiguous bytes.
template <class T>
__device__ __forceinline__ void write_rows(const SparseConvParams& p, const WarpgroupSums& sums, const int* targets,
                                           uint32_t* shared, int group, int o0) {
  constexpr int kPitch = kColumns / 2 + 4;  // words: rows of a column lie in different banks
  static_assert(kWarps * 16 * kPitch * sizeof(uint32_t) <= kStages * kStageHalves * sizeof(uint16_t));
  const int lane = static_cast<int>(lane_id()), first_row = static_cast<int>(threadIdx.x) / 32 * 16;
  const T* bias = p.bias == nullptr ? nullptr : static_cast<const T*>(p.bias) + group * p.out_channels + o0;
  uint32_t* const own = shared + first_row * kPitch;
#pragma unroll
  for (int i = 0; i < kWarpgroupSums; i += 4) {
    const int column = 2 * i + 2 * (lane % 4);
    const float one = bias == nullptr ? 0.0f : to_float(bias[column]);
    const float two = bias == nullptr ? 0.0f : to_float(bias[column + 1]);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const Pack<T, 2> pair{{from_float<T>(sums[i + 2 * h] + one), from_float<T>(sums[i + 2 * h + 1] + two)}};
      own[(lane / 4 + 8 * h) * kPitch + column / 2] = bit_cast<uint32_t>(pair);
    }
  }
  warp_sync(kFullMask);
#pragma unroll 4
  for (int row = 0; row < 16; ++row) {
    const int m = targets[first_row + row];
    if (m < 0) continue;
    T* const target = static_cast<T*>(p.output) + (m * p.groups + group) * p.out_channels + o0;
    store_pack(reinterpret_cast<uint32_t*>(target) + 4 * lane, load_pack<4>(own + row * kPitch + 4 * lane));
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) convolve_wgmma_kernel(const SparseConvParams p, unsigned column_tiles) {
  FASTCV_DYNAMIC_SHARED(CopyUnit, shared);
  FASTCV_SHARED(int, targets, kRows);
  FASTCV_SHARED(int, present, kMapElements);
  T* const stages = reinterpret_cast<T*>(aligned_shared<kSwizzleBytes>(shared));
  int* const sources = reinterpret_cast<int*>(stages + kStages * kStageHalves);  // [kMapElements][kRows]
  const int thread = static_cast<int>(threadIdx.x);
  const int group = static_cast<int>(blockIdx.y / column_tiles);
  const int o0 = static_cast<int>(blockIdx.y % column_tiles) * kColumns;
  const int in_channels = static_cast<int>(p.in_channels);
  if (thread < kRows) targets[thread] = ordered_row(p, static_cast<int64_t>(blockIdx.x) * kRows + thread);

  // This thread's unit of 16 bytes, in every kRowStep'th row from first_row on. Bytes, so that one instruction makes an
  // address of a 32-bit factor.
  const int unit = thread % kSwizzledUnits, first_row = thread / kSwizzledUnits;
  const char* const input =
      reinterpret_cast<const char*>(static_cast<const T*>(p.input) + group * in_channels + 8 * unit);
  const int in_bytes = static_cast<int>(p.groups * p.in_channels * sizeof(T));
  const int weight_bytes = static_cast<int>(kRowStep * p.out_stride * sizeof(T));
  T* const place = stages + first_row * kSwizzledHalves + swizzled_place(first_row, unit);
  // The same for a warp, and known to be.
  const int warpgroup = warp_shuffle(kFullMask, thread / kWarpgroupThreads, 0);
  const SwizzledMatrix<T> first_matrix(stages);

  WarpgroupSums sums = {};
  for (int64_t chunk = 0; chunk < p.volume; chunk += kMapElements) {
    block_sync();  // targets are written; the sources of the chunk before have been read
    unsigned left = look_up(p, chunk, targets, sources, present);
    const int steps = count_lanes(left) * (in_channels / kWgmmaDepth);

    // Made here, not above: there would be no registers left for the neighbours.
    const char* const weight =
        reinterpret_cast<const char*>(static_cast<const T*>(p.weight) + group * p.group_stride +
                                      chunk * p.element_stride + (o0 + first_row) * p.out_stride + 8 * unit);
    int first_channel = 0, fetched = 0;  // fetched: the stage that comes next
    const auto fetch = [&] {
      const int e = first_lane(left);
      T* const rows = place + fetched * kStageHalves;
      const int* const source_of = sources + e * kRows + first_row;
      const char* const channels = input + first_channel * sizeof(T);
#pragma unroll
      for (int i = 0; i < kRows / kRowStep; ++i) {
        const int source = source_of[i * kRowStep];
        copy_async_16(rows + i * kRowStep * kSwizzledHalves, channels + int64_t{source < 0 ? 0 : source} * in_bytes,
                      source >= 0);
      }
      T* const columns = rows + kRows * kSwizzledHalves;
      const char* const matrix = weight + (e * p.element_stride + first_channel) * sizeof(T);
#pragma unroll
      for (int i = 0; i < ceil_div(kColumns, kRowStep); ++i) {
        if (i == kColumns / kRowStep && first_row >= kColumns % kRowStep) break;
        copy_async_16(columns + i * kRowStep * kSwizzledHalves, matrix + int64_t{i} * weight_bytes, true);
      }
      fetched = fetched == kStages - 1 ? 0 : fetched + 1;
      first_channel += kWgmmaDepth;
      if (first_channel == in_channels) {
        first_channel = 0;
        left &= left - 1;
      }
    };
    for (int step = 0; step < kStages - 1; ++step) {
      if (step < steps) fetch();
      commit_copies();
    }
    int stage = 0;
    for (int step = 0; step < steps; ++step) {
      wait_for_copies<kStages - 2>();
      fence_async_proxy();
      block_sync();  // the step has arrived for all; all have done with the stage that is fetched next
      multiply_stage(sums, first_matrix.from(stage * kStageHalves), warpgroup);
      stage = stage == kStages - 1 ? 0 : stage + 1;
      if (step + kStages - 1 < steps) fetch();
      commit_copies();
      wait_for_products<0>(sums);
    }
  }

  block_sync();  // nobody reads the stages any more
  write_rows<T>(p, sums, targets, reinterpret_cast<uint32_t*>(stages), group, o0);
}

template <class T>
void launch_wgmma(const SparseConvParams& p, Stream stream) {
  const int64_t column_tiles = p.out_channels / kColumns;
  LaunchShape shape{{grid_size(p.outputs, kRows), column_tiles * p.groups}, {kThreads}, kSharedBytes};
  shape.is_for_sm_90 = true;
  launch(convolve_wgmma_kernel<T>, shape, stream, p, static_cast<unsigned>(column_tiles));
}

}  // namespace

void convolve_on_warpgroups(const SparseConvParams& p, Stream stream) {
  if (p.dtype == DType::kFloat16) {
    launch_wgmma<float16>(p, stream);
  } else {
    launch_wgmma<bfloat16>(p, stream);
  }
}

}  // namespace fastcv::FASTCV_VARIANT

// What the kernels that gather share: which sites and channels a block computes, and where they lie in memory.
#pragma once

#include "core/cuda/launch.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "ops/conv_transpose/conv_geometry.h"

namespace fastcv::FASTCV_VARIANT {

constexpr int kTileSites = 64, kTileColumns = 64;

// A tensor of pixels: contiguous or channels innermost, so that all pixels of an image are equally far apart.
struct PixelStrides {
  int64_t image, channel, pixel;
};

// I: the type of sites, taps and channels; offsets in memory have 64 bits.
template <class I>
struct GatherKernelParams {
  GatherAxisOf<I> axes[3];
  const void* source;
  const void* packed;  // [group][tap][column][depth]
  const void* bias;    // in the type of the sums
  void* target;
  PixelStrides source_strides, target_strides;
  I batch, depth, columns, taps;  // depth and columns of one group
  I site_tiles, column_tiles, groups;
  bool relu;
};

// What one block computes. Blocks that share sites are neighbours, so that the source stays in cache.
template <class I>
struct BlockTask {
  I group, first_column, phase_z, phase_y, phase_x, first_site;
};

template <class I>
__device__ BlockTask<I> block_task(const GatherKernelParams<I>& p) {
  BlockTask<I> task;
  I index = static_cast<I>(blockIdx.x);
  task.first_column = index % p.column_tiles * kTileColumns;
  index /= p.column_tiles;
  task.group = index % p.groups;
  index /= p.groups;
  task.first_site = index % p.site_tiles * kTileSites;
  index /= p.site_tiles;
  const I phases_x = phases_of(p.axes[2]), phases_y = phases_of(p.axes[1]);
  task.phase_x = index % phases_x;
  index /= phases_x;
  task.phase_y = index % phases_y;
  task.phase_z = index / phases_y;
  return task;
}

// A target site of the block: where it is written, and what it gathers from.
template <class I>
struct Site {
  int64_t target;    // offset of channel 0; negative: beyond the target
  I image, z, y, x;  // of the source, before the offset of a tap
};

template <class I>
__device__ Site<I> locate_site(const GatherKernelParams<I>& p, const BlockTask<I>& task, I index) {
  const I sites_z = sites_of_phase(p.axes[0]), sites_y = sites_of_phase(p.axes[1]);
  const I sites_x = sites_of_phase(p.axes[2]);
  const I q_x = index % sites_x, row = index / sites_x, q_y = row % sites_y, plane = row / sites_y;
  const I q_z = plane % sites_z, image = plane / sites_z;
  const I z = q_z * p.axes[0].out_step + task.phase_z, y = q_y * p.axes[1].out_step + task.phase_y;
  const I x = q_x * p.axes[2].out_step + task.phase_x;
  Site<I> site{-1, image, q_z * p.axes[0].in_step, q_y * p.axes[1].in_step, q_x * p.axes[2].in_step};
  if (image < p.batch && z < p.axes[0].target && y < p.axes[1].target && x < p.axes[2].target) {
    const int64_t pixel = (static_cast<int64_t>(z) * p.axes[1].target + y) * p.axes[2].target + x;
    site.target = image * p.target_strides.image + pixel * p.target_strides.pixel;
  }
  return site;
}

// The offset in the source of channel 0 of the pixel that a tap reads; negative: beyond the border.
template <class I>
__device__ int64_t locate_source(const GatherKernelParams<I>& p, const Site<I>& site, I offset_z, I offset_y,
                                 I offset_x) {
  const I z = site.z + offset_z, y = site.y + offset_y, x = site.x + offset_x;
  if (site.target < 0 || z < 0 || z >= p.axes[0].source || y < 0 || y >= p.axes[1].source || x < 0 ||
      x >= p.axes[2].source) {
    return -1;
  }
  const int64_t pixel = (static_cast<int64_t>(z) * p.axes[1].source + y) * p.axes[2].source + x;
  return site.image * p.source_strides.image + pixel * p.source_strides.pixel;
}

// Calls body(tap, offset_z, offset_y, offset_x) for each tap of the block's phase, ascending.
template <class I, class Body>
__device__ __forceinline__ void for_each_tap(const GatherKernelParams<I>& p, const BlockTask<I>& task,
                                             const Body& body) {
  const TapRunOf<I> run_z = taps_of_phase(p.axes[0], task.phase_z), run_y = taps_of_phase(p.axes[1], task.phase_y);
  const TapRunOf<I> run_x = taps_of_phase(p.axes[2], task.phase_x);
  for (I i = 0; i < run_z.count; ++i) {
    for (I j = 0; j < run_y.count; ++j) {
      for (I k = 0; k < run_x.count; ++k) {
        const I z = run_z.first + i * p.axes[0].tap_step, y = run_y.first + j * p.axes[1].tap_step;
        const I x = run_x.first + k * p.axes[2].tap_step;
        body((z * p.axes[1].kernel + y) * p.axes[2].kernel + x, run_z.offset + i * run_z.offset_step,
             run_y.offset + j * run_y.offset_step, run_x.offset + k * run_x.offset_step);
      }
    }
  }
}

// The sum of a column with its bias and the activation.
template <class S, class I>
__device__ __forceinline__ S finished(const GatherKernelParams<I>& p, const BlockTask<I>& task, I column, S sum) {
  if (p.bias != nullptr) sum += static_cast<const S*>(p.bias)[task.group * p.columns + column];
  return p.relu && sum < S(0) ? S(0) : sum;
}

}  // namespace fastcv::FASTCV_VARIANT

// The gradient of an op that pools boxes and is linear in the features, on the CPU. CPU translation units only.
#pragma once

#include "core/layout_cpu.h"
#include "core/parallel.h"
#include "families/roi/roi_params.h"
#include "families/roi/roi_taps_cpu.h"

namespace fastcv::FASTCV_VARIANT {

constexpr int64_t kSlabBytes = int64_t{8} << 20;

// Adds the gradient of one RoI to a slab whose pixels hold `width` channels. Row `bin` of `gradient` has that bin's.
template <class Taps, class G, class A>
void scatter_roi(A* slab, const Taps& taps, int64_t width, const G* gradient, int64_t row_stride) {
  for (int64_t bin = 0; bin < taps.bins; ++bin) {
    for_each_run<A>(width, [&](auto vectors, int64_t c) {
      Vector<A> sum[vectors.value];
      for (int v = 0; v < vectors.value; ++v) sum[v] = load(gradient + bin * row_stride + c + v * kLanes<A>);
      scatter_bin(slab + c, taps, bin, sum);
    });
  }
}

// One task owns one block of channels of one image and walks in order the RoIs k for which member(k, image) holds,
// summing into a slab [pixel][channel]: no atomics, and the same bits for every number of threads and every width of a
// block. taps_of(k, stride_y, stride_x) gives the taps of a RoI, which are like FlatTaps.
template <class T, class Member, class TapsOf>
void scatter_rois_into_map(const RoiParams& p, const Member& member, const TapsOf& taps_of) {
  using A = Accumulate<T>;
  const int64_t bins = p.sampling.bins(), pixels = p.height * p.width;
  if (p.batch * p.channels * pixels == 0) return;
  advise_huge_pages(p.features, p.batch * p.channels * pixels * sizeof(T));

  int64_t width = block_width<A>(p.channels);
  while (width > kLanes<A> && (p.batch * ceil_div(p.channels, width) < 4 * max_threads() ||
                               pixels * width * static_cast<int64_t>(sizeof(A)) > kSlabBytes)) {
    width = half_block<A>(width);
  }
  const int64_t blocks = ceil_div(p.channels, width);
  parallel_for(p.batch * blocks, 1, [&](int64_t begin, int64_t end) {
    const Scratch slab_memory(bytes_of<A>(p.height, p.width, width)), tile_memory(bytes_of<A>(bins, width));
    A* slab = slab_memory.as<A>();
    A* tile = tile_memory.as<A>();
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task / blocks, c = task % blocks * width;
      const int64_t channels = least(p.channels - c, width);
      __builtin_memset(slab, 0, pixels * width * sizeof(A));
      for (int64_t k = 0; k < p.rois; ++k) {
        if (!member(k, n)) continue;
        const auto taps = taps_of(k, p.width * width, width);
        const T* pooled = static_cast<const T*>(p.pooled) + k * p.pooled_strides[0] + c * p.pooled_strides[1];
        if (p.pooled_strides[1] == 1 && channels == width) {
          scatter_roi(slab, taps, width, pooled, p.pooled_strides[3]);
        } else {
          pack_channels_last(pooled, p.pooled_strides[1], p.pooled_strides[2], p.pooled_strides[3],
                             p.sampling.pooled_height, p.sampling.pooled_width, channels, tile, width);
          scatter_roi(slab, taps, width, tile, width);
        }
      }
      T* target = static_cast<T*>(p.features) + n * p.feature_strides[0] + c * p.feature_strides[1];
      unpack_channels_last(slab, width, target, p.feature_strides[1], p.feature_strides[3], pixels, channels);
    }
  });
}

}  // namespace fastcv::FASTCV_VARIANT

// Position-sensitive pooling on the CPU. See position_sensitive.h. CPU translation units only.
//
// An op gives Bins<A>, what one RoI needs, worked out once and used for all channels:
//
//   Bins(const A* box, const RoiParams&)
//   A sum(const T* plane, int64_t stride_y, int64_t stride_x, int64_t bin)     value of a bin from its plane
//   void add(A* plane, int64_t width, int64_t bin, A gradient)                  its transpose, into a contiguous plane
//
// Every bin reads another plane, so there are no vectors of channels. Napkin maths, 2 x 490 x 50 x 84 with 1000 RoIs of
// 7 x 7 bins, float32: 490 000 results of about 9 pixels, each on 3 cache lines: at 10 ns a line from the outer caches
// some 15 ms on one thread, less what neighbouring RoIs share.
#pragma once

#include "core/memory.h"
#include "core/parallel.h"
#include "core/simd.h"
#include "families/roi/position_sensitive.h"
#include "families/roi/roi_order_cpu.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

template <class T, template <class> class Bins>
void position_sensitive_forward(const RoiParams& p) {
  using A = Accumulate<T>;
  const A* boxes = static_cast<const A*>(p.boxes);
  check_batch_indices(boxes, p.rois, p.batch);
  const int64_t bins = p.sampling.bins(), channels = p.channels / bins;
  const int64_t stride_c = p.feature_strides[1], stride_y = p.feature_strides[2], stride_x = p.feature_strides[3];
  const RoiOrder<A> order(boxes, p.rois, p.batch, p.height, p.spatial_scale, [](int64_t) { return true; });
  const int64_t share = p.rois / (8 * max_threads());
  parallel_for(p.rois, least(share, 16), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t k = order[i];
      const A* box = boxes + 5 * k;
      const Bins<A> roi(box, p);
      const T* map = static_cast<const T*>(p.features) + static_cast<int64_t>(box[0]) * p.feature_strides[0];
      T* pooled = static_cast<T*>(p.pooled) + k * p.pooled_strides[0];
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t bin = 0; bin < bins; ++bin) {
          const A value = roi.sum(map + (c * bins + bin) * stride_c, stride_y, stride_x, bin);
          pooled[c * p.pooled_strides[1] + bin * p.pooled_strides[3]] = from_float<T>(value);
        }
      }
    }
  });
}

// One task owns some channels of one image and walks that image's RoIs in order, adding to planes that stay in cache:
// no atomics, and the same bits for every number of threads.
template <class T, template <class> class Bins>
void position_sensitive_backward(const RoiParams& p) {
  using A = Accumulate<T>;
  const A* boxes = static_cast<const A*>(p.boxes);
  check_batch_indices(boxes, p.rois, p.batch);
  const int64_t bins = p.sampling.bins(), pixels = p.height * p.width;
  advise_huge_pages(p.features, p.batch * p.channels * pixels * sizeof(T));
  constexpr int64_t kGroup = 32;
  const int64_t groups = ceil_div(p.channels, kGroup);
  parallel_for(p.batch * groups, 1, [&](int64_t begin, int64_t end) {
    const Scratch memory(bytes_of<A>(kGroup, p.height, p.width));
    A* planes = memory.as<A>();
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task / groups, c0 = task % groups * kGroup;
      const int64_t channels = least(p.channels - c0, kGroup);
      __builtin_memset(planes, 0, channels * pixels * sizeof(A));
      for (int64_t k = 0; k < p.rois; ++k) {
        if (static_cast<int64_t>(boxes[5 * k]) != n) continue;
        const Bins<A> roi(boxes + 5 * k, p);
        const T* gradient = static_cast<const T*>(p.pooled) + k * p.pooled_strides[0];
        int64_t channel = c0 / bins, bin = c0 % bins;
        for (int64_t c = 0; c < channels; ++c) {
          const A value = to_float(gradient[channel * p.pooled_strides[1] + bin * p.pooled_strides[3]]);
          roi.add(planes + c * pixels, p.width, bin, value);
          if (++bin == bins) ++channel, bin = 0;
        }
      }
      T* target = static_cast<T*>(p.features) + n * p.feature_strides[0] + c0 * p.feature_strides[1];
      for (int64_t c = 0; p.feature_strides[1] != 1 && c < channels; ++c) {
        convert_run(planes + c * pixels, pixels, target + c * p.feature_strides[1]);
      }
      for (int64_t pixel = 0; p.feature_strides[1] == 1 && pixel < pixels; ++pixel) {
        T* out = target + pixel * p.feature_strides[3];
        for (int64_t c = 0; c < channels; ++c) out[c] = from_float<T>(planes[c * pixels + pixel]);
      }
    }
  });
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

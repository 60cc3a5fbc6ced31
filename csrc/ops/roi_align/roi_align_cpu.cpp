// Pooling regions of interest by bilinear sampling, from one map or a pyramid of them: the kernels of RoIAlign and
// MultiScaleRoIAlign. CPU translation units only.
//
// The weights of a RoI depend on neither channel nor batch, so they are worked out once per RoI, one list for each
// axis, with samples that fall on the same pixel merged (a bin of s x s samples touches about (s + 1)^2 pixels instead
// of 4 s^2). The lists are then run over blocks of channels that lie next to each other in memory. Features that do not
// are repacked first: the map, as the RoIs get there, when they together cover more than it has, else just the window
// of each RoI. Each level of a pyramid chooses for itself.
//
// Napkin maths, 2 x 256 x 50 x 84 with 1000 RoIs of 7 x 7 bins, float32: 8.6 MB are read and packed, 49 bins x 6 taps x
// 256 channels x 1000 = 75 MFMA or 4.7 M vector operations (2 ms at one per cycle), 50 MB are written (5 ms at
// 10 GB/s). So the output's memory traffic is the floor, and its page faults: see advise_huge_pages.
#include "core/layout_cpu.h"
#include "core/parallel.h"
#include "core/past_caches_cpu.h"
#include "families/roi/roi_order_cpu.h"
#include "families/roi/roi_scatter_cpu.h"
#include "families/roi/roi_taps_cpu.h"
#include "ops/roi_align/roi_align.h"
#include "ops/roi_align/roi_blocks_cpu.h"
#include "ops/roi_align/roi_gather_cpu.h"
#include "ops/roi_align/roi_planes_cpu.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

// The level of every RoI, or -1.
template <class A>
class RoiLevels {
 public:
  explicit RoiLevels(const RoiPyramid& p) : memory_(bytes_of<int>(p.rois)), level_(memory_.as<int>()) {
    const A* boxes = static_cast<const A*>(p.boxes);
    for (int64_t k = 0; k < p.rois; ++k) level_[k] = roi_level(boxes + 5 * k, p);
  }
  int operator[](int64_t k) const { return level_[k]; }

 private:
  Scratch memory_;
  int* level_;
};

// The window of the map that a RoI reads.
struct Window {
  int64_t y, x, rows, columns;
};

template <class A>
Window window_of(const AxisTaps<A>& y, const AxisTaps<A>& x, int64_t width) {
  if (y.count() == 0 || x.count() == 0) return {0, 0, 0, 0};
  Window window{y.lowest, x.lowest, y.highest - y.lowest + 1, x.highest - x.lowest + 1};
  if (2 * window.columns >= width) return {window.y, 0, window.rows, width};  // whole rows are one run of pixels
  // At least as wide as the register transpose, when the map is.
  if (window.columns < kLanes<A> && width >= kLanes<A>) {
    window.columns = kLanes<A>;
    if (window.x > width - window.columns) window.x = width - window.columns;
  }
  return window;
}

// Pixels that the RoIs of a level read, together; an upper bound.
template <class A>
double pixels_covered(const RoiOrder<A>& order, const RoiLevel& level, const RoiPyramid& p) {
  const A* boxes = static_cast<const A*>(p.boxes);
  const double height = static_cast<double>(level.height), width = static_cast<double>(level.width);
  double sum = 0;
  for (int64_t i = 0; i < order.count(); ++i) {
    const RoiGeometry<A> roi = roi_geometry(boxes + 5 * order[i], level.spatial_scale, p.sampling);
    if (roi.empty) continue;
    const double size_y = static_cast<double>(greatest(roi.y.size, -roi.y.size));
    const double size_x = static_cast<double>(greatest(roi.x.size, -roi.x.size));
    const double rows = size_y * static_cast<double>(p.sampling.pooled_height) + 2;
    const double columns = size_x * static_cast<double>(p.sampling.pooled_width) + 2;
    const double wide = greatest(columns, kLanes<A>);
    sum += least(rows, height) * least(wide, width);
  }
  return sum;
}

// Runs body(y taps, x taps, batch index, pooled) for each RoI of the level, in parallel; RoIs without bins become
// zeros. `pooled` points at channel c0 of the RoI.
template <class T, class A, class Body>
void for_each_roi(const RoiOrder<A>& order, const RoiLevel& level, const RoiPyramid& p, int64_t c0, int64_t channels,
                  const Body& body) {
  const A* boxes = static_cast<const A*>(p.boxes);
  const int64_t share = order.count() / (8 * max_threads());
  parallel_for(order.count(), least(share, 16), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t k = order[i];
      T* pooled = static_cast<T*>(p.pooled) + k * p.pooled_strides[0] + c0 * p.pooled_strides[1];
      const RoiGeometry<A> roi = roi_geometry(boxes + 5 * k, level.spatial_scale, p.sampling);
      if (roi.empty || level.height == 0 || level.width == 0) {
        fill_zero(pooled, channels, p);
        continue;
      }
      const AxisTaps<A> y(roi.y, p.sampling.pooled_height, level.height);
      const AxisTaps<A> x(roi.x, p.sampling.pooled_width, level.width);
      body(y, x, static_cast<int64_t>(boxes[5 * k]), pooled);
    }
    finish_past_caches();
  });
}

// A photograph, or a few such planes.
template <class T, class A>
void pool_by_plane(const RoiOrder<A>& order, const RoiLevel& level, const RoiPyramid& p) {
  const int64_t* in = level.strides;
  const int64_t* out = p.pooled_strides;
  const int64_t map_strides[3] = {in[1], in[2], in[3]}, pooled_strides[3] = {out[1], out[2], out[3]};
  for_each_roi<T>(order, level, p, 0, p.channels,
                  [&](const AxisTaps<A>& y, const AxisTaps<A>& x, int64_t n, T* pooled) {
                    const T* map = static_cast<const T*>(level.features) + n * in[0];
                    pool_planes(map, map_strides, y, x, p.channels, pooled, pooled_strides);
                  });
}

// Features with neighbouring channels: read where they are.
template <class T, class A>
void pool_in_place(const RoiOrder<A>& order, const RoiLevel& level, const RoiPyramid& p) {
  for_each_roi<T>(order, level, p, 0, p.channels,
                  [&](const AxisTaps<A>& y, const AxisTaps<A>& x, int64_t n, T* pooled) {
                    const Scratch taps_memory(roi_taps_bytes<A>(p.sampling, y.count(), x.count()));
                    const RoiTaps<A> taps =
                        make_roi_taps(y, x, level.strides[2], level.strides[3], 0, 0, taps_memory.as<int64_t>());
                    const T* map = static_cast<const T*>(level.features) + n * level.strides[0];
                    pool_channels(map, taps, p.channels, p.channels, pooled, p);
                  });
}

// Few RoIs: only the window of each is packed.
template <class T, class A>
void pool_by_window(const RoiOrder<A>& order, const RoiLevel& level, const RoiPyramid& p) {
  const int64_t* stride = level.strides;
  const int64_t width = block_width<A>(p.channels);
  for_each_roi<T>(
      order, level, p, 0, p.channels, [&](const AxisTaps<A>& y, const AxisTaps<A>& x, int64_t n, T* pooled) {
        const Window window = window_of(y, x, level.width);
        const T* origin =
            static_cast<const T*>(level.features) + n * stride[0] + window.y * stride[2] + window.x * stride[3];
        const Scratch taps_memory(roi_taps_bytes<A>(p.sampling, y.count(), x.count()));
        const RoiTaps<A> taps =
            make_roi_taps(y, x, window.columns * width, width, window.y, window.x, taps_memory.as<int64_t>());
        const Scratch memory(bytes_of<A>(window.rows, window.columns, width));
        for (int64_t c = 0; c < p.channels; c += width) {
          const int64_t channels = least(p.channels - c, width);
          pack_channels_last(origin + c * stride[1], stride[1], stride[2], stride[3], window.rows, window.columns,
                             channels, memory.as<A>(), width);
          pool_channels(memory.as<A>(), taps, channels, width, pooled + c * p.pooled_strides[1], p);
        }
      });
}

template <class T>
void pool_rois(const RoiPyramid& p) {
  using A = Accumulate<T>;
  const A* boxes = static_cast<const A*>(p.boxes);
  check_batch_indices(boxes, p.rois, p.batch);
  advise_huge_pages(p.pooled, p.rois * p.channels * p.sampling.bins() * sizeof(T));
  const RoiLevels<A> level_of(p);
  for (int l = 0; l < p.level_count; ++l) {
    const RoiLevel& level = p.levels[l];
    const RoiOrder<A> order(boxes, p.rois, p.batch, level.height, level.spatial_scale,
                            [&](int64_t k) { return level_of[k] == l; });
    if (p.channels <= kFewChannels) {
      pool_by_plane<T>(order, level, p);
    } else if (level.strides[1] == 1 && p.channels >= kLanes<A>) {
      pool_in_place<T>(order, level, p);
    } else if (pixels_covered(order, level, p) <= static_cast<double>(p.batch * level.height * level.width)) {
      pool_by_window<T>(order, level, p);
    } else {
      pool_by_block<T>(order, level, p);
    }
  }
  for (int64_t k = 0; p.level_count > 1 && k < p.rois; ++k) {
    if (level_of[k] < 0) fill_zero(static_cast<T*>(p.pooled) + k * p.pooled_strides[0], p.channels, p);
  }
}

// See scatter_rois_into_map.
template <class T>
void scatter_level(int l, const RoiLevels<Accumulate<T>>& level_of, const RoiPyramid& p) {
  using A = Accumulate<T>;
  const A* boxes = static_cast<const A*>(p.boxes);
  const RoiLevel& level = p.levels[l];
  RoiParams map{level.features, p.pooled,    p.boxes, p.dtype, p.batch, p.channels,
                level.height,   level.width, p.rois,  {},      {},      level.spatial_scale,
                p.sampling};
  for (int i = 0; i < 4; ++i) map.feature_strides[i] = level.strides[i];
  for (int i = 0; i < 4; ++i) map.pooled_strides[i] = p.pooled_strides[i];
  const auto geometry_of = [&](int64_t k) { return roi_geometry(boxes + 5 * k, level.spatial_scale, p.sampling); };
  scatter_rois_into_map<T>(
      map,
      [&](int64_t k, int64_t n) {
        return level_of[k] == l && static_cast<int64_t>(boxes[5 * k]) == n && !geometry_of(k).empty;
      },
      [&](int64_t k, int64_t stride_y, int64_t stride_x) {
        const RoiGeometry<A> roi = geometry_of(k);
        const AxisTaps<A> y(roi.y, p.sampling.pooled_height, level.height);
        const AxisTaps<A> x(roi.x, p.sampling.pooled_width, level.width);
        return FlatTaps<A>(y, x, stride_y, stride_x);
      });
}

template <class T>
void scatter_rois(const RoiPyramid& p) {
  using A = Accumulate<T>;
  check_batch_indices(static_cast<const A*>(p.boxes), p.rois, p.batch);
  const RoiLevels<A> level_of(p);
  for (int l = 0; l < p.level_count; ++l) scatter_level<T>(l, level_of, p);
}

}  // namespace

void roi_align_forward_cpu(const RoiPyramid& params) {
  dispatch_floating(params.dtype, [&](auto tag) { pool_rois<typename decltype(tag)::type>(params); });
}

void roi_align_backward_cpu(const RoiPyramid& params) {
  dispatch_floating(params.dtype, [&](auto tag) { scatter_rois<typename decltype(tag)::type>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

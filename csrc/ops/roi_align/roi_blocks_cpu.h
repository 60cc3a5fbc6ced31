// Pooling many RoIs from one level whose channels do not lie next to each other. CPU translation units only.
//
// A task takes a few channels of one image, and its RoIs by the row they start in. It packs the rows of the map just
// before the first RoI that reads them, so that packed rows are still in the second-level cache when they are read, and
// never travel to memory. Rows of the finest map, 336 pixels x 64 bytes, are 21 KB; RoIs are some 25 of them high.
//
// Napkin maths, 2 x 256 x 200 x 336 ... 25 x 42 with 2000 RoIs of 7 x 7 bins, float32, one thread: 183 MB are read
// (20 ms), 16 channels of a RoI are pooled 32 000 times, in 2000 cycles (23 ms), and 100 MB are written (8 ms) to pages
// that the system clears first (14 ms). A map that is packed as a whole is written and read once more (35 ms).
#pragma once

#include "core/parallel.h"
#include "core/past_caches_cpu.h"
#include "families/roi/roi_order_cpu.h"
#include "ops/roi_align/roi_gather_cpu.h"

namespace fastcv::FASTCV_VARIANT {

constexpr int64_t kPlaneBytes = int64_t{320} << 10;  // of one image, where that still leaves a cache line per pixel
constexpr size_t kTapsBytes = size_t{32} << 20;
constexpr int64_t kFewRois = 32;

// A RoI of a batch, ready to be pooled from a packed map that begins with the lowest row it reads.
template <class A>
struct PreparedRoi {
  int64_t roi, image;
  size_t memory;  // where its taps begin
  RoiGeometry<A> geometry;
  int64_t lowest, highest;  // rows; lowest > highest when it reads none
  RoiTaps<A> taps;
};

// Takes as many RoIs, from position `begin` of the order on, as have room for their taps in kTapsBytes, at least one.
// Returns how many; `bytes` is the memory their taps need.
template <class A>
int64_t choose_batch(const RoiOrder<A>& order, int64_t begin, const RoiLevel& level, const RoiPyramid& p,
                     PreparedRoi<A>* rois, size_t* bytes) {
  const A* boxes = static_cast<const A*>(p.boxes);
  int64_t count = 0;
  *bytes = 0;
  for (; begin + count < order.count(); ++count) {
    const int64_t k = order[begin + count];
    const RoiGeometry<A> geometry = roi_geometry(boxes + 5 * k, level.spatial_scale, p.sampling);
    const size_t more = roi_taps_bytes<A>(p.sampling, most_taps(geometry.y, p.sampling.pooled_height, level.height),
                                          most_taps(geometry.x, p.sampling.pooled_width, level.width));
    if (count > 0 && *bytes + more > kTapsBytes) break;
    rois[count] = {k, static_cast<int64_t>(boxes[5 * k]), *bytes, geometry, level.height, -1, {}};
    *bytes += more;
  }
  return count;
}

template <class A>
void prepare_batch(PreparedRoi<A>* rois, int64_t count, char* memory, int64_t width, const RoiLevel& level,
                   const RoiPyramid& p) {
  parallel_for(count, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      PreparedRoi<A>& roi = rois[i];
      if (roi.geometry.empty || level.height == 0 || level.width == 0) continue;
      const AxisTaps<A> y(roi.geometry.y, p.sampling.pooled_height, level.height);
      const AxisTaps<A> x(roi.geometry.x, p.sampling.pooled_width, level.width);
      if (y.count() == 0 || x.count() == 0) continue;
      roi.lowest = y.lowest;
      roi.highest = y.highest;
      int64_t* taps_memory = reinterpret_cast<int64_t*>(memory + roi.memory);
      roi.taps = make_roi_taps(y, x, level.width * width, width, y.lowest, 0, taps_memory);
    }
  });
}

// Pools `channels` channels, from c on, of RoIs of one image in the order of the rows they start in.
template <class T, class A>
void pool_segment(const PreparedRoi<A>* rois, int64_t count, int64_t c, int64_t channels, int64_t width,
                  const RoiLevel& level, const RoiPyramid& p) {
  int64_t low = level.height, high = -1;
  for (int64_t i = 0; i < count; ++i) {
    if (rois[i].lowest < low) low = rois[i].lowest;
    if (rois[i].highest > high) high = rois[i].highest;
  }
  const int64_t* stride = level.strides;
  const int64_t row_elements = level.width * width;
  const Scratch memory(high < low ? 0 : bytes_of<A>(high - low + 1, level.width, width));
  A* packed = memory.as<A>();  // row `low` and the following ones
  const T* source = static_cast<const T*>(level.features) + rois[0].image * stride[0] + c * stride[1];
  int64_t next = low;  // the first row that is not packed yet
  for (int64_t i = 0; i < count; ++i) {
    const PreparedRoi<A>& roi = rois[i];
    T* pooled = static_cast<T*>(p.pooled) + roi.roi * p.pooled_strides[0] + c * p.pooled_strides[1];
    if (roi.lowest > roi.highest) {
      fill_zero(pooled, channels, p);
      continue;
    }
    if (roi.highest >= next) {
      pack_channels_last(source + next * stride[2], stride[1], stride[2], stride[3], roi.highest + 1 - next,
                         level.width, channels, packed + (next - low) * row_elements, width);
      next = roi.highest + 1;
    }
    pool_channels(packed + (roi.lowest - low) * row_elements, roi.taps, channels, width, pooled, p);
  }
  finish_past_caches();
}

template <class T, class A>
void pool_by_block(const RoiOrder<A>& order, const RoiLevel& level, const RoiPyramid& p) {
  constexpr int64_t kLineChannels = 64 / static_cast<int64_t>(sizeof(A));
  int64_t width = block_width<A>(p.channels);
  while (width > kLineChannels && level.height * level.width * width * static_cast<int64_t>(sizeof(A)) > kPlaneBytes) {
    width = half_block<A>(width);
  }
  const int64_t blocks = ceil_div(p.channels, width);
  const Scratch rois_memory(bytes_of<PreparedRoi<A>>(order.count()));
  const Scratch segments_memory(bytes_of<int64_t>(order.count() + 1));
  PreparedRoi<A>* rois = rois_memory.as<PreparedRoi<A>>();
  int64_t* segment = segments_memory.as<int64_t>();
  for (int64_t begin = 0, count; begin < order.count(); begin += count) {
    size_t taps_bytes;
    count = choose_batch(order, begin, level, p, rois, &taps_bytes);
    const Scratch taps_memory(taps_bytes);
    prepare_batch(rois, count, taps_memory.as<char>(), width, level, p);
    // One segment per image, or more where that is too few tasks for all threads.
    const int64_t pieces = 1 + 4 * max_threads() / blocks;
    const int64_t piece = ceil_div(count, pieces);
    const int64_t share = greatest(piece, kFewRois);
    int64_t segments = 0;
    for (int64_t i = 0; i < count; ++i) {
      if (i == 0 || rois[i].image != rois[i - 1].image || i - segment[segments - 1] >= share) segment[segments++] = i;
    }
    segment[segments] = count;
    parallel_for(segments * blocks, 1, [&](int64_t task, int64_t end) {
      for (; task < end; ++task) {
        const int64_t c = task / segments * width, first = segment[task % segments];
        pool_segment<T>(rois + first, segment[task % segments + 1] - first, c, least(p.channels - c, width), width,
                        level, p);
      }
    });
  }
}

}  // namespace fastcv::FASTCV_VARIANT

// RoIAlign of rotated boxes on the CPU. See roi_align_rotated.h for the meaning.
//
// The weights of a RoI depend on neither channel nor batch: they are listed once (RotatedTaps) and run over the channels
// of a pixel, whole vectors of them. Features whose channels do not lie next to each other are repacked first, the rows
// that RoIs touch, a block of channels at a time; the lists are then made once per block.
//
// Napkin maths, 2 x 256 x 50 x 84 with 1000 RoIs of 7 x 7 bins, 2 x 2 samples, float32, one thread: 16 taps x 49 bins x
// 256 channels x 1000 = 12.5 M vector loads with a multiplication each (6 ms at one per cycle), 196 000 samples of some
// 20 ns per block of channels (4 ms), 50 MB written (5 ms).
#include "core/layout_cpu.h"
#include "core/parallel.h"
#include "families/roi/roi_order_cpu.h"
#include "families/roi/roi_scatter_cpu.h"
#include "ops/roi_align_rotated/roi_align_rotated.h"
#include "ops/roi_align_rotated/rotated_taps_cpu.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int64_t kFewChannels = 4;  // pooled plane by plane

template <class A>
using RotatedOrder = RoiOrder<A, kRotatedColumns>;

// The bins of `channels` channels that lie next to each other, whole vectors of them. Bin b goes to out + b * stride.
template <class MapT, class A, class Out>
void pool_vectors(const MapT* map, const RotatedTaps<A>& taps, int64_t channels, Out* out, int64_t stride) {
  for (int64_t bin = 0; bin < taps.bins; ++bin, out += stride) {
    const int64_t begin = taps.first[bin], end = taps.first[bin + 1];
    for_each_run<A>(channels, [&](auto vectors, int64_t c) {
      Vector<A> sum[vectors.value];
#pragma GCC unroll 8
      for (int v = 0; v < vectors.value; ++v) sum[v] = Vector<A>{};
      for (int64_t t = begin; t < end; ++t) {
        const Vector<A> factor = broadcast(taps.weight[t]);
        const MapT* pixel = map + taps.offset[t] + c;
#pragma GCC unroll 8
        for (int v = 0; v < vectors.value; ++v) {
          sum[v] = multiply_add(factor, load(pixel + v * kLanes<A>), sum[v]);
        }
      }
#pragma GCC unroll 8
      for (int v = 0; v < vectors.value; ++v) store(out + c + v * kLanes<A>, sum[v]);
    });
  }
}

// The same for one channel.
template <class MapT, class A, class Out>
void pool_channel(const MapT* map, const RotatedTaps<A>& taps, Out* out, int64_t stride) {
  for (int64_t bin = 0; bin < taps.bins; ++bin, out += stride) {
    A sum = 0;
    for (int64_t t = taps.first[bin]; t < taps.first[bin + 1]; ++t) {
      sum = multiply_add(taps.weight[t], static_cast<A>(to_float(map[taps.offset[t]])), sum);
    }
    *out = from_float<Out>(sum);
  }
}

// Pools the RoIs order[first ... last) of one map, or of a map per image. Of `readable` channels, at least p.channels
// where they lie next to each other, whole vectors are read; others one by one.
template <class T, class MapT, class A>
void pool_rois(const RotatedOrder<A>& order, int64_t first, int64_t last, const MapT* features,
               const int64_t (&strides)[4], int64_t readable, const RoiParams& p) {
  const A* boxes = static_cast<const A*>(p.boxes);
  const int64_t bins = p.sampling.bins(), stride_c = p.pooled_strides[1], stride_bin = p.pooled_strides[3];
  const int64_t whole = strides[1] == 1 ? readable / kLanes<A> * kLanes<A> : 0, from_vectors = least(whole, p.channels);
  const bool straight = stride_c == 1 && whole <= p.channels;
  const int64_t share = (last - first) / (8 * max_threads());
  parallel_for(last - first, least(share, 16), [&](int64_t begin, int64_t end) {
    const Scratch memory(bytes_of<A>(straight ? 0 : bins, whole));
    A* tile = memory.as<A>();
    for (int64_t i = first + begin; i < first + end; ++i) {
      const int64_t k = order[i];
      const A* box = boxes + kRotatedColumns * k;
      const MapT* map = features + static_cast<int64_t>(box[0]) * strides[0];
      T* pooled = static_cast<T*>(p.pooled) + k * p.pooled_strides[0];
      const RotatedTaps<A> taps(rotated_roi(box, p), p, strides[2], strides[3]);
      if (straight) {
        pool_vectors(map, taps, whole, pooled, stride_bin);
      } else if (whole > 0) {
        pool_vectors(map, taps, whole, tile, whole);
        unpack_channels_last(tile, whole, pooled, stride_c, stride_bin, bins, from_vectors);
      }
      for (int64_t c = from_vectors; c < p.channels; ++c) {
        pool_channel(map + c * strides[1], taps, pooled + c * stride_c, stride_bin);
      }
    }
  });
}

// Rows of the map that RoIs touch; none where low > high.
struct TouchedRows {
  int64_t low, high;
};

template <class A>
TouchedRows touched_rows(const RotatedOrder<A>& order, int64_t first, int64_t last, const RoiParams& p) {
  const A* boxes = static_cast<const A*>(p.boxes);
  const int64_t last_y = p.sampling.pooled_height - 1, last_x = p.sampling.pooled_width - 1;
  TouchedRows rows{p.height, -1};
  for (int64_t i = first; i < last; ++i) {
    const RotatedRoi<A> roi = rotated_roi(boxes + kRotatedColumns * order[i], p);
    if (roi.empty) continue;
    const TapWindow window = window_between(roi, roi_position(roi.y, 0, 0), roi_position(roi.y, last_y, roi.y.grid - 1),
                                            roi_position(roi.x, 0, 0), roi_position(roi.x, last_x, roi.x.grid - 1), p);
    if (window.pixels() == 0) continue;
    rows = {least(rows.low, window.y_low), greatest(rows.high, window.y_high)};
  }
  return rows;
}

// Features whose channels do not lie next to each other: image by image, the rows that its RoIs touch are packed so.
template <class T, class A>
void pool_packed(const RotatedOrder<A>& order, const RoiParams& p) {
  const A* boxes = static_cast<const A*>(p.boxes);
  const int64_t width = round_up_to_lanes<A>(p.channels), row_elements = p.width * width;
  const int64_t strides[4] = {0, 1, row_elements, width};
  for (int64_t first = 0, last; first < order.count(); first = last) {
    const int64_t n = static_cast<int64_t>(boxes[kRotatedColumns * order[first]]);
    for (last = first + 1; last < order.count(); ++last) {
      if (static_cast<int64_t>(boxes[kRotatedColumns * order[last]]) != n) break;
    }
    const TouchedRows rows = touched_rows(order, first, last, p);
    const int64_t count = greatest(rows.high - rows.low + 1, int64_t{0});
    const Scratch memory(bytes_of<A>(count, p.width, width));
    A* packed = memory.as<A>();
    const T* image = static_cast<const T*>(p.features) + n * p.feature_strides[0];
    const int64_t* stride = p.feature_strides;
    parallel_for(count, 4, [&](int64_t begin, int64_t end) {
      const T* row = image + (rows.low + begin) * stride[2];
      pack_channels_last(row, stride[1], stride[2], stride[3], end - begin, p.width, p.channels,
                         packed + begin * row_elements, width);
    });
    pool_rois<T>(order, first, last, packed - rows.low * row_elements, strides, width, p);
  }
}

template <class T>
void pool_rotated(const RoiParams& p) {
  using A = Accumulate<T>;
  const A* boxes = static_cast<const A*>(p.boxes);
  check_batch_indices<kRotatedColumns>(boxes, p.rois, p.batch);
  advise_huge_pages(p.pooled, p.rois * p.channels * p.sampling.bins() * sizeof(T));
  const RotatedOrder<A> order(boxes, p.rois, p.batch, p.height, p.spatial_scale, [](int64_t) { return true; });
  if (p.channels <= kFewChannels || (p.feature_strides[1] == 1 && p.channels >= kLanes<A>)) {
    pool_rois<T>(order, 0, order.count(), static_cast<const T*>(p.features), p.feature_strides, p.channels, p);
  } else {
    pool_packed<T>(order, p);
  }
}

template <class T>
void scatter_rotated(const RoiParams& p) {
  using A = Accumulate<T>;
  const A* boxes = static_cast<const A*>(p.boxes);
  check_batch_indices<kRotatedColumns>(boxes, p.rois, p.batch);
  const auto roi_of = [&](int64_t k) { return rotated_roi(boxes + kRotatedColumns * k, p); };
  scatter_rois_into_map<T>(
      p, [&](int64_t k, int64_t n) { return static_cast<int64_t>(boxes[kRotatedColumns * k]) == n; },
      [&](int64_t k, int64_t stride_y, int64_t stride_x) { return RotatedTaps<A>(roi_of(k), p, stride_y, stride_x); });
}

}  // namespace

void roi_align_rotated_forward_cpu(const RoiParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { pool_rotated<typename decltype(tag)::type>(params); });
}

void roi_align_rotated_backward_cpu(const RoiParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { scatter_rotated<typename decltype(tag)::type>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

// Pooling a RoI from channels that lie next to each other, one axis after the other. CPU translation units only.
//
// A row of bins first sums the rows of pixels that it touches, at every column that the RoI touches, into a line that
// stays in the first-level cache; then each of its bins sums its columns of that line. That is about as many
// multiplications as one list of (pixel, weight) per bin would take, 3 x 15 columns + 7 bins x 3 against 7 bins x 9,
// but the long loop runs over the columns with its weights in registers. Lists of 4 to 16 pixels cost three loads per
// multiplication, and a mispredicted branch where each ends: 70 cycles per bin and vector, three times as many.
#pragma once

#include "core/layout_cpu.h"
#include "core/past_caches_cpu.h"
#include "families/roi/roi_taps_cpu.h"
#include "ops/roi_align/roi_align.h"

namespace fastcv::FASTCV_VARIANT {

// The taps of a RoI as offsets into a map, in memory of the caller's.
template <class A>
struct RoiTaps {
  struct Axis {
    int64_t* first;  // bin b has the taps first[b] up to first[b + 1]
    int64_t* index;  // y: offset of the row; x: which of the columns
    A* weight;
    int64_t bins;
  };
  Axis y, x;
  int64_t* column;  // offsets of the columns that the RoI touches
  int64_t columns;

  int64_t bins() const { return y.bins * x.bins; }
};

// Bytes of memory for the taps, of which there are at most so many along each axis; a multiple of 8.
template <class A>
size_t roi_taps_bytes(const RoiSampling& sampling, int64_t taps_y, int64_t taps_x) {
  const size_t firsts = bytes_of<int64_t>(sampling.pooled_height + 1) + bytes_of<int64_t>(sampling.pooled_width + 1);
  const size_t weights = bytes_of<A>(taps_y) + bytes_of<A>(taps_x);
  return firsts + bytes_of<int64_t>(taps_y) + bytes_of<int64_t>(2, taps_x) + round_up(weights, sizeof(int64_t));
}

// For a map with the given strides whose origin is pixel (y0, x0).
template <class A>
RoiTaps<A> make_roi_taps(const AxisTaps<A>& y, const AxisTaps<A>& x, int64_t stride_y, int64_t stride_x, int64_t y0,
                         int64_t x0, int64_t* memory) {
  RoiTaps<A> taps;
  taps.y = {memory, memory + y.bins + 1, nullptr, y.bins};
  int64_t* next = taps.y.index + y.count();
  taps.x = {next, next + x.bins + 1, nullptr, x.bins};
  taps.column = taps.x.index + x.count();
  taps.columns = 0;
  taps.y.weight = reinterpret_cast<A*>(taps.column + x.count());
  taps.x.weight = taps.y.weight + y.count();
  for (int64_t bin = 0; bin <= y.bins; ++bin) taps.y.first[bin] = y.first[bin];
  for (int64_t bin = 0; bin <= x.bins; ++bin) taps.x.first[bin] = x.first[bin];
  for (int64_t i = 0; i < y.count(); ++i) {
    taps.y.index[i] = (y.pixel[i] - y0) * stride_y;
    taps.y.weight[i] = y.weight[i];
  }
  for (int64_t i = 0; i < x.count(); ++i) {
    const int64_t offset = (x.pixel[i] - x0) * stride_x;
    // Bins ascend, so a column that an earlier bin had is among the last ones.
    int64_t j = taps.columns;
    if (j > 0 && offset <= taps.column[j - 1]) {
      while (j > 0 && taps.column[j - 1] != offset) --j;
      j = j > 0 ? j - 1 : taps.columns;
    }
    if (j == taps.columns) taps.column[taps.columns++] = offset;
    taps.x.index[i] = j;
    taps.x.weight[i] = x.weight[i];
  }
  return taps;
}

// Rows that are summed in one pass over the columns.
constexpr int64_t kRowsAtOnce = 4;

// Sums kRows rows into the line of all columns, after what it has unless kStart.
template <bool kStart, int kRows, int kVectors, class MapT, class A>
FASTCV_INLINE void sum_rows(const MapT* map, const int64_t* row, const A* weight, const RoiTaps<A>& taps, A* line) {
  const MapT* rows[kRows];
  Vector<A> weights[kRows];
  for (int i = 0; i < kRows; ++i) {
    rows[i] = map + row[i];
    weights[i] = broadcast(weight[i]);
  }
  const int64_t* column = taps.column;
  for (int64_t j = 0; j < taps.columns; ++j, line += kVectors * kLanes<A>) {
    const int64_t offset = column[j];
    Vector<A> sum[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sum[v] = kStart ? Vector<A>{} : load(line + v * kLanes<A>);
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        sum[v] = multiply_add(weights[i], load(rows[i] + offset + v * kLanes<A>), sum[v]);
      }
    }
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) store(line + v * kLanes<A>, sum[v]);
  }
}

// The same for `count` rows, at least one, of which it takes the first kRowsAtOnce.
template <bool kStart, int kVectors, class MapT, class A>
FASTCV_INLINE void sum_first_rows(const MapT* map, const int64_t* row, const A* weight, int64_t count,
                                  const RoiTaps<A>& taps, A* line) {
  if (count >= 4) return sum_rows<kStart, 4, kVectors>(map, row, weight, taps, line);
  if (count == 3) return sum_rows<kStart, 3, kVectors>(map, row, weight, taps, line);
  if (count == 2) return sum_rows<kStart, 2, kVectors>(map, row, weight, taps, line);
  sum_rows<kStart, 1, kVectors>(map, row, weight, taps, line);
}

// All bins of kVectors vectors of neighbouring channels. Bin b goes to out + b * stride.
template <int kVectors, class MapT, class A, class Out>
void pool_vectors(const MapT* map, const RoiTaps<A>& taps, A* line, Out* out, int64_t stride) {
  for (int64_t bin_y = 0; bin_y < taps.y.bins; ++bin_y) {
    const int64_t begin = taps.y.first[bin_y], end = taps.y.first[bin_y + 1];
    const int64_t* row = taps.y.index;
    const A* weight = taps.y.weight;
    if (begin < end) {
      sum_first_rows<true, kVectors>(map, row + begin, weight + begin, end - begin, taps, line);
      for (int64_t i = begin + kRowsAtOnce; i < end; i += kRowsAtOnce) {
        sum_first_rows<false, kVectors>(map, row + i, weight + i, end - i, taps, line);
      }
    }
    for (int64_t bin_x = 0; bin_x < taps.x.bins; ++bin_x, out += stride) {
      Vector<A> sum[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sum[v] = Vector<A>{};
      const int64_t last = begin < end ? taps.x.first[bin_x + 1] : 0;
      for (int64_t t = taps.x.first[bin_x]; t < last; ++t) {
        const Vector<A> factor = broadcast(taps.x.weight[t]);
        const A* source = line + taps.x.index[t] * (kVectors * kLanes<A>);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sum[v] = multiply_add(factor, load(source + v * kLanes<A>), sum[v]);
      }
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) store(out + v * kLanes<A>, sum[v]);
    }
  }
}

// The same for one channel.
template <class MapT, class A, class Out>
void pool_channel(const MapT* map, const RoiTaps<A>& taps, A* line, Out* out, int64_t stride) {
  for (int64_t bin_y = 0; bin_y < taps.y.bins; ++bin_y) {
    for (int64_t j = 0; j < taps.columns; ++j) {
      line[j] = 0;
      for (int64_t i = taps.y.first[bin_y]; i < taps.y.first[bin_y + 1]; ++i) {
        const A value = to_float(map[taps.y.index[i] + taps.column[j]]);
        line[j] = multiply_add(taps.y.weight[i], value, line[j]);
      }
    }
    for (int64_t bin_x = 0; bin_x < taps.x.bins; ++bin_x, out += stride) {
      A sum = 0;
      for (int64_t t = taps.x.first[bin_x]; t < taps.x.first[bin_x + 1]; ++t) {
        sum = multiply_add(taps.x.weight[t], line[taps.x.index[t]], sum);
      }
      *out = from_float<Out>(sum);
    }
  }
}

// Whether the results together are larger than what caches hold until somebody reads them.
template <class T>
bool pooled_outgrows_caches(const RoiPyramid& p) {
  constexpr int64_t kCacheBytes = int64_t{8} << 20;
  return p.rois * p.channels * p.sampling.bins() * static_cast<int64_t>(sizeof(T)) > kCacheBytes;
}

// Pools `channels` channels of a map of which `width` may be read (so whole vectors, when there is padding) into
// `pooled`, which points at the first of them.
template <class T, class MapT, class A>
void pool_channels(const MapT* map, const RoiTaps<A>& taps, int64_t channels, int64_t width, T* pooled,
                   const RoiPyramid& p) {
  const int64_t bins = taps.bins(), stride_c = p.pooled_strides[1];
  const bool channels_last = stride_c == 1;
  // Rows of channels go straight to a channels_last result, else to a tile that is then transposed: in the cache first
  // when it goes past the caches from there.
  const bool past_caches = stride_c == bins && pooled_outgrows_caches<T>(p);
  const int64_t block = least(width, kBlockChannels<A>);
  const int64_t tile_elements = channels_last ? 0 : bins * block;
  const Scratch memory(bytes_of<A>(taps.columns, block) + bytes_of<A>(tile_elements) +
                       bytes_of<T>(past_caches ? bins : 0, block));
  A* line = memory.as<A>();
  A* tile = line + taps.columns * block;
  T* turned = reinterpret_cast<T*>(tile + tile_elements);
  for (int64_t c0 = 0; c0 < channels; c0 += block) {
    const int64_t count = least(channels - c0, block);
    const int64_t readable = least(width - c0, block);
    const int64_t whole = (channels_last ? count : readable) / kLanes<A> * kLanes<A>;
    const auto pool_rows = [&](auto* rows, int64_t stride) {
      for_each_run<A>(whole, [&](auto vectors, int64_t c) {
        pool_vectors<vectors.value>(map + c0 + c, taps, line, rows + c, stride);
      });
      for (int64_t c = whole; c < count; ++c) pool_channel(map + c0 + c, taps, line, rows + c, stride);
    };
    T* target = pooled + c0 * stride_c;
    if (channels_last) {
      pool_rows(target, p.pooled_strides[3]);
      continue;
    }
    pool_rows(tile, block);
    transpose(tile, block, past_caches ? turned : target, stride_c, bins, count);
    if (past_caches) copy_past_caches(target, turned, bins * count * static_cast<int64_t>(sizeof(T)));
  }
}

template <class T>
void fill_zero(T* pooled, int64_t channels, const RoiPyramid& p) {
  const bool channels_last = p.pooled_strides[1] == 1;
  const int64_t bins = p.sampling.bins();
  const int64_t rows = channels_last ? bins : channels, columns = channels_last ? channels : bins;
  const int64_t stride = channels_last ? p.pooled_strides[3] : p.pooled_strides[1];
  for (int64_t i = 0; i < rows; ++i) __builtin_memset(pooled + i * stride, 0, columns * sizeof(T));
}

}  // namespace fastcv::FASTCV_VARIANT

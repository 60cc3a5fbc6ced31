// RoIPool on the CPU. See roi_pool.h for the meaning.
//
// Features whose channels lie next to each other are read where they are, whole vectors of channels at a time. Others
// are packed that way first when the RoIs together cover more than the map has, else pooled plane by plane.
//
// Napkin maths, 2 x 256 x 50 x 84 with 1000 RoIs of 7 x 7 bins, float32: a bin has about 4 pixels, so 50 M comparisons
// or 3 M vector operations; 50 MB of values are written, and as much again of argmax when a gradient will be asked for.
#include "core/layout_cpu.h"
#include "core/parallel.h"
#include "families/roi/roi_order_cpu.h"
#include "ops/roi_pool/roi_pool.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

template <class A>
struct BinPixels {
  PixelRange y, x;
  bool empty() const { return y.high <= y.low || x.high <= x.low; }
};

// The bins of one RoI, row by row.
template <class A>
class RoiBins {
 public:
  RoiBins(const A* box, const RoiPoolParams& p)
      : count(p.pooled_height * p.pooled_width), memory_(bytes_of<BinPixels<A>>(p.pooled_height, p.pooled_width)) {
    BinPixels<A>* bins = memory_.as<BinPixels<A>>();
    const RoiPoolGeometry<A> roi = roi_pool_geometry(box, p);
    for (int64_t bin = 0; bin < count; ++bin) {
      bins[bin] = {{0, 0}, {0, 0}};
      if (roi.empty) continue;
      bins[bin] = {pixels_of_bin(roi.y, bin / p.pooled_width, p.height),
                   pixels_of_bin(roi.x, bin % p.pooled_width, p.width)};
    }
  }
  const BinPixels<A>& operator[](int64_t bin) const { return memory_.as<BinPixels<A>>()[bin]; }
  const int64_t count;

 private:
  Scratch memory_;
};

// The largest values of kVectors vectors of channels, and where they are (as the bits of an A).
template <bool kArgmax, int kVectors, class MapT, class A>
inline void max_of_bin(const MapT* map, int64_t stride_y, int64_t stride_x, const BinPixels<A>& bin, int64_t width,
                       Vector<A> (&largest)[kVectors], Vector<A> (&where)[kVectors]) {
  using Indices = IntegerVector<A>;
  Indices index[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    largest[v] = broadcast(bin.empty() ? A(0) : static_cast<A>(kLowest));
    index[v] = Indices{} - 1;
  }
  for (int64_t y = bin.y.low; y < bin.y.high; ++y) {
    for (int64_t x = bin.x.low; x < bin.x.high; ++x) {
      const MapT* pixel = map + y * stride_y + x * stride_x;
      const Indices here = Indices{} + static_cast<Integer<A>>(y * width + x);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const Vector<A> value = load(pixel + v * kLanes<A>);
        const Indices larger = value > largest[v];
        largest[v] = larger ? value : largest[v];
        if (kArgmax) index[v] = larger ? here : index[v];
      }
    }
  }
  for (int v = 0; v < kVectors; ++v) where[v] = bit_cast<Vector<A>>(index[v]);
}

// One channel.
template <class MapT, class A>
inline A max_of_bin(const MapT* map, int64_t stride_y, int64_t stride_x, const BinPixels<A>& bin, int64_t width,
                    int32_t* where) {
  A largest = bin.empty() ? A(0) : static_cast<A>(kLowest);
  *where = -1;
  for (int64_t y = bin.y.low; y < bin.y.high; ++y) {
    for (int64_t x = bin.x.low; x < bin.x.high; ++x) {
      const A value = to_float(map[y * stride_y + x * stride_x]);
      if (!(value > largest)) continue;
      largest = value;
      *where = static_cast<int32_t>(y * width + x);
    }
  }
  return largest;
}

// The bits of indices as floats are copied as they are; as doubles they hold 64-bit numbers.
template <class A>
void write_argmax(const A* tile, int64_t tile_stride, int32_t* argmax, int64_t channels, int64_t bins, int64_t stride_c,
                  int64_t stride_bin) {
  if (sizeof(A) == sizeof(int32_t) && stride_bin == 1) {
    return transpose(reinterpret_cast<const float*>(tile), tile_stride, reinterpret_cast<float*>(argmax), stride_c,
                     bins, channels);
  }
  for (int64_t bin = 0; bin < bins; ++bin) {
    for (int64_t c = 0; c < channels; ++c) {
      const auto index = bit_cast<Integer<A>>(tile[bin * tile_stride + c]);
      argmax[c * stride_c + bin * stride_bin] = static_cast<int32_t>(index);
    }
  }
}

// Pools `channels` neighbouring channels of a map, of which `readable` may be read, into `pooled` and `argmax`, which
// point at the first of them.
template <bool kArgmax, class T, class MapT, class A>
void pool_channels(const MapT* map, int64_t stride_y, int64_t stride_x, const RoiBins<A>& bins, int64_t channels,
                   int64_t readable, T* pooled, int32_t* argmax, const RoiPoolParams& p) {
  constexpr int64_t kWidth = kBlockChannels<A>;
  const Scratch memory(bytes_of<A>(kArgmax ? 2 : 1, bins.count, kWidth));
  A* tile = memory.as<A>();
  A* where_tile = tile + bins.count * kWidth;
  const int64_t stride_c = p.pooled_strides[1], stride_bin = p.pooled_strides[3];
  for (int64_t c0 = 0; c0 < channels; c0 += kWidth) {
    const int64_t count = least(channels - c0, kWidth);
    const int64_t whole = least(readable - c0, kWidth) / kLanes<A> * kLanes<A>;
    for (int64_t bin = 0; bin < bins.count; ++bin) {
      A* row = tile + bin * kWidth;
      A* where_row = where_tile + bin * kWidth;
      const auto run = [&](auto vectors, int64_t c) {
        Vector<A> largest[vectors.value], where[vectors.value];
        max_of_bin<kArgmax>(map + c0 + c, stride_y, stride_x, bins[bin], p.width, largest, where);
        for (int v = 0; v < vectors.value; ++v) {
          store(row + c + v * kLanes<A>, largest[v]);
          if (kArgmax) store(where_row + c + v * kLanes<A>, where[v]);
        }
      };
      int64_t c = 0;
      for (; c + 4 * kLanes<A> <= whole; c += 4 * kLanes<A>) run(VectorCount<4>{}, c);
      for (; c < whole; c += kLanes<A>) run(VectorCount<1>{}, c);
      for (; c < count; ++c) {
        int32_t where;
        row[c] = max_of_bin(map + c0 + c, stride_y, stride_x, bins[bin], p.width, &where);
        if (kArgmax) where_row[c] = bit_cast<A>(static_cast<Integer<A>>(where));
      }
    }
    unpack_channels_last(tile, kWidth, pooled + c0 * stride_c, stride_c, stride_bin, bins.count, count);
    if (kArgmax) {
      write_argmax(where_tile, kWidth, argmax + c0 * stride_c, count, bins.count, stride_c, stride_bin);
    }
  }
}

// Calls body(bins, batch index, pooled, argmax) for each RoI, in parallel.
template <class T, class A, class Body>
void for_each_roi(const RoiOrder<A>& order, const RoiPoolParams& p, const Body& body) {
  const A* boxes = static_cast<const A*>(p.boxes);
  const int64_t share = order.count() / (8 * max_threads());
  parallel_for(order.count(), least(share, 16), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t k = order[i], offset = k * p.pooled_strides[0];
      const RoiBins<A> bins(boxes + 5 * k, p);
      body(bins, static_cast<int64_t>(boxes[5 * k]), static_cast<T*>(p.pooled) + offset,
           p.argmax == nullptr ? nullptr : p.argmax + offset);
    }
  });
}

template <class A>
double pixels_covered(const RoiPoolParams& p) {
  double sum = 0;
  for (int64_t k = 0; k < p.rois; ++k) {
    const RoiPoolGeometry<A> roi = roi_pool_geometry(static_cast<const A*>(p.boxes) + 5 * k, p);
    if (roi.empty) continue;
    const double rows = static_cast<double>(roi.y.size) * p.pooled_height + p.pooled_height;
    const double columns = static_cast<double>(roi.x.size) * p.pooled_width + p.pooled_width;
    sum += least(rows, p.height) * least(columns, p.width);
  }
  return sum;
}

template <class T, bool kArgmax>
void forward(const RoiPoolParams& p) {
  using A = Accumulate<T>;
  const A* boxes = static_cast<const A*>(p.boxes);
  const int64_t* stride = p.feature_strides;
  check_batch_indices(boxes, p.rois, p.batch);
  const int64_t outputs = p.rois * p.channels * p.pooled_height * p.pooled_width;
  advise_huge_pages(p.pooled, outputs * sizeof(T));
  if (kArgmax) advise_huge_pages(p.argmax, outputs * sizeof(int32_t));
  const RoiOrder<A> order(boxes, p.rois, p.batch, p.height, p.spatial_scale, [](int64_t) { return true; });
  const T* features = static_cast<const T*>(p.features);

  if (stride[1] == 1 && p.channels >= kLanes<A>) {
    for_each_roi<T>(order, p, [&](const RoiBins<A>& bins, int64_t n, T* pooled, int32_t* argmax) {
      pool_channels<kArgmax>(features + n * stride[0], stride[2], stride[3], bins, p.channels, p.channels, pooled,
                             argmax, p);
    });
  } else if (pixels_covered<A>(p) <= static_cast<double>(p.batch * p.height * p.width)) {
    for_each_roi<T>(order, p, [&](const RoiBins<A>& bins, int64_t n, T* pooled, int32_t* argmax) {
      for (int64_t c = 0; c < p.channels; ++c) {
        const T* plane = features + n * stride[0] + c * stride[1];
        for (int64_t bin = 0; bin < bins.count; ++bin) {
          const int64_t target = c * p.pooled_strides[1] + bin * p.pooled_strides[3];
          int32_t where;
          pooled[target] = from_float<T>(max_of_bin(plane, stride[2], stride[3], bins[bin], p.width, &where));
          if (kArgmax) argmax[target] = where;
        }
      }
    });
  } else {
    const int64_t pixels = p.height * p.width, width = block_width<A>(p.channels);
    const Scratch memory(bytes_of<A>(p.batch, p.height, p.width, width));
    A* packed = memory.as<A>();
    for (int64_t c = 0; c < p.channels; c += width) {
      const int64_t channels = least(p.channels - c, width);
      parallel_for(p.batch * p.height, 8, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          const T* source = features + row / p.height * stride[0] + c * stride[1] + row % p.height * stride[2];
          pack_channels_last(source, stride[1], stride[2], stride[3], 1, p.width, channels,
                             packed + row * p.width * width, width);
        }
      });
      for_each_roi<T>(order, p, [&](const RoiBins<A>& bins, int64_t n, T* pooled, int32_t* argmax) {
        const int64_t offset = c * p.pooled_strides[1];
        pool_channels<kArgmax>(packed + n * pixels * width, p.width * width, width, bins, channels, width,
                               pooled + offset, kArgmax ? argmax + offset : nullptr, p);
      });
    }
  }
}

// One task owns some channels of one image and walks that image's RoIs in order, adding to planes that stay in cache:
// no atomics, and the same bits for every number of threads.
template <class T>
void backward(const RoiPoolParams& p) {
  using A = Accumulate<T>;
  const A* boxes = static_cast<const A*>(p.boxes);
  check_batch_indices(boxes, p.rois, p.batch);
  const int64_t pixels = p.height * p.width, bins = p.pooled_height * p.pooled_width;
  // Enough channels for long reads of gradient and argmax, and few enough for their planes to stay in cache.
  const bool channels_last = p.pooled_strides[1] == 1 || p.feature_strides[1] == 1;
  const int64_t group = channels_last ? 16 : 8;
  const int64_t groups = ceil_div(p.channels, group);
  parallel_for(p.batch * groups, 1, [&](int64_t begin, int64_t end) {
    const Scratch memory(bytes_of<A>(group, p.height, p.width));
    A* planes = memory.as<A>();
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task / groups, c0 = task % groups * group;
      const int64_t channels = least(p.channels - c0, group);
      __builtin_memset(planes, 0, channels * pixels * sizeof(A));
      for (int64_t k = 0; k < p.rois; ++k) {
        if (static_cast<int64_t>(boxes[5 * k]) != n) continue;
        for (int64_t c = 0; c < channels; ++c) {
          const int64_t offset = k * p.pooled_strides[0] + (c0 + c) * p.pooled_strides[1];
          const T* gradient = static_cast<const T*>(p.pooled) + offset;
          const int32_t* argmax = p.argmax + offset;
          A* plane = planes + c * pixels;
          for (int64_t bin = 0; bin < bins; ++bin) {
            const int64_t where = argmax[bin * p.pooled_strides[3]];
            if (where >= 0 && where < pixels) plane[where] += to_float(gradient[bin * p.pooled_strides[3]]);
          }
        }
      }
      T* target = static_cast<T*>(p.features) + n * p.feature_strides[0] + c0 * p.feature_strides[1];
      if (p.feature_strides[1] == 1) {
        for (int64_t pixel = 0; pixel < pixels; ++pixel) {
          T* out = target + pixel * p.feature_strides[3];
          for (int64_t c = 0; c < channels; ++c) out[c] = from_float<T>(planes[c * pixels + pixel]);
        }
      } else {
        for (int64_t c = 0; c < channels; ++c) {
          T* out = target + c * p.feature_strides[1];
          convert_run(planes + c * pixels, pixels, out);
        }
      }
    }
  });
}

}  // namespace

void roi_pool_forward_cpu(const RoiPoolParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    params.argmax == nullptr ? forward<T, false>(params) : forward<T, true>(params);
  });
}

void roi_pool_backward_cpu(const RoiPoolParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { backward<typename decltype(tag)::type>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

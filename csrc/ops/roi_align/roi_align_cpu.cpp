// RoIAlign on the CPU.
//
// The weights of a RoI depend on neither channel nor batch, so they are worked out once per RoI as a flat list of
// (offset, weight) for every bin, with samples that fall on the same pixel merged (a bin of s x s samples touches about
// (s + 1)^2 pixels instead of 4 s^2). The list is then run over blocks of channels that lie next to each other in
// memory. Features that do not are repacked first: the whole map once when the RoIs together cover more than it has,
// else just the window of each RoI.
//
// Napkin maths, 2 x 256 x 50 x 84 with 1000 RoIs of 7 x 7 bins, float32: 8.6 MB are read and packed, 49 bins x 6 taps x
// 256 channels x 1000 = 75 MFMA or 4.7 M vector operations (2 ms at one per cycle), 50 MB are written (5 ms at
// 10 GB/s). So the output's memory traffic is the floor, and its page faults: see advise_huge_pages.
#include "core/errors.h"
#include "core/layout_cpu.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "core/roi_taps_cpu.h"
#include "ops/roi_align/roi_align.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int64_t kPackedMapBytes = int64_t{32} << 20;

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

// Pools `channels` channels of a map of which `width` may be read (so whole vectors, when there is padding) into
// `pooled`, which points at the first of them.
template <class T, class MapT, class A>
void pool_channels(const MapT* map, const FlatTaps<A>& taps, int64_t channels, int64_t width, T* pooled,
                   const RoiAlignParams& p) {
  const bool channels_last = p.pooled_strides[1] == 1;
  const Scratch memory(channels_last ? 0 : taps.bins * kBlockChannels<A> * sizeof(A));
  A* tile = memory.as<A>();
  for (int64_t c0 = 0; c0 < channels; c0 += kBlockChannels<A>) {
    const int64_t count = channels - c0 < kBlockChannels<A> ? channels - c0 : kBlockChannels<A>;
    const int64_t readable = width - c0 < kBlockChannels<A> ? width - c0 : kBlockChannels<A>;
    // Rows of channels go straight to a channels_last result, else to a tile that is then transposed.
    const int64_t whole = (channels_last ? count : readable) / kLanes<A> * kLanes<A>;
    const auto pool_rows = [&](auto* rows, int64_t row_stride) {
      using Out = typename RemovePointer<decltype(rows)>::type;
      for (int64_t bin = 0; bin < taps.bins; ++bin) {
        for_each_run<A>(whole, [&](auto vectors, int64_t c) {
          Vector<A> sum[vectors.value];
          gather_bin(map + c0 + c, taps, bin, sum);
          for (int v = 0; v < vectors.value; ++v) store(rows + bin * row_stride + c + v * kLanes<A>, sum[v]);
        });
        for (int64_t c = whole; c < count; ++c) {
          rows[bin * row_stride + c] = from_float<Out>(gather_bin(map + c0 + c, taps, bin));
        }
      }
    };
    if (channels_last) {
      pool_rows(pooled + c0, p.pooled_strides[3]);
    } else {
      pool_rows(tile, kBlockChannels<A>);
      transpose(tile, kBlockChannels<A>, pooled + c0 * p.pooled_strides[1], p.pooled_strides[1], taps.bins, count);
    }
  }
}

template <class T>
void fill_zero(T* pooled, int64_t channels, const RoiAlignParams& p) {
  const bool channels_last = p.pooled_strides[1] == 1;
  const int64_t bins = p.sampling.bins();
  const int64_t rows = channels_last ? bins : channels, columns = channels_last ? channels : bins;
  const int64_t stride = channels_last ? p.pooled_strides[3] : p.pooled_strides[1];
  for (int64_t i = 0; i < rows; ++i) __builtin_memset(pooled + i * stride, 0, columns * sizeof(T));
}

template <class A>
void check_batch_indices(const A* boxes, const RoiAlignParams& p) {
  for (int64_t k = 0; k < p.rois; ++k) {
    if (roi_batch_is_valid(boxes[5 * k], p.batch)) continue;
    throw_value_error("boxes[%lld] has batch index %g, which is outside [0, %lld), the batch of the input",
                      static_cast<long long>(k), static_cast<double>(boxes[5 * k]), static_cast<long long>(p.batch));
  }
}

// Pixels that the RoIs read, together; an upper bound.
template <class A>
double pixels_covered(const A* boxes, const RoiAlignParams& p) {
  const double height = static_cast<double>(p.height), width = static_cast<double>(p.width);
  double sum = 0;
  for (int64_t k = 0; k < p.rois; ++k) {
    const RoiGeometry<A> roi = roi_geometry(boxes + 5 * k, p.spatial_scale, p.sampling);
    if (roi.empty) continue;
    const double rows = static_cast<double>(roi.y.size) * static_cast<double>(p.sampling.pooled_height) + 2;
    const double columns = static_cast<double>(roi.x.size) * static_cast<double>(p.sampling.pooled_width) + 2;
    const double wide = columns > kLanes<A> ? columns : kLanes<A>;
    sum += (rows < height ? rows : height) * (wide < width ? wide : width);
  }
  return sum;
}

// The RoIs by image and by the row they start in, so that RoIs pooled one after the other read the same rows, which the
// second-level cache then holds.
template <class A>
class RoiOrder {
 public:
  RoiOrder(const A* boxes, const RoiAlignParams& p)
      : memory_((p.batch * (p.height + 1) + 1 + p.rois) * sizeof(int64_t)), order_(memory_.as<int64_t>()) {
    int64_t* first = order_ + p.rois;
    const int64_t keys = p.batch * (p.height + 1);
    for (int64_t key = 0; key <= keys; ++key) first[key] = 0;
    for (int64_t k = 0; k < p.rois; ++k) ++first[key_of(boxes + 5 * k, p) + 1];
    for (int64_t key = 0; key < keys; ++key) first[key + 1] += first[key];
    for (int64_t k = 0; k < p.rois; ++k) order_[first[key_of(boxes + 5 * k, p)]++] = k;
  }
  int64_t operator[](int64_t i) const { return order_[i]; }

 private:
  Scratch memory_;
  int64_t* order_;

  static int64_t key_of(const A* box, const RoiAlignParams& p) {
    const A row = box[2] * static_cast<A>(p.spatial_scale);
    const int64_t key = row > A(0) ? row < static_cast<A>(p.height) ? static_cast<int64_t>(row) : p.height : 0;
    return static_cast<int64_t>(box[0]) * (p.height + 1) + key;
  }
};

// Runs body(y taps, x taps, batch index, pooled) for each RoI, in parallel; RoIs without bins become zeros. `pooled`
// points at channel c0 of the RoI.
template <class T, class Body>
void for_each_roi(const RoiAlignParams& p, int64_t c0, int64_t channels, const Body& body) {
  using A = Accumulate<T>;
  const A* boxes = static_cast<const A*>(p.boxes);
  const RoiOrder<A> order(boxes, p);
  const int64_t share = p.rois / (8 * max_threads());
  parallel_for(p.rois, share > 16 ? 16 : share, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t k = order[i];
      T* pooled = static_cast<T*>(p.pooled) + k * p.pooled_strides[0] + c0 * p.pooled_strides[1];
      const RoiGeometry<A> roi = roi_geometry(boxes + 5 * k, p.spatial_scale, p.sampling);
      if (roi.empty || p.height == 0 || p.width == 0) {
        fill_zero(pooled, channels, p);
        continue;
      }
      const AxisTaps<A> y(roi.y, p.sampling.pooled_height, p.height), x(roi.x, p.sampling.pooled_width, p.width);
      body(y, x, static_cast<int64_t>(boxes[5 * k]), pooled);
    }
  });
}

// Features with neighbouring channels: read where they are.
template <class T>
void forward_in_place(const RoiAlignParams& p) {
  using A = Accumulate<T>;
  for_each_roi<T>(p, 0, p.channels, [&](const AxisTaps<A>& y, const AxisTaps<A>& x, int64_t n, T* pooled) {
    const FlatTaps<A> taps(y, x, p.feature_strides[2], p.feature_strides[3]);
    const T* map = static_cast<const T*>(p.features) + n * p.feature_strides[0];
    pool_channels(map, taps, p.channels, p.channels, pooled, p);
  });
}

// Few RoIs: only the window of each is packed.
template <class T>
void forward_by_window(const RoiAlignParams& p) {
  using A = Accumulate<T>;
  const int64_t* stride = p.feature_strides;
  const int64_t width = block_width<A>(p.channels);
  for_each_roi<T>(p, 0, p.channels, [&](const AxisTaps<A>& y, const AxisTaps<A>& x, int64_t n, T* pooled) {
    const Window window = window_of(y, x, p.width);
    const T* origin = static_cast<const T*>(p.features) + n * stride[0] + window.y * stride[2] + window.x * stride[3];
    const FlatTaps<A> taps(y, x, window.columns * width, width, window.y, window.x);
    const Scratch memory(window.rows * window.columns * width * sizeof(A));
    for (int64_t c = 0; c < p.channels; c += width) {
      const int64_t channels = p.channels - c < width ? p.channels - c : width;
      pack_channels_last(origin + c * stride[1], stride[1], stride[2], stride[3], window.rows, window.columns, channels,
                         memory.as<A>(), width);
      pool_channels(memory.as<A>(), taps, channels, width, pooled + c * p.pooled_strides[1], p);
    }
  });
}

// Many RoIs: the map is packed once, in blocks of channels, as many at a time as kPackedMapBytes holds.
template <class T>
void forward_by_map(const RoiAlignParams& p) {
  using A = Accumulate<T>;
  const int64_t* stride = p.feature_strides;
  const int64_t pixels = p.height * p.width;
  const int64_t width = block_width<A>(p.channels);
  const int64_t blocks = (p.channels + width - 1) / width;
  const int64_t block_elements = p.batch * pixels * width;
  int64_t group = kPackedMapBytes / (block_elements * static_cast<int64_t>(sizeof(A)));
  group = group < 1 ? 1 : group > blocks ? blocks : group;
  const Scratch memory(group * block_elements * sizeof(A));
  A* packed = memory.as<A>();
  for (int64_t block0 = 0; block0 < blocks; block0 += group) {
    const int64_t count = blocks - block0 < group ? blocks - block0 : group;
    const int64_t c0 = block0 * width;
    const int64_t channels = p.channels - c0 < count * width ? p.channels - c0 : count * width;
    parallel_for(count * p.batch, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t block = task / p.batch, n = task % p.batch, c = block * width;
        const T* source = static_cast<const T*>(p.features) + n * stride[0] + (c0 + c) * stride[1];
        pack_channels_last(source, stride[1], stride[2], stride[3], p.height, p.width,
                           channels - c < width ? channels - c : width,
                           packed + block * block_elements + n * pixels * width, width);
      }
    });
    for_each_roi<T>(p, c0, channels, [&](const AxisTaps<A>& y, const AxisTaps<A>& x, int64_t n, T* pooled) {
      const FlatTaps<A> taps(y, x, p.width * width, width);
      for (int64_t block = 0; block < count; ++block) {
        const int64_t c = block * width;
        pool_channels(packed + block * block_elements + n * pixels * width, taps,
                      channels - c < width ? channels - c : width, width, pooled + c * p.pooled_strides[1], p);
      }
    });
  }
}

template <class T>
void forward(const RoiAlignParams& p) {
  using A = Accumulate<T>;
  const A* boxes = static_cast<const A*>(p.boxes);
  check_batch_indices(boxes, p);
  advise_huge_pages(p.pooled, p.rois * p.channels * p.sampling.bins() * sizeof(T));
  if (p.feature_strides[1] == 1 && p.channels >= kLanes<A>) {
    forward_in_place<T>(p);
  } else if (pixels_covered(boxes, p) <= static_cast<double>(p.batch * p.height * p.width)) {
    forward_by_window<T>(p);
  } else {
    forward_by_map<T>(p);
  }
}

// Adds the gradient of one RoI to a slab whose pixels hold `width` channels. Row `bin` of `gradient` has that bin's.
template <class G, class A>
void scatter_roi(A* slab, const FlatTaps<A>& taps, int64_t width, const G* gradient, int64_t row_stride) {
  for (int64_t bin = 0; bin < taps.bins; ++bin) {
    for_each_run<A>(width, [&](auto vectors, int64_t c) {
      Vector<A> sum[vectors.value];
      for (int v = 0; v < vectors.value; ++v) sum[v] = load(gradient + bin * row_stride + c + v * kLanes<A>);
      scatter_bin(slab + c, taps, bin, sum);
    });
  }
}

// One task owns one block of channels of one image and walks that image's RoIs in order, summing into a slab
// [pixel][channel]: no atomics, and the same bits for every number of threads and every width of a block.
template <class T>
void backward(const RoiAlignParams& p) {
  using A = Accumulate<T>;
  const A* boxes = static_cast<const A*>(p.boxes);
  check_batch_indices(boxes, p);
  const int64_t bins = p.sampling.bins(), pixels = p.height * p.width;
  if (p.batch * p.channels * pixels == 0) return;
  advise_huge_pages(p.features, p.batch * p.channels * pixels * sizeof(T));

  int64_t width = block_width<A>(p.channels);
  while (width > kLanes<A> && p.batch * ((p.channels + width - 1) / width) < 4 * max_threads()) {
    width = round_up_to_lanes<A>(width / 2);
  }
  const int64_t blocks = (p.channels + width - 1) / width;
  parallel_for(p.batch * blocks, 1, [&](int64_t begin, int64_t end) {
    const Scratch slab_memory(pixels * width * sizeof(A)), tile_memory(bins * width * sizeof(A));
    A* slab = slab_memory.as<A>();
    A* tile = tile_memory.as<A>();
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task / blocks, c = task % blocks * width;
      const int64_t channels = p.channels - c < width ? p.channels - c : width;
      __builtin_memset(slab, 0, pixels * width * sizeof(A));
      for (int64_t k = 0; k < p.rois; ++k) {
        if (static_cast<int64_t>(boxes[5 * k]) != n) continue;
        const RoiGeometry<A> roi = roi_geometry(boxes + 5 * k, p.spatial_scale, p.sampling);
        if (roi.empty) continue;
        const AxisTaps<A> y(roi.y, p.sampling.pooled_height, p.height), x(roi.x, p.sampling.pooled_width, p.width);
        const FlatTaps<A> taps(y, x, p.width * width, width);
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

}  // namespace

void roi_align_forward_cpu(const RoiAlignParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { forward<typename decltype(tag)::type>(params); });
}

void roi_align_backward_cpu(const RoiAlignParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { backward<typename decltype(tag)::type>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

// Where the samples of a deformable convolution lie, and what they read, on the CPU. Maps have channels innermost, so
// that each of the four corners is a run of channels. CPU translation units only.
#pragma once

#include "core/layout_cpu.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "ops/deform_conv2d/deform_conv2d.h"

namespace fastcv::FASTCV_VARIANT {

// ---- maps with channels innermost -----------------------------------------------------------------------------------

// (N, pixels, C) in the type of the sums: the tensor itself where it is that, else a copy, with kMapPadding readable
// elements behind it.
constexpr int64_t kMapPadding = 16;

template <class T>
class InnermostMap {
  using A = Accumulate<T>;

 public:
  InnermostMap(const void* source, bool channels_last, int64_t batch, int64_t channels, int64_t pixels, bool padded)
      : is_source_(channels_last && sizeof(T) == sizeof(A) && !padded),
        copy_(is_source_ ? 0 : bytes_of<A>(batch, pixels, channels) + sizeof(A) * kMapPadding),
        data_(is_source_ ? static_cast<const A*>(source) : copy_.template as<A>()) {
    if (is_source_) return;
    constexpr int64_t kPixels = 64;
    A* const target = copy_.template as<A>();
    const T* const from = static_cast<const T*>(source);
    for (int64_t i = 0; i < kMapPadding; ++i) target[batch * pixels * channels + i] = A(0);
    const int64_t pieces = ceil_div(pixels, kPixels);
    parallel_for(batch * pieces, 16384 / (kPixels * channels + 1) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / pieces, first = i % pieces * kPixels, count = least(kPixels, pixels - first);
        const int64_t there = (n * pixels + first) * channels;
        if (channels_last) {
          convert_run(from + there, count * channels, target + there);
        } else {
          transpose(from + n * channels * pixels + first, pixels, target + there, channels, channels, count);
        }
      }
    });
  }
  const A* data() const { return data_; }

 private:
  bool is_source_;
  Scratch copy_;
  const A* data_;
};

// ---- places ---------------------------------------------------------------------------------------------------------

// A run of samples: those of one kernel element and offset group at neighbouring output positions.
template <class A>
struct Samples {
  A* weight[4];        // of the corners: above left, above right, below left, below right
  A *below, *right;    // how far below and to the right of the first corner, in pixels, 0 to 1
  A* mask;             //
  int32_t* pixel;      // of the first corner, which may lie outside
  int32_t* corners;    // bit i: corner i lies inside
  A *base_y, *base_x;  // where the first kernel element lies without an offset

  static constexpr int64_t kArrays = 11;
  static size_t bytes(int64_t count) { return bytes_of<A>(kArrays, round_up(count, 16)); }
  Samples(A* memory, int64_t count) {
    const auto next = [&] {
      A* const array = memory;
      memory += round_up(count, 16);
      return array;
    };
    for (A*& w : weight) w = next();
    below = next();
    right = next();
    mask = next();
    base_y = next();
    base_x = next();
    pixel = reinterpret_cast<int32_t*>(next());
    corners = reinterpret_cast<int32_t*>(next());
  }

  // Sets base_y and base_x of the positions from `first` on.
  void start(const DeformGeometry& g, int64_t first, int64_t count) {
    int64_t row = first / g.x.output, column = first % g.x.output;
    for (int64_t i = 0; i < count; ++i) {
      base_y[i] = static_cast<A>(row * g.y.stride - g.y.padding);
      base_x[i] = static_cast<A>(column * g.x.stride - g.x.padding);
      if (++column == g.x.output) column = 0, ++row;
    }
  }
};

// The loop of locate(), without a branch, so that it becomes vectors.
template <bool kGradient, class T, class A>
__attribute__((noinline)) void locate_run(const T* __restrict offset_y, const T* __restrict offset_x, int64_t count,
                                          A tap_y, A tap_x, int32_t height, int32_t width, const Samples<A>& s) {
  const A* __restrict const base_y = s.base_y;
  const A* __restrict const base_x = s.base_x;
  A* __restrict const w0 = s.weight[0];
  A* __restrict const w1 = s.weight[1];
  A* __restrict const w2 = s.weight[2];
  A* __restrict const w3 = s.weight[3];
  A* __restrict const below = s.below;
  A* __restrict const right = s.right;
  int32_t* __restrict const pixel = s.pixel;
  int32_t* __restrict const corners = s.corners;
  const A limit_y = static_cast<A>(height), limit_x = static_cast<A>(width);
  for (int64_t i = 0; i < count; ++i) {
    const A at_y = base_y[i] + tap_y + to_float(offset_y[i]), at_x = base_x[i] + tap_x + to_float(offset_x[i]);
    const bool after_y = kGradient ? at_y >= A(-1) : at_y > A(-1);  // false for a NaN
    const bool after_x = kGradient ? at_x >= A(-1) : at_x > A(-1);
    const bool inside = after_y & (at_y < limit_y) & after_x & (at_x < limit_x);
    const A y = inside ? at_y : A(0), x = inside ? at_x : A(0);
    int32_t row = static_cast<int32_t>(y), column = static_cast<int32_t>(x);
    row -= static_cast<A>(row) > y ? 1 : 0;
    column -= static_cast<A>(column) > x ? 1 : 0;
    const A fy = y - static_cast<A>(row), fx = x - static_cast<A>(column);
    const int32_t above = (row >= 0) & (row < height) ? 3 : 0, under = (row + 1 < height) ? 12 : 0;
    const int32_t left = (column >= 0) & (column < width) ? 5 : 0, beside = (column + 1 < width) ? 10 : 0;
    corners[i] = inside ? (above | under) & (left | beside) : 0;
    pixel[i] = row * width + column;
    w0[i] = (A(1) - fy) * (A(1) - fx);
    w1[i] = (A(1) - fy) * fx;
    w2[i] = fy * (A(1) - fx);
    w3[i] = fy * fx;
    if (kGradient) {
      below[i] = fy;
      right[i] = fx;
    }
  }
}

// Fills all but base_y and base_x for image n, offset group d and kernel element `tap`, at the positions from `first`.
template <bool kGradient, class T>
void locate(const DeformGeometry& g, int64_t n, int64_t d, int64_t tap, int64_t first, int64_t count,
            const Samples<Accumulate<T>>& s) {
  using A = Accumulate<T>;
  const int64_t taps = g.taps(), positions = g.positions();
  const int64_t index = (n * g.offset_groups + d) * taps + tap;
  const T* const offset = static_cast<const T*>(g.offset) + 2 * index * positions + first;
  locate_run<kGradient>(offset, offset + positions, count, static_cast<A>(tap / g.x.kernel * g.y.dilation),
                        static_cast<A>(tap % g.x.kernel * g.x.dilation), static_cast<int32_t>(g.y.input),
                        static_cast<int32_t>(g.x.input), s);
  if (g.mask == nullptr) {
    for (int64_t i = 0; i < count; ++i) s.mask[i] = A(1);
  } else {
    convert_run(static_cast<const T*>(g.mask) + index * positions + first, count, s.mask);
  }
}

// The four corners of a sample in a map whose pixels are `step` apart; `outside` for those that lie outside.
template <class A>
FASTCV_INLINE void find_corners(A* map, int64_t pixel, int32_t corners, int64_t step, int64_t width, A* outside,
                                A* (&corner)[4]) {
  corner[0] = (corners & 1) != 0 ? map + pixel * step : outside;
  corner[1] = (corners & 2) != 0 ? map + (pixel + 1) * step : outside;
  corner[2] = (corners & 4) != 0 ? map + (pixel + width) * step : outside;
  corner[3] = (corners & 8) != 0 ? map + (pixel + width + 1) * step : outside;
}

// Columns: out[i][c] = mask * sample, for `count` samples and `channels` channels of `map`. `zeros` holds as many zeros.
template <class A>
void sample(const A* map, int64_t step, int64_t width, const Samples<A>& s, int64_t count, int64_t channels,
            const A* zeros, A* out, int64_t out_step) {
  for (int64_t i = 0; i < count; ++i, out += out_step) {
    const A mask = s.mask[i];
    if (s.corners[i] == 0) {
      for (int64_t c = 0; c < channels; ++c) out[c] = mask * A(0);  // NaN where the mask is none or infinite
      continue;
    }
    const A* corner[4];
    find_corners(map, s.pixel[i], s.corners[i], step, width, zeros, corner);
    const A w0 = s.weight[0][i], w1 = s.weight[1][i], w2 = s.weight[2][i], w3 = s.weight[3][i];
    for_each_vector<A>(channels, [&](auto at) {
      auto value = at.broadcast(w0) * at.load(corner[0]);
      value = multiply_add(at.broadcast(w1), at.load(corner[1]), value);
      value = multiply_add(at.broadcast(w2), at.load(corner[2]), value);
      value = multiply_add(at.broadcast(w3), at.load(corner[3]), value);
      at.store(out, value * at.broadcast(mask));
    });
  }
}

}  // namespace fastcv::FASTCV_VARIANT

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

// ---- runs of channels -----------------------------------------------------------------------------------------------

#if defined(__AVX512F__)
// The first few lanes from element i on; the others are zeros. As VectorAt of core/simd.h.
template <class A>
struct PartAt {
  using Value = Vector<A>;
  int64_t i;
  uint32_t lanes;  // a bit for each

  FASTCV_INLINE Value load(const A* run) const {
    if constexpr (sizeof(A) == 4) {
      return _mm512_maskz_loadu_ps(static_cast<__mmask16>(lanes), run + i);
    } else {
      return _mm512_maskz_loadu_pd(static_cast<__mmask8>(lanes), run + i);
    }
  }
  FASTCV_INLINE void store(A* run, Value value) const {
    if constexpr (sizeof(A) == 4) {
      _mm512_mask_storeu_ps(run + i, static_cast<__mmask16>(lanes), value);
    } else {
      _mm512_mask_storeu_pd(run + i, static_cast<__mmask8>(lanes), value);
    }
  }
  FASTCV_INLINE static Value broadcast(A value) { return FASTCV_VARIANT::broadcast(value); }
};
#endif

// Calls body(at) for all of [0, count): with whole vectors, then for what is left once, with a part of a vector, where
// the instruction set can; else element by element.
template <class A, class Body>
FASTCV_INLINE void for_each_part(int64_t count, const Body& body) {
#if defined(__AVX512F__)
  int64_t i = 0;
  for (; i + kLanes<A> <= count; i += kLanes<A>) body(VectorAt<A>{i});
  if (i < count) body(PartAt<A>{i, (1u << (count - i)) - 1});
#else
  for_each_vector<A>(count, body);
#endif
}

// ---- places ---------------------------------------------------------------------------------------------------------

// A run of samples: those of one kernel element and offset group at neighbouring output positions.
template <class A>
struct Samples {
  A* weight[4];         // of the corners: above left, above right, below left, below right
  A *below, *right;     // how far below and to the right of the first corner, in pixels, 0 to 1
  A* mask;              //
  Integer<A>* pixel;    // of the first corner, which may lie outside
  Integer<A>* corners;  // bit i: corner i lies inside
  A *base_y, *base_x;   // where the first kernel element lies without an offset

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
    pixel = reinterpret_cast<Integer<A>*>(next());
    corners = reinterpret_cast<Integer<A>*>(next());
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

// Fills one vector of each array, at sample i.
template <bool kGradient, class T, class A>
FASTCV_INLINE void locate_vector(const T* offset_y, const T* offset_x, int64_t i, A tap_y, A tap_x, Integer<A> height,
                                 Integer<A> width, const Samples<A>& s) {
  using V = Vector<A>;
  using I = IntegerVector<A>;
  const V at_y = load(s.base_y + i) + tap_y + load(offset_y), at_x = load(s.base_x + i) + tap_x + load(offset_x);
  const I after = kGradient ? (at_y >= A(-1)) & (at_x >= A(-1)) : (at_y > A(-1)) & (at_x > A(-1));  // not for a NaN
  const I inside = after & (at_y < static_cast<A>(height)) & (at_x < static_cast<A>(width));
  const V y = inside ? at_y : V{}, x = inside ? at_x : V{};
  I row = __builtin_convertvector(y, I), column = __builtin_convertvector(x, I);
  row += __builtin_convertvector(row, V) > y;  // true is -1
  column += __builtin_convertvector(column, V) > x;
  const V fy = y - __builtin_convertvector(row, V), fx = x - __builtin_convertvector(column, V);
  const I vertical = (((row >= 0) & (row < height)) & 3) | ((row + 1 < height) & 12);
  const I horizontal = (((column >= 0) & (column < width)) & 5) | ((column + 1 < width) & 10);
  const I corners = vertical & horizontal & inside, pixel = row * width + column;
  __builtin_memcpy(s.corners + i, &corners, sizeof(I));
  __builtin_memcpy(s.pixel + i, &pixel, sizeof(I));
  store(s.weight[0] + i, (A(1) - fy) * (A(1) - fx));
  store(s.weight[1] + i, (A(1) - fy) * fx);
  store(s.weight[2] + i, fy * (A(1) - fx));
  store(s.weight[3] + i, fy * fx);
  if constexpr (kGradient) {
    store(s.below + i, fy);
    store(s.right + i, fx);
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
  const auto at = [&](const T* offset_y, const T* offset_x, int64_t i) {
    locate_vector<kGradient>(offset_y, offset_x, i, static_cast<A>(tap / g.x.kernel * g.y.dilation),
                             static_cast<A>(tap % g.x.kernel * g.x.dilation), static_cast<Integer<A>>(g.y.input),
                             static_cast<Integer<A>>(g.x.input), s);
  };
  if (count >= kLanes<A>) {
    for (int64_t i = 0; i < count; i += kLanes<A>) {
      const int64_t start = least(i, count - kLanes<A>);  // the last vector ends at the end
      at(offset + start, offset + positions + start, start);
    }
  } else {
    T few[2][kLanes<A>] = {};
    __builtin_memcpy(few[0], offset, count * sizeof(T));
    __builtin_memcpy(few[1], offset + positions, count * sizeof(T));
    at(few[0], few[1], 0);
  }
  if (g.mask == nullptr) {
    for (int64_t i = 0; i < count; ++i) s.mask[i] = A(1);
  } else {
    convert_run(static_cast<const T*>(g.mask) + index * positions + first, count, s.mask);
  }
}

// The four corners of a sample in a map whose pixels are `step` apart; `outside` for those that lie outside.
template <class A>
FASTCV_INLINE void find_corners(A* map, int64_t pixel, int64_t corners, int64_t step, int64_t width, A* outside,
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
    for_each_part<A>(channels, [&](auto at) {
      auto value = at.broadcast(w0) * at.load(corner[0]);
      value = multiply_add(at.broadcast(w1), at.load(corner[1]), value);
      value = multiply_add(at.broadcast(w2), at.load(corner[2]), value);
      value = multiply_add(at.broadcast(w3), at.load(corner[3]), value);
      at.store(out, value * at.broadcast(mask));
    });
  }
}

}  // namespace fastcv::FASTCV_VARIANT

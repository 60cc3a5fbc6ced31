// Bilinear interpolation on the CPU, one axis after the other. See upsample_bilinear2d.h.
//
// Forward: an input row is interpolated along x once, into scratch; an output row is a weighted sum of two of those.
// Backward: the gradient's rows are summed along y, with their weights, into one row of scratch, and that along x.
// What goes along y is the same for both layouts, a sum of long contiguous rows.
//
// Napkin maths, x2 of 8 x 64 x 64 x 64, float32: 8 MB read, 34 MB written; 3 ms at 14 GB/s.
#include "core/memory.h"
#include "core/parallel.h"
#include "core/simd.h"
#include "ops/upsample_bilinear2d/upsample_bilinear2d.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int64_t kPieceElements = 16 << 10;

// Rows that one piece of work makes: each piece begins with scratch rows of its own.
int64_t rows_per_piece(int64_t length) {
  const int64_t rows = kPieceElements / (length > 0 ? length : 1);
  return greatest(rows, 8);
}

// One axis, for all output positions: neighbours, and their weights.
template <class A>
struct Taps {
  Scratch memory;
  int32_t* low;
  int32_t* high;
  A* weight_low;
  A* weight_high;

  Taps(const UpsampleParams& p, int axis, int64_t size, int64_t outputs)
      : memory(bytes_of<A>(2, outputs) + bytes_of<int32_t>(2, outputs)) {
    weight_low = memory.as<A>();
    weight_high = weight_low + outputs;
    low = reinterpret_cast<int32_t*>(weight_high + outputs);
    high = low + outputs;
    for (int64_t o = 0; o < outputs; ++o) {
      const UpsampleTap<A> tap = upsample_tap(static_cast<A>(p.scale[axis]), p.align_corners, o, size);
      low[o] = tap.low;
      high[o] = tap.high;
      weight_low[o] = tap.weight_low;
      weight_high[o] = tap.weight_high;
    }
  }
};

// The transpose: for each input position the output positions that take from it, neighbours all, and their weights.
// Every output has two weights at most, so there is room for two each.
template <class A>
struct Takers {
  Scratch memory;
  int32_t* first;
  int32_t* count;
  A** weights;

  Takers(const Taps<A>& taps, int64_t size, int64_t outputs)
      : memory(bytes_of<A*>(size) + bytes_of<A>(2, outputs) + bytes_of<int32_t>(2, size)) {
    weights = memory.as<A*>();
    A* next = reinterpret_cast<A*>(weights + size);
    first = reinterpret_cast<int32_t*>(next + 2 * outputs);
    count = first + size;
    for (int64_t i = 0; i < size; ++i) count[i] = 0;
    for (int64_t o = 0; o < outputs; ++o) {
      for (int side = 0; side < (taps.high[o] > taps.low[o] ? 2 : 1); ++side) {
        const int32_t i = side == 0 ? taps.low[o] : taps.high[o];
        if (count[i] == 0) first[i] = static_cast<int32_t>(o);
        count[i] = static_cast<int32_t>(o) - first[i] + 1;
      }
    }
    for (int64_t i = 0; i < size; ++i) {
      weights[i] = next;
      for (int32_t k = 0; k < count[i]; ++k) {
        const int32_t o = first[i] + k;
        const UpsampleTap<A> tap{taps.low[o], taps.high[o], taps.weight_low[o], taps.weight_high[o]};
        *next++ = upsample_weight(tap, i);
      }
    }
  }
};

// ---- forward ----

// row (width pixels of run elements) at all output positions of the axis; `plain` has room for the row in A.
template <class T, class A>
void interpolate_row(const T* row, int64_t width, int64_t run, const Taps<A>& taps, int64_t outputs, A* plain, A* out) {
  if (run == 1) {
    const A* source;
    if constexpr (sizeof(T) == sizeof(A)) {
      source = row;
    } else {
      convert_run(row, width, plain);
      source = plain;
    }
    for (int64_t o = 0; o < outputs; ++o) {
      out[o] = taps.weight_low[o] * source[taps.low[o]] + taps.weight_high[o] * source[taps.high[o]];
    }
    return;
  }
  for (int64_t o = 0; o < outputs; ++o) {
    const T *low = row + taps.low[o] * run, *high = row + taps.high[o] * run;
    const A weight_low = taps.weight_low[o], weight_high = taps.weight_high[o];
    A* pixel = out + o * run;
    for_each_vector<A>(run, [&](auto at) { at.store(pixel, weight_low * at.load(low) + weight_high * at.load(high)); });
  }
}

template <class T, class A>
void blend_rows(const A* low, const A* high, A weight_low, A weight_high, int64_t length, T* out) {
  for_each_vector<A>(length, [&](auto at) { at.store(out, weight_low * at.load(low) + weight_high * at.load(high)); });
}

template <class T>
void forward(const UpsampleParams& p) {
  using A = Accumulate<T>;
  const int64_t in_length = row_length(p.shape), out_length = p.output_width * p.shape.run;
  const Taps<A> ys(p, 0, p.shape.height, p.output_height), xs(p, 1, p.shape.width, p.output_width);
  const int64_t rows = rows_per_piece(out_length), pieces = ceil_div(p.output_height, rows);
  const int64_t piece_elements = least(rows, p.output_height) * out_length;
  advise_huge_pages(p.output, p.shape.outer * p.output_height * out_length * sizeof(T));
  parallel_for(p.shape.outer * pieces, 1 + kPieceElements / (piece_elements + 1), [&](int64_t begin, int64_t end) {
    const Scratch scratch(bytes_of<A>(2, p.output_width, p.shape.run) + bytes_of<A>(p.shape.width));
    A* buffers[2] = {scratch.as<A>(), scratch.as<A>() + out_length};
    A* plain = buffers[1] + out_length;
    for (int64_t i = begin; i < end; ++i) {
      const T* image = static_cast<const T*>(p.input) + i / pieces * p.shape.height * in_length;
      T* result = static_cast<T*>(p.output) + i / pieces * p.output_height * out_length;
      const int64_t first = i % pieces * rows;
      const int64_t last = least(first + rows, p.output_height);
      int32_t held[2] = {-1, -1};  // which input row a buffer has: row r is kept in buffer r % 2
      const auto interpolated = [&](int32_t y) {
        A* buffer = buffers[y % 2];
        if (held[y % 2] != y) {
          interpolate_row(image + y * in_length, p.shape.width, p.shape.run, xs, p.output_width, plain, buffer);
        }
        held[y % 2] = y;
        return buffer;
      };
      for (int64_t o = first; o < last; ++o) {
        const A *low = interpolated(ys.low[o]), *high = interpolated(ys.high[o]);
        blend_rows(low, high, ys.weight_low[o], ys.weight_high[o], out_length, result + o * out_length);
      }
    }
  });
}

// ---- backward ----

// sum = the weighted sum of `count` rows.
template <class T, class A>
void sum_rows(const T* rows, int64_t length, const A* weights, int64_t count, A* sum) {
  for_each_vector<A>(length, [&](auto at) {
    typename decltype(at)::Value total{};
    for (int64_t k = 0; k < count; ++k) total += weights[k] * at.load(rows + k * length);
    at.store(sum, total);
  });
}

template <class T, class A>
void sum_pixels(const A* row, const Takers<A>& takers, int64_t width, int64_t run, T* out) {
  for (int64_t x = 0; x < width; ++x) {
    const A *pixels = row + (takers.count[x] > 0 ? takers.first[x] : 0) * run, *weights = takers.weights[x];
    const int64_t count = takers.count[x];
    for_each_vector<A>(run, [&](auto at) {
      typename decltype(at)::Value total{};
      for (int64_t k = 0; k < count; ++k) total += weights[k] * at.load(pixels + k * run);
      at.store(out + x * run, total);
    });
  }
}

template <class T>
void backward(const UpsampleParams& p) {
  using A = Accumulate<T>;
  const int64_t in_length = row_length(p.shape), out_length = p.output_width * p.shape.run;
  const int64_t height = p.shape.height;
  const Taps<A> ys(p, 0, height, p.output_height), xs(p, 1, p.shape.width, p.output_width);
  const Takers<A> y_takers(ys, height, p.output_height), x_takers(xs, p.shape.width, p.output_width);
  const int64_t elements = out_length * (1 + p.output_height / height);
  parallel_for(p.shape.outer * height, 1 + kPieceElements / (elements + 1), [&](int64_t begin, int64_t end) {
    const Scratch scratch(bytes_of<A>(p.output_width, p.shape.run));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t y = i % height, count = y_takers.count[y];
      const T* rows = static_cast<const T*>(p.output) +
                      (i / height * p.output_height + (count > 0 ? y_takers.first[y] : 0)) * out_length;
      sum_rows(rows, out_length, y_takers.weights[y], count, scratch.as<A>());
      sum_pixels(scratch.as<A>(), x_takers, p.shape.width, p.shape.run, static_cast<T*>(p.input) + i * in_length);
    }
  });
}

}  // namespace

void upsample_bilinear2d_forward_cpu(const UpsampleParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { forward<typename decltype(tag)::type>(params); });
}

void upsample_bilinear2d_backward_cpu(const UpsampleParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { backward<typename decltype(tag)::type>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

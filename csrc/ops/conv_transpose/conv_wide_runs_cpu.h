// The Toeplitz products of conv_wide_cpu.h: runs of numbers, tiles of sums, and the tasks that make them.
#pragma once

#include "core/gemm_cpu.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "ops/conv_transpose/conv_geometry.h"

namespace fastcv::FASTCV_VARIANT {

// Elements that are worth a hand-over to another thread.
constexpr int64_t kWideGrain = int64_t{1} << 15;

// One of the three tensors: [image][channel][row][x] or, with channels innermost, [image][row][x][channel].
template <class T>
struct WideTensor {
  T* data;
  int64_t images, channels, rows, width;
  bool channels_last;

  int64_t lines() const { return images * channels * rows; }
  int64_t line(int64_t image, int64_t channel, int64_t row) const { return (image * channels + channel) * rows + row; }
  int64_t step() const { return channels_last ? channels : 1; }
  T* at(int64_t line) const {
    if (!channels_last) return data + line * width;
    const int64_t row = line % rows, channel = line / rows % channels, image = line / rows / channels;
    return data + (image * rows + row) * width * channels + channel;
  }
};

// The lines of a tensor as the products read them: runs of the elements of each class in the type of the sums, `pitch`
// from one to the next, between zeros.
template <class S>
struct WideRuns {
  Scratch memory;
  int64_t classes, pitch, before, all;

  // Element e of class c is at c + classes * e - first of its line; of runs that are reversed it is element
  // length - 1 - e. `before` zeros precede each run, and all of them have `behind` zeros behind.
  template <class T>
  WideRuns(const WideTensor<T>& tensor, int64_t classes_, int64_t first, int64_t length, int64_t before_,
           int64_t behind, bool reversed)
      : memory(bytes_of<S>(tensor.lines(), classes_, length + before_) + bytes_of<S>(behind)),
        classes(classes_),
        pitch(length + before_),
        before(before_),
        all(tensor.lines() * classes_ * (length + before_) + behind) {
    S* const data = memory.template as<S>();
    const int64_t step = tensor.step();
    parallel_for(tensor.lines(), kWideGrain / (classes * pitch), [&](int64_t begin, int64_t end) {
      for (int64_t line = begin; line < end; ++line) {
        const T* source = tensor.at(line);
        for (int64_t c = 0; c < classes; ++c) {
          S* run = data + (line * classes + c) * pitch;
          for (int64_t i = 0; i < pitch; ++i) run[i] = S(0);
          run += before;
          const int64_t from = c >= first ? 0 : ceil_div(first - c, classes), rest = tensor.width + first - c;
          const int64_t to = rest <= 0 ? 0 : least(ceil_div(rest, classes), length);
          for (int64_t e = from; e < to; ++e) {
            run[reversed ? length - 1 - e : e] = to_float(source[(c + classes * e - first) * step]);
          }
        }
      }
    });
    for (int64_t i = all - behind; i < all; ++i) data[i] = S(0);
  }

  const S* at(int64_t line, int64_t index) const {
    return memory.template as<S>() + (line * classes + index) * pitch + before;
  }

  bool is_finite() const {
    const S* data = memory.template as<S>();
    Vector<S> sum{};
    int64_t i = 0;
    for (; i + kLanes<S> <= all; i += kLanes<S>) sum += load(data + i) - load(data + i);
    S bad = 0;
    for (; i < all; ++i) bad += data[i] - data[i];
    for (int lane = 0; lane < kLanes<S>; ++lane) bad += sum[lane];
    return bad == S(0);
  }
};

// The shapes of tiles: vectors, and rows that lie evenly spaced.
struct WideShape {
  int vectors, rows;
};
#if FASTCV_VECTOR_REGISTERS == 32
constexpr WideShape kWideShapes[] = {{1, 4}, {1, 12}, {2, 14}, {3, 8}};
#else
constexpr WideShape kWideShapes[] = {{1, 4}, {1, 8}, {2, 5}};
#endif

// The factors of one sum: where element 0 of each long run is, of which all but [begin, end) is zero, and the last of the
// elements of each short run, which lie in reverse.
template <class S>
struct WideSegments {
  Scratch memory;
  const S** long_runs;
  const S** short_runs;
  int64_t count = 0, begin = 0, end = 0;

  explicit WideSegments(int64_t most) : memory(bytes_of<S*>(2, most)) {
    long_runs = memory.template as<const S*>();
    short_runs = long_runs + most;
  }
  void add(const S* long_run, const S* short_run) {
    long_runs[count] = long_run;
    short_runs[count] = short_run;
    ++count;
  }
};

// Products of runs: out[n] = sum over segments, and u, of long[n + u] * short[u], `length` elements in `short`.
template <class S>
struct WideProduct {
  int64_t length;
  int64_t columns, size;  // of a tile
  int64_t work;           // vectors of products that `count` results take
  int shape;              // of kWideShapes

  // For runs of `count` results: the tile that does it with the least work.
  WideProduct(int64_t count, int64_t length_) : length(length_), columns(0), size(0), work(0), shape(-1) {
    int64_t best = 0;
    int index = 0;
    for (const WideShape& tile : kWideShapes) {
      const int64_t width = tile.vectors * kLanes<S>;
      const int64_t steps = ceil_div(count, width * tile.rows) * (length + width - 1);
      // A step has its products, and loads: a vector for each column, and an element for each row at half the price.
      const int64_t cost = steps * (tile.rows * tile.vectors + tile.vectors + tile.rows / 2);
      if (shape < 0 || cost < best) {
        best = cost;
        shape = index;
        columns = width;
        size = width * tile.rows;
        work = steps * tile.rows * tile.vectors;
      }
      ++index;
    }
  }

  int64_t margin() const { return columns - 1; }    // zeros before each short run
  int64_t slack() const { return size + columns; }  // readable elements behind all runs

  // Adds to `sums` the products of [n, n + size).
  void tile(const WideSegments<S>& segments, int64_t n, S* sums) const {
    const int64_t first = greatest(segments.begin - n - size + 1, int64_t{0});
    const int64_t depth = least(segments.end - n, length + columns - 1) - first;
    if (depth <= 0) return;
    for (int64_t s = 0; s < segments.count; ++s) {
      segments.long_runs[s] += n + first;
      segments.short_runs[s] -= first;
    }
    switch (shape) {
      case 0:
        return multiply<0>(segments, depth, sums);
      case 1:
        return multiply<1>(segments, depth, sums);
#if FASTCV_VECTOR_REGISTERS == 32
      case 2:
        return multiply<2>(segments, depth, sums);
#endif
      default:
        return multiply<sizeof(kWideShapes) / sizeof(WideShape) - 1>(segments, depth, sums);
    }
  }

 private:
  template <int kShape>
  void multiply(const WideSegments<S>& segments, int64_t depth, S* sums) const {
    constexpr WideShape kTile = kWideShapes[kShape];
    gemm_tile<S, kTile.rows, kTile.vectors, GemmA::kSpaced>(segments.long_runs, columns, segments.short_runs, -1,
                                                            segments.count, depth, sums, columns, kTile.rows, columns,
                                                            GemmStart::kTile, nullptr);
  }
};

// Runs tasks, each a tile of a run of results: of every line of `target` and class, `count` results from n = 0 on.
// collect(line, class, &segments) names the factors; result n goes to position(class) + classes * n.
template <class S, class T, class Collect, class Position>
void multiply_wide(const WideProduct<S>& product, const WideTensor<T>& target, int64_t classes, int64_t step,
                   int64_t count, int64_t most_segments, const S* bias, bool relu, const Collect& collect,
                   const Position& position) {
  const int64_t tiles = ceil_div(count, product.size);
  const int64_t work = product.size * (product.length + product.columns + 16) / kLanes<S>;  // of a segment, in vectors
  const int64_t grain = kWideGrain / work / greatest(most_segments, int64_t{1});
  parallel_for(target.lines() * classes * tiles, grain, [&](int64_t first, int64_t last) {
    const Scratch tile_memory(bytes_of<S>(product.size));
    S* const sums = tile_memory.as<S>();
    for (int64_t task = first; task < last; ++task) {
      const int64_t n = task % tiles * product.size, index = task / tiles % classes, line = task / tiles / classes;
      const S start = bias == nullptr ? S(0) : bias[line / target.rows % target.channels];
      for (int64_t i = 0; i < product.size; ++i) sums[i] = start;
      WideSegments<S> segments(most_segments);
      collect(line, index, &segments);
      product.tile(segments, n, sums);
      T* const out = target.at(line);
      const int64_t place = position(index) + n * step, pixel = target.step();
      const int64_t from = place >= 0 ? 0 : ceil_div(-place, step);
      const int64_t fits = least(ceil_div(greatest(target.width - place, int64_t{0}), step), count - n);
      const int64_t to = least(fits, product.size);
      for (int64_t i = from; i < to && relu; ++i) sums[i] = sums[i] < S(0) ? S(0) : sums[i];
      if (step * pixel == 1) {
        if (from < to) convert_run(sums + from, to - from, out + place + from);
        continue;
      }
      for (int64_t i = from; i < to; ++i) out[(place + i * step) * pixel] = from_float<T>(sums[i]);
    }
  });
}

}  // namespace fastcv::FASTCV_VARIANT

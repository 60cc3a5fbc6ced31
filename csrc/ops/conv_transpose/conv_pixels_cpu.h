// The forward on the CPU where the taps do not overlap (kernel = stride, no padding) and planes are contiguous: the
// in-network upsampling of Mask R-CNN and U-Net. Each input pixel then makes a rectangle of output pixels of its own,
// and the whole convolution is one matrix product, [output channel, tap] x [input channel] by [input channel] x
// [pixel], whose right factor lies in memory as it is needed: pixels side by side. Nothing is transposed. Work is split
// into panels of a few vectors of pixels, counted through all images, and panels of output channels; the pixels of a
// task are copied once to a panel that fits the first-level cache, results collect in a tile, and what neighbouring
// taps of a row have made is interleaved on its way to the output, all of whose lines a task writes are written once.
//
// Cost, in float32 on AVX-512: K / 32 cycles per result for K input channels; of 8 x 48 results at K = 256, 3072 cycles
// of arithmetic, 24 vectors are put to the tile, interleaved and stored: about 5 %.
#pragma once

#include "core/gemm_cpu.h"
#include "core/interleave_cpu.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "ops/conv_transpose/conv_transpose.h"

namespace fastcv::FASTCV_VARIANT {

// Everything that one call needs. E is the type of the factors, that of the sums or pairs of bfloat16; T is the type of
// input and output.
template <class E, class T>
struct PixelProblem {
  using S = Accumulate<E>;
  ConvAxis axes[3];
  int64_t batch, groups;
  int64_t channels, columns;  // of one group: input, output
  int64_t depth;              // `channels`, or how many pairs they make
  const T* source;            // [n][groups * channels][z][y][x]
  const E* packed;            // per group: pack_panels of a [taps * depth][columns] matrix
  const S* bias;              // [groups * columns] or null
  bool relu;
  T* target;  // [n][groups * columns][z][y][x]
};

// Whether every output pixel comes from just one input pixel.
inline bool taps_lie_apart(const ConvAxis (&axes)[3]) {
  for (const ConvAxis& axis : axes) {
    if (axis.kernel != axis.stride || axis.padding != 0 || axis.output != axis.input * axis.stride) return false;
    if (axis.dilation != 1 && axis.kernel != 1) return false;
  }
  return true;
}

// target[2 * i], target[2 * i + 1] = even[i], odd[i]. Reads whole vectors.
template <class S, class T>
inline void store_pairs(const S* even, const S* odd, T* target, int64_t count) {
  constexpr int64_t kWidth = kLanes<S>;
  if (2 * count < kWidth) {
    for (int64_t i = 0; i < count; ++i) {
      target[2 * i] = from_float<T>(even[i]);
      target[2 * i + 1] = from_float<T>(odd[i]);
    }
    return;
  }
  for (int64_t i = 0; i < 2 * count; i += kWidth) {
    const int64_t at = least(i, 2 * count - kWidth);
    Vector<S> low, high;
    interleave<S>(load(even + at / 2), load(odd + at / 2), &low, &high);
    store(target + at, low);
  }
}

template <class E, class T>
struct PixelProduct {
  using S = Accumulate<E>;
  static constexpr int64_t kPixels = kPanelPixels<S>;
  static constexpr int64_t kDepth = 256;  // products between two visits of a tile: 48 KB of pixels

  const PixelProblem<E, T>& p;
  int64_t taps, in_pixels, out_pixels;
  int64_t pixel_panels, column_panels;

  explicit PixelProduct(const PixelProblem<E, T>& problem) : p(problem) {
    const ConvAxis &z = p.axes[0], &y = p.axes[1], &x = p.axes[2];
    taps = z.kernel * y.kernel * x.kernel;
    in_pixels = z.input * y.input * x.input;
    out_pixels = in_pixels * taps;
    pixel_panels = ceil_div(p.batch * in_pixels, kPixels);
    column_panels = ceil_div(p.columns, kPanelColumns<S>);
  }

  // Neighbouring pixels of one row of the input.
  struct Run {
    int64_t first, count;  // in the panel
    int64_t target;        // where their first output pixel is in the planes of channel 0
  };

  void task(int64_t index) const {
    const int64_t first_pixel = index % pixel_panels * kPixels;
    index /= pixel_panels;
    const int64_t first_column = index % column_panels * kPanelColumns<S>, group = index / column_panels;
    const int64_t left = p.batch * in_pixels - first_pixel;
    const int64_t pixels = least(left, kPixels);
    const int64_t vectors = round_up(pixels, kLanes<S>);

    const Scratch panel_memory(bytes_of<E>(p.depth, kPixels));
    E* panel = panel_memory.as<E>();  // [depth][kPixels]
    pack_pixels(group, first_pixel, pixels, vectors, panel);
    Run runs[kPixels];
    const int64_t run_count = find_runs(first_pixel, pixels, runs);

    const int64_t kernel_x = p.axes[2].kernel, width = panel_width<S>(first_column, p.columns);
    const Scratch tile_memory(bytes_of<S>(kernel_x, kPanelColumns<S>, kPixels) + bytes_of<S>(kLanes<S>));
    S* tile = tile_memory.as<S>();  // [kernel_x][column][kPixels]
    const E* weight = p.packed + group * packed_size<E>(taps * p.depth, p.columns) + first_column * taps * p.depth;
    for (int64_t tap = 0; tap < taps; tap += kernel_x) {
      multiply(weight + tap * p.depth * width, panel, group, first_column, vectors, tile);
      write(group, first_column, tap, runs, run_count, tile);
    }
  }

  void pack_pixels(int64_t group, int64_t first, int64_t pixels, int64_t vectors, E* panel) const {
    int64_t done = 0;
    while (done < pixels) {
      const int64_t image = (first + done) / in_pixels, place = (first + done) % in_pixels;
      const int64_t rest = in_pixels - place, count = least(rest, pixels - done);
      const T* source = p.source + (image * p.groups + group) * p.channels * in_pixels + place;
      for (int64_t k = 0; k < p.depth; ++k) {
        E* line = panel + k * kPixels + done;
        if constexpr (kIsPair<E>) {
          const T* even = source + 2 * k * in_pixels;
          pair_rows(even, 2 * k + 1 < p.channels ? even + in_pixels : nullptr, count, line);
        } else {
          convert_run(source + k * in_pixels, count, line);
        }
      }
      done += count;
    }
    for (int64_t k = 0; k < p.depth && pixels < vectors; ++k) {
      for (int64_t i = pixels; i < vectors; ++i) panel[k * kPixels + i] = E{};
    }
  }

  int64_t find_runs(int64_t first, int64_t pixels, Run* runs) const {
    const ConvAxis &z = p.axes[0], &y = p.axes[1], &x = p.axes[2];
    int64_t run_count = 0, done = 0;
    while (done < pixels) {
      const int64_t pixel = first + done, i_x = pixel % x.input, row = pixel / x.input;
      const int64_t i_y = row % y.input, i_z = row / y.input % z.input, image = row / y.input / z.input;
      const int64_t rest = x.input - i_x, count = least(rest, pixels - done);
      const int64_t in_plane = (i_z * z.kernel * y.output + i_y * y.kernel) * x.output + i_x * x.kernel;
      runs[run_count++] = {done, count, image * p.groups * p.columns * out_pixels + in_plane};
      done += count;
    }
    return run_count;
  }

  // All taps of one row of the kernel.
  void multiply(const E* weight, const E* panel, int64_t group, int64_t first_column, int64_t pixels, S* tile) const {
    const int64_t width = panel_width<S>(first_column, p.columns), kernel_x = p.axes[2].kernel;
    const int64_t left = p.columns - first_column, columns = least(left, width);
    if (p.bias != nullptr || p.depth == 0) {
      for (int64_t i = 0; i < kernel_x * columns; ++i) {
        const int64_t tap = i / columns, column = i % columns;
        const S start = p.bias == nullptr ? S(0) : p.bias[group * p.columns + first_column + column];
        S* line = tile + (tap * kPanelColumns<S> + column) * kPixels;
        for (int64_t j = 0; j < pixels; j += kLanes<S>) store(line + j, broadcast(start));
      }
    }
    for (int64_t k = 0; k < p.depth; k += kDepth) {
      const int64_t depth = least(p.depth - k, kDepth);
      const GemmStart from = k == 0 && p.bias == nullptr ? GemmStart::kZero : GemmStart::kTile;
      for (int64_t tap = 0; tap < kernel_x; ++tap) {
        for (int64_t column = 0; column < columns; column += kPixelRows) {
          const E* a = weight + (tap * p.depth + k) * width + column;
          const E* b = panel + k * kPixels;
          gemm_pixels<E>(&a, width, &b, kPixels, 1, depth, tile + (tap * kPanelColumns<S> + column) * kPixels, kPixels,
                         columns - column, pixels, from);
        }
      }
    }
    if (!p.relu) return;
    for (int64_t i = 0; i < kernel_x * columns; ++i) {
      S* line = tile + (i / columns * kPanelColumns<S> + i % columns) * kPixels;
      for (int64_t j = 0; j < pixels; ++j) line[j] = line[j] < S(0) ? S(0) : line[j];
    }
  }

  void write(int64_t group, int64_t first_column, int64_t tap, const Run* runs, int64_t run_count,
             const S* tile) const {
    const int64_t kernel_y = p.axes[1].kernel, kernel_x = p.axes[2].kernel;
    const int64_t left = p.columns - first_column, columns = least(left, kPanelColumns<S>);
    const int64_t tap_y = tap / kernel_x % kernel_y, tap_z = tap / kernel_x / kernel_y;
    const int64_t shift = (tap_z * p.axes[1].output + tap_y) * p.axes[2].output;
    constexpr int64_t kNextTap = kPanelColumns<S> * kPixels;
    for (int64_t column = 0; column < columns; ++column) {
      T* plane = p.target + (group * p.columns + first_column + column) * out_pixels + shift;
      const S* line = tile + column * kPixels;
      for (int64_t r = 0; r < run_count; ++r) {
        T* target = plane + runs[r].target;
        const S* source = line + runs[r].first;
        if (kernel_x == 1) {
          convert_run(source, runs[r].count, target);
        } else if (kernel_x == 2) {
          store_pairs(source, source + kNextTap, target, runs[r].count);
        } else {
          for (int64_t x = 0; x < kernel_x; ++x) {
            for (int64_t i = 0; i < runs[r].count; ++i) {
              target[i * kernel_x + x] = from_float<T>(source[x * kNextTap + i]);
            }
          }
        }
      }
    }
  }
};

template <class E, class T>
void multiply_pixels(const PixelProblem<E, T>& problem) {
  using S = Accumulate<E>;
  const PixelProduct<E, T> product(problem);
  advise_huge_pages(problem.target, problem.batch * problem.groups * problem.columns * product.out_pixels * sizeof(T));
  const int64_t work = (problem.depth + 16) * product.taps * kPanelColumns<S> * kPanelPixels<S>;
  constexpr int64_t kWork = int64_t{1} << 20;  // products that are worth a hand-over
  parallel_for(problem.groups * product.column_panels * product.pixel_panels, kWork / work,
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i) product.task(i);
               });
}

}  // namespace fastcv::FASTCV_VARIANT

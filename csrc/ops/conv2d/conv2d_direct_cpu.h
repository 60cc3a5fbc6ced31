// Convolution as products of matrices whose rows are pixels of the output: row by pointer, so that no matrix of
// patches is ever made (implicit GEMM). CPU translation units only.
//
// The columns of the weight are packed in panels. A segment of the sum is what lies side by side in the input: the
// channels of one tap; where taps of a row of the kernel are neighbours (dilation 1, one group), all of them together,
// so that a first layer of 3 channels has segments of 21. Rows that reach over the border in x are copied, with zeros;
// those outside in y are a row of zeros.
//
// Napkin maths, 3 x 3, 256 to 256 channels at 100 x 136, float32: 16.0 GFLOP; 14 MB in, 14 MB out, 2.4 MB of weights.
// 115 GFLOP/s (one 512-bit FMA per cycle at 3.6 GHz) give 139 ms, memory 3 ms: bound by arithmetic, as everything is
// but 1 x 1 layers of few channels. A block of kBlockRows pixels reads each chunk of a panel (at most kChunkBytes, so
// that it stays in the second-level cache) once from the third level: 64 columns are 256 bytes per step of the depth for
// 4 kBlockRows cycles, 1.3 bytes per cycle; each tile of 6 rows reads it again from the second level, 10.7 bytes per
// cycle.
//
// Pairs of bfloat16 take half of those cycles and bytes; their sums, a block of pixels by a panel, are rounded once.
#pragma once

#include "ops/conv2d/conv2d_problem_cpu.h"

namespace fastcv::FASTCV_VARIANT {

// Pixels of a block; multiples of the rows of all tiles but those of AVX2. Weights that outweigh a core's share of the
// third level come from memory once per block, so blocks are larger then: 1000 boxes of 12 544 features by 1024 columns
// would read 51 MB for each of 21 blocks.
constexpr int64_t kBlockRows = 48, kDeepBlockRows = 144, kDeepBytes = 4 << 20;
constexpr int64_t kChunkBytes = 160 << 10;
constexpr int64_t kMostDepth = 512;  // of a segment

template <class E, class T>
int64_t block_rows(const Conv2dProblem<E, T>& p) {
  const int64_t depth = p.axes[0].kernel * p.axes[1].kernel * p.channels;
  return depth * p.columns * int64_t{sizeof(E)} >= kDeepBytes ? kDeepBlockRows : kBlockRows;
}

// Products that lie side by side in the input and in the packed weight.
struct ConvSegment {
  int64_t y, x;     // of the first tap
  int64_t channel;  // its first one
  int64_t depth;
  int64_t first;  // row of the packed weight
};

// The segments of a convolution, and how much of a row of pixels each reads.
template <class E>
class ConvSegments {
 public:
  template <class T>
  explicit ConvSegments(const Conv2dProblem<E, T>& p)
      : taps_(taps_together(p)),
        pieces_(greatest(ceil_div(taps_ * p.channels, kMostDepth), int64_t{1})),
        count_(p.axes[0].kernel * (p.axes[1].kernel / taps_) * pieces_),
        memory_(bytes_of<ConvSegment>(count_)) {
    int64_t i = 0;
    for (int64_t y = 0; y < p.axes[0].kernel; ++y) {
      for (int64_t x = 0; x < p.axes[1].kernel; x += taps_) {
        for (int64_t piece = 0; piece < pieces_; ++piece) {
          const int64_t channel = piece * kMostDepth, all = taps_ * p.channels;
          const int64_t first = (y * p.axes[1].kernel + x) * p.channels + channel;
          segments()[i++] = {y, x, channel, least(all - channel, kMostDepth), first};
        }
      }
    }
  }

  int64_t count() const { return count_; }
  int64_t taps() const { return taps_; }
  ConvSegment* segments() const { return memory_.template as<ConvSegment>(); }

 private:
  template <class T>
  static int64_t taps_together(const Conv2dProblem<E, T>& p) {
    const Conv2dAxis& x = p.axes[1];
    return x.dilation == 1 && p.groups == 1 && x.kernel * p.channels <= kMostDepth ? x.kernel : 1;
  }
  int64_t taps_, pieces_, count_;
  Scratch memory_;
};

// The rows of a block of output pixels: for each segment where each row begins.
template <class E, class T>
class ConvRows {
 public:
  ConvRows(const Conv2dProblem<E, T>& p, const ConvSegments<E>& segments)
      : p_(p),
        segments_(segments),
        rows_(block_rows(p)),
        width_(segments.taps() * p.channels),
        copies_(segments.taps() > 1 ? segments.count() * rows_ : 0),
        memory_(bytes_of<E>(width_, copies_ + 1)),
        pointers_(bytes_of<const E*>(segments.count(), step())) {
    for (int64_t i = 0; i < width_; ++i) zeros()[i] = E{};
  }

  int64_t step() const { return rows_ + kRowsPadding; }  // pointers per segment
  const E* const* pointers() const { return pointers_.template as<const E*>(); }

  void place(int64_t group, int64_t first_pixel, int64_t count) {
    const E** pointers = pointers_.template as<const E*>();
    const Conv2dAxis &ys = p_.axes[0], &xs = p_.axes[1];
    const int64_t pixel = p_.groups * p_.channels, row = xs.input * pixel;
    int64_t x = first_pixel % xs.output, y = first_pixel / xs.output % ys.output;
    int64_t n = first_pixel / xs.output / ys.output;
    for (int64_t i = 0; i < count; ++i) {
      const E* image = p_.source + n * ys.input * row + group * p_.channels;
      for (int64_t s = 0; s < segments_.count(); ++s) {
        const ConvSegment& segment = segments_.segments()[s];
        const int64_t from_y = y * ys.stride - ys.padding + segment.y * ys.dilation;
        const int64_t from_x = x * xs.stride - xs.padding + segment.x * xs.dilation;
        const E* at = zeros();
        if (from_y >= 0 && from_y < ys.input) {
          const E* line = image + from_y * row;
          if (from_x >= 0 && from_x + segments_.taps() <= xs.input) {
            at = line + from_x * pixel + segment.channel;
          } else if (segments_.taps() > 1) {
            at = copy(line, from_x, s * rows_ + i);
          }
        }
        pointers[s * step() + i] = at;
      }
      if (++x == xs.output) x = 0, ++y;
      if (y == ys.output) y = 0, ++n;
    }
    for (int64_t s = 0; s < segments_.count(); ++s) {
      for (int64_t i = count; i < count + kRowsPadding; ++i) pointers[s * step() + i] = zeros();
    }
  }

 private:
  E* zeros() const { return memory_.template as<E>(); }

  // The taps of a row of the kernel from x on, zero where they lie outside.
  const E* copy(const E* line, int64_t x, int64_t place) {
    E* target = zeros() + (1 + place) * width_;
    for (int64_t tap = 0; tap < segments_.taps(); ++tap) {
      const bool inside = x + tap >= 0 && x + tap < p_.axes[1].input;
      for (int64_t c = 0; c < p_.channels; ++c) {
        target[tap * p_.channels + c] = inside ? line[(x + tap) * p_.channels + c] : E{};
      }
    }
    return target;
  }

  const Conv2dProblem<E, T>& p_;
  const ConvSegments<E>& segments_;
  int64_t rows_, width_, copies_;
  Scratch memory_, pointers_;
};

// Bias is in the sums of a block already; the rest, and from `sums` to the target. `place` is that of its first one.
template <class E, class T>
void finish_block(const Conv2dProblem<E, T>& p, const Accumulate<E>* sums, int64_t width, int64_t place,
                  int64_t first_pixel, int64_t count, int64_t columns) {
  const int64_t step = p.groups * p.columns;
  if (!is_enlarged(p)) {
    return finish_rows(sums, width, p.residual == nullptr ? nullptr : p.residual + place, p.target + place, step, count,
                       columns, p.epilogue);
  }
  const int64_t height = p.axes[0].output, line = p.axes[1].output;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t pixel = first_pixel + i, x = pixel % line, y = pixel / line % height, n = pixel / line / height;
    const int64_t from = (n * p.residual_size[0] + nearest(y, height, p.residual_size[0])) * p.residual_size[1] +
                         nearest(x, line, p.residual_size[1]);
    finish_rows(sums + i * width, width, p.residual + place + (from - first_pixel) * step, p.target + place + i * step,
                step, 1, columns, p.epilogue);
  }
}

// One panel of columns for a block of pixels, a chunk of segments at a time. `sums` is memory for a block of those: they
// stay in the first-level cache until they are finished, so target is written once, and may be what is added.
template <int kVectors, class E, class T>
void convolve_panel(const Conv2dProblem<E, T>& p, const ConvSegments<E>& all, const E* const* rows, int64_t group,
                    int64_t first_pixel, int64_t count, int64_t first, Accumulate<E>* sums) {
  constexpr int64_t kWidth = kVectors * kLanes<E>, kMostSegments = 64;
  const int64_t depth = p.axes[0].kernel * p.axes[1].kernel * p.channels, step = p.groups * p.columns;
  const E* panel = p.packed + group * packed_size<E>(depth, p.columns) + first * depth;
  const int64_t place = first_pixel * step + group * p.columns + first;
  GemmRows<E> g{};
  g.a_stride = block_rows(p) + kRowsPadding;
  g.c = sums;
  g.c_stride = kWidth;
  if constexpr (!kIsPair<E>) {
    if (p.residual == nullptr) {
      g.c = p.target + place;
      g.c_stride = step;
    }
  }
  g.rows = count;
  g.columns = least(p.columns - first, kWidth);
  g.bias = p.bias == nullptr ? nullptr : p.bias + group * p.columns + first;
  for (int64_t s = 0; s < all.count(); s += g.segments) {
    const ConvSegment* segments = all.segments() + s;
    const E* b[kMostSegments];
    const int64_t most = least(least(all.count() - s, kMostSegments),
                               greatest(kChunkBytes / (segments->depth * kWidth * int64_t{sizeof(E)}), int64_t{1}));
    g.segments = 0;
    g.depth = segments->depth;
    while (g.segments < most && segments[g.segments].depth == g.depth) {
      b[g.segments] = panel + segments[g.segments].first * kWidth;
      ++g.segments;
    }
    g.a = rows + s * g.a_stride;
    g.accumulate = s > 0;
    gemm_rows_panel<E, kVectors>(g, b, 0);
  }
  finish_block(p, g.c, g.c_stride, place, first_pixel, count, g.columns);
}

template <class E, class T>
void convolve_directly(const Conv2dProblem<E, T>& p) {
  using S = Accumulate<E>;
  const ConvSegments<E> segments(p);
  const int64_t pixels = p.batch * p.axes[0].output * p.axes[1].output;
  const int64_t most = block_rows(p), blocks = ceil_div(pixels, most);
  const int64_t panels = ceil_div(p.columns, kPanelColumns<E>);
  // Few blocks are also cut into panels, so that all threads have work; which changes no sum.
  constexpr int64_t kWantedPieces = 32;
  const int64_t cuts = least(panels, ceil_div(kWantedPieces, greatest(blocks, int64_t{1})));
  const int64_t panels_per_cut = ceil_div(panels, cuts);
  parallel_for(cuts * p.groups * blocks, 1, [&](int64_t begin, int64_t end) {
    ConvRows<E, T> rows(p, segments);
    const Scratch sums(bytes_of<S>(most, kPanelColumns<E>));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t block = i % blocks, group = i / blocks % p.groups, cut = i / blocks / p.groups;
      const int64_t first_pixel = block * most, count = least(pixels - first_pixel, most);
      rows.place(group, first_pixel, count);
      const int64_t end_panel = least(panels, (cut + 1) * panels_per_cut);
      for (int64_t panel = cut * panels_per_cut; panel < end_panel; ++panel) {
        const int64_t first = panel * kPanelColumns<E>;
        dispatch_panel<E>(first, p.columns, [&](auto vectors) {
          convolve_panel<decltype(vectors)::value>(p, segments, rows.pointers(), group, first_pixel, count, first,
                                                   sums.template as<S>());
        });
      }
    }
  });
}

}  // namespace fastcv::FASTCV_VARIANT

// The gradients of a deformable convolution on the CPU. CPU translation units only.
//
// Input, offset and mask: one task is an image and a block of channels of one offset group, whose part of the gradient
// to the input it owns. For a block of output positions and a kernel element it multiplies the gradient of the output
// with the weight, which gives the gradients of the columns of its channels, a block that stays in the first-level
// cache; each is spread over the four corners of its sample, and multiplied with them for the offset and the mask. What
// the blocks of an offset group give to these is summed in order.
//
// Weight: one task is a kernel element and a block of channels of one group. It takes the samples of all positions
// anew, a chunk at a time, and multiplies them with the gradient of the output, as the weight gradient of a transposed
// convolution does.
//
// Nothing is shared between tasks, and every sum is taken in the order of positions, kernel elements and channels. The
// products are those of the forward twice; the rest is about 60 instructions for each vector of 16 channels of a sample.
#pragma once

#include "core/gemm_cpu.h"
#include "ops/deform_conv2d/deform_sample_cpu.h"

namespace fastcv::FASTCV_VARIANT {

// The sum of the lanes, in one order for each instruction set.
template <class A>
FASTCV_INLINE A sum_lanes(Vector<A> value) {
#if defined(__AVX512F__)
  if constexpr (sizeof(A) == 4) {
    return _mm512_reduce_add_ps(value);
  } else {
    return _mm512_reduce_add_pd(value);
  }
#else
  A sum = 0;
  for (int i = 0; i < kLanes<A>; ++i) sum += value[i];
  return sum;
#endif
}

// A sum of products, of vectors and of single elements.
template <class A>
struct Sum {
  Vector<A> lanes{};
  A rest = 0;

  FASTCV_INLINE void add(Vector<A> a, Vector<A> b) { lanes = multiply_add(a, b, lanes); }
  FASTCV_INLINE void add(A a, A b) { rest = multiply_add(a, b, rest); }
  FASTCV_INLINE A total() const { return sum_lanes<A>(lanes) + rest; }
};

// What one sample gets from its block of channels: gradients to the mask, and along y and x to its place.
template <class A>
struct PlaceGradient {
  A mask, y, x;
};

// Adds what one sample gives to its corners of grad_input, and returns what it gets. `column` is the gradient of its
// column.
template <class A>
FASTCV_INLINE PlaceGradient<A> spread(const A* column, const A* const (&from)[4], A* const (&to)[4],
                                      const Samples<A>& s, int64_t i, int64_t channels) {
  const A mask = s.mask[i], fy = s.below[i], fx = s.right[i], gy = A(1) - fy, gx = A(1) - fx;
  const A weight[4] = {s.weight[0][i], s.weight[1][i], s.weight[2][i], s.weight[3][i]};
  Sum<A> of_mask, of_y, of_x;
  for_each_part<A>(channels, [&](auto at) {
    const auto gradient = at.load(column), masked = gradient * at.broadcast(mask);
    const auto a = at.load(from[0]), b = at.load(from[1]), c = at.load(from[2]), d = at.load(from[3]);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) at.store(to[j], multiply_add(at.broadcast(weight[j]), masked, at.load(to[j])));
    const auto above = multiply_add(at.broadcast(fx), b, at.broadcast(gx) * a);
    const auto under = multiply_add(at.broadcast(fx), d, at.broadcast(gx) * c);
    const auto value = multiply_add(at.broadcast(fy), under, at.broadcast(gy) * above);
    const auto across = multiply_add(at.broadcast(fy), d - c, at.broadcast(gy) * (b - a));
    of_mask.add(gradient, value);
    of_y.add(masked, under - above);
    of_x.add(masked, across);
  });
  return {of_mask.total(), of_y.total(), of_x.total()};
}

template <class T>
class Backward {
  using A = Accumulate<T>;
  static constexpr int64_t kBlockChannels = 32, kRows = 112, kChunk = 128;

 public:
  explicit Backward(const DeformConv2dBackwardParams& p)
      : p_(p),
        g_(p.geometry),
        taps_(g_.taps()),
        positions_(g_.positions()),
        in_channels_(g_.in_channels / g_.groups),
        out_channels_(g_.out_channels / g_.groups) {}

  void run() const {
    const InnermostMap<T> map(g_.input, g_.input_channels_last, g_.batch, g_.in_channels, g_.pixels(), false);
    const InnermostMap<T> gradient(p_.grad_output, g_.output_channels_last, g_.batch, g_.out_channels, positions_,
                                   true);
    if (p_.grad_input != nullptr || p_.grad_offset != nullptr || p_.grad_mask != nullptr) {
      spread_all(map.data(), gradient.data());
    }
    if (p_.grad_weight != nullptr) multiply_all(map.data(), gradient.data());
  }

 private:
  // ---- input, offset and mask ----

  // A block of channels, all of one offset group d.
  struct Block {
    int64_t d, begin, width;
  };
  int64_t blocks_per_group() const { return ceil_div(g_.in_channels / g_.offset_groups, kBlockChannels); }
  Block block(int64_t index) const {
    const int64_t channels = g_.in_channels / g_.offset_groups, blocks = blocks_per_group();
    const int64_t width = round_up(ceil_div(channels, blocks), kLanes<A>);
    const int64_t d = index / blocks, begin = least(index % blocks * width, channels);
    return {d, d * channels + begin, least(width, channels - begin)};
  }
  // Calls body(group, begin, end) for the channels of a block that are in one weight group.
  template <class Body>
  void for_each_group(const Block& block, const Body& body) const {
    const int64_t end = block.begin + block.width;
    for (int64_t c = block.begin; c < end;) {
      const int64_t group = c / in_channels_, stop = least(end, (group + 1) * in_channels_);
      body(group, c, stop);
      c = stop;
    }
  }

  void spread_all(const A* map, const A* gradient) const {
    const int64_t per_group = blocks_per_group(), blocks = per_group * g_.offset_groups;
    // [block][kernel element]: the weight from output channels to the channels of the block, part by part
    const int64_t parts = g_.groups == 1 ? 1 : least(kBlockChannels, kBlockChannels / in_channels_ + 2);
    const int64_t packed_step = out_channels_ * (kBlockChannels + parts * kLanes<A>);
    const Scratch packed(bytes_of<A>(blocks, taps_, packed_step));
    parallel_for(blocks * taps_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) pack(block(i / taps_), i % taps_, packed.as<A>() + i * packed_step);
    });
    // [block of the offset group][image, offset group, kernel element][mask, y, x][position], a few images at a time
    constexpr int64_t kTasks = 64;
    const int64_t images = least(g_.batch, ceil_div(kTasks, blocks)), places = images * g_.offset_groups * taps_;
    const Scratch partial(bytes_of<A>(per_group, places, 3, positions_));
    for (int64_t first = 0; first < g_.batch; first += images) {
      const int64_t count = least(images, g_.batch - first), before = first * g_.offset_groups * taps_;
      parallel_for(count * blocks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t n = i / blocks, index = i % blocks;
          const Block chosen = block(index);
          const int64_t row = (index % per_group * images + n) * g_.offset_groups + chosen.d;
          spread_block(first + n, chosen, packed.as<A>() + index * taps_ * packed_step, packed_step, map, gradient,
                       partial.as<A>() + row * taps_ * 3 * positions_);
        }
      });
      parallel_for(count * g_.offset_groups * taps_, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) sum_places(i, before, per_group, places, partial.as<A>());
      });
    }
  }

  void pack(const Block& block, int64_t tap, A* packed) const {
    for_each_group(block, [&](int64_t group, int64_t begin, int64_t end) {
      const T* const weight = static_cast<const T*>(p_.weight) + group * out_channels_ * in_channels_ * taps_;
      pack_panels(weight + (begin - group * in_channels_) * taps_ + tap, in_channels_ * taps_, taps_, out_channels_,
                  end - begin, packed);
      packed += packed_size<A>(out_channels_, end - begin);
    });
  }

  void spread_block(int64_t n, const Block& block, const A* packed, int64_t packed_step, const A* map,
                    const A* gradient, A* places) const {
    const int64_t width = block.width, wide = round_up(width, kLanes<A>), step = g_.in_channels;
    const Scratch sums_memory(bytes_of<A>(g_.pixels() + 1, wide)), columns_memory(bytes_of<A>(kRows, wide));
    const Scratch zeros_memory(bytes_of<A>(wide)), samples_memory(Samples<A>::bytes(kRows));
    A* const sums = sums_memory.as<A>();
    A* const columns = columns_memory.as<A>();
    A* const zeros = zeros_memory.as<A>();
    A* const outside = sums + g_.pixels() * wide;  // what corners outside get, which nobody reads
    for (int64_t i = 0; i < (g_.pixels() + 1) * wide; ++i) sums[i] = A(0);
    for (int64_t c = 0; c < wide; ++c) zeros[c] = A(0);
    Samples<A> samples(samples_memory.as<A>(), kRows);
    const A* const image = map + n * g_.pixels() * step + block.begin;
    for (int64_t first = 0; first < positions_; first += kRows) {
      const int64_t rows = least(kRows, positions_ - first);
      samples.start(g_, first, rows);
      const A* const gradients = gradient + (n * positions_ + first) * g_.out_channels;
      for (int64_t tap = 0; tap < taps_; ++tap) {
        column_gradients(block, packed + tap * packed_step, gradients, rows, wide, columns);
        locate<true, T>(g_, n, block.d, tap, first, rows, samples);
        A* const there = places + tap * 3 * positions_ + first;
        for (int64_t i = 0; i < rows; ++i) {
          PlaceGradient<A> got{};
          if (samples.corners[i] != 0) {
            const A* from[4];
            A* to[4];
            find_corners(image, samples.pixel[i], samples.corners[i], step, g_.x.input, const_cast<const A*>(zeros),
                         from);
            find_corners(sums, samples.pixel[i], samples.corners[i], wide, g_.x.input, outside, to);
            got = spread(columns + i * wide, from, to, samples, i, width);
          }
          there[i] = got.mask;
          there[positions_ + i] = got.y;
          there[2 * positions_ + i] = got.x;
        }
      }
    }
    if (p_.grad_input == nullptr) return;
    const int64_t pixels = g_.pixels();
    T* const target = static_cast<T*>(p_.grad_input) + n * pixels * step;
    if (g_.input_channels_last) {
      unpack_channels_last(sums, wide, target + block.begin, 1, step, pixels, width);
    } else {
      unpack_channels_last(sums, wide, target + block.begin * pixels, pixels, 1, pixels, width);
    }
  }

  // The gradients of the columns of a block at one kernel element: [row][wide].
  void column_gradients(const Block& block, const A* packed, const A* gradients, int64_t rows, int64_t wide,
                        A* columns) const {
    const A* pointers[kRows + kRowsPadding];
    for_each_group(block, [&](int64_t group, int64_t begin, int64_t end) {
      for (int64_t i = 0; i < rows + kRowsPadding; ++i) {
        pointers[i] = gradients + least(i, rows - 1) * g_.out_channels + group * out_channels_;
      }
      const int64_t first = 0;
      const RowSpan span{0, rows};
      GemmRows<A> gemm{};
      gemm.a = pointers;
      gemm.a_stride = rows + kRowsPadding;
      gemm.packed = packed;
      gemm.b_depth = out_channels_;
      gemm.first = &first;
      gemm.segments = 1;
      gemm.depth = out_channels_;
      gemm.c = columns + (begin - block.begin);
      gemm.c_stride = wide;
      gemm.rows = rows;
      gemm.columns = end - begin;
      gemm.row_step = g_.out_channels;
      gemm.spans = &span;
      gemm_rows(gemm);
      packed += packed_size<A>(out_channels_, end - begin);
    });
  }

  // Sums what the blocks of an offset group give to one kernel element, for all positions. `before` such elements of
  // other images come before those of these.
  void sum_places(int64_t index, int64_t before, int64_t blocks, int64_t places, const A* partial) const {
    const int64_t size = 3 * positions_;
    const auto write = [&](int64_t which, T* target) {
      const A* const first = partial + index * size + which * positions_;
      for (int64_t i = 0; i < positions_; ++i) {
        A sum = first[i];
        for (int64_t b = 1; b < blocks; ++b) sum += first[b * places * size + i];
        target[i] = from_float<T>(sum);
      }
    };
    if (p_.grad_mask != nullptr) write(0, static_cast<T*>(p_.grad_mask) + (before + index) * positions_);
    if (p_.grad_offset != nullptr) {
      T* const target = static_cast<T*>(p_.grad_offset) + 2 * (before + index) * positions_;
      write(1, target);
      write(2, target + positions_);
    }
  }

  // ---- weight ----

  void multiply_all(const A* map, const A* gradient) const {
    const int64_t blocks = ceil_div(in_channels_, kPanelPixels<A>);
    const int64_t width = round_up(ceil_div(in_channels_, blocks), kLanes<A>);
    parallel_for(g_.groups * taps_ * blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = i % blocks * width;
        if (first >= in_channels_) continue;
        multiply_block(i / blocks / taps_, i / blocks % taps_, first, least(width, in_channels_ - first), map,
                       gradient);
      }
    });
  }

  // The gradient of the weight of a group at one kernel element, for `width` of the group's channels.
  void multiply_block(int64_t group, int64_t tap, int64_t first, int64_t width, const A* map, const A* gradient) const {
    const int64_t wide = round_up(width, kLanes<A>), per_offset = g_.in_channels / g_.offset_groups;
    const int64_t begin = group * in_channels_ + first, end = begin + width;
    const Scratch sums_memory(bytes_of<A>(round_up(out_channels_, kPixelRows), wide));
    const Scratch columns_memory(bytes_of<A>(kChunk, wide)), zeros_memory(bytes_of<A>(wide));
    const Scratch samples_memory(Samples<A>::bytes(kChunk));
    A* const sums = sums_memory.as<A>();
    A* const columns = columns_memory.as<A>();
    for (int64_t i = 0; i < out_channels_ * wide; ++i) sums[i] = A(0);
    for (int64_t i = 0; i < kChunk * wide; ++i) columns[i] = A(0);
    for (int64_t i = 0; i < wide; ++i) zeros_memory.as<A>()[i] = A(0);
    Samples<A> samples(samples_memory.as<A>(), kChunk);
    for (int64_t n = 0; n < g_.batch; ++n) {
      const A* const image = map + n * g_.pixels() * g_.in_channels;
      for (int64_t at = 0; at < positions_; at += kChunk) {
        const int64_t count = least(kChunk, positions_ - at);
        samples.start(g_, at, count);
        for (int64_t c = begin; c < end;) {
          const int64_t d = c / per_offset, stop = least(end, (d + 1) * per_offset);
          locate<false, T>(g_, n, d, tap, at, count, samples);
          sample(image + c, g_.in_channels, g_.x.input, samples, count, stop - c, zeros_memory.as<A>(),
                 columns + (c - begin), wide);
          c = stop;
        }
        const A* const gradients = gradient + (n * positions_ + at) * g_.out_channels + group * out_channels_;
        for (int64_t o = 0; o < out_channels_; o += kPixelRows) {
          const A* const a = gradients + o;
          const A* const b = columns;
          gemm_pixels<A>(&a, g_.out_channels, &b, wide, 1, count, sums + o * wide, wide,
                         least(out_channels_ - o, kPixelRows), wide, GemmStart::kTile);
        }
      }
    }
    for (int64_t o = 0; o < out_channels_; ++o) {
      T* const target =
          static_cast<T*>(p_.grad_weight) + ((group * out_channels_ + o) * in_channels_ + first) * taps_ + tap;
      for (int64_t c = 0; c < width; ++c) target[c * taps_] = from_float<T>(sums[o * wide + c]);
    }
  }

  const DeformConv2dBackwardParams& p_;
  const DeformGeometry& g_;
  int64_t taps_, positions_;
  int64_t in_channels_, out_channels_;  // of one weight group
};

}  // namespace fastcv::FASTCV_VARIANT

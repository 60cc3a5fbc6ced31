// Deformable convolution on the CPU. See deform_conv2d.h for the meaning.
//
// A block of output positions at a time: for a few kernel elements the samples of all channels are laid side by side as
// rows, which stay in the second-level cache, and multiplied with the weight by the shared micro-kernel, whose sums go
// on where those of the elements before ended. The result is turned into planes on its way out.
//
// Napkin maths on one core (90 GFLOP/s, 16 lanes, 3.5 GHz). 64 -> 64 channels, 3 x 3, 100 x 136: 1.0 GFLOP, 11 ms; 122 400
// samples of 4 vectors, each 4 loads, 4 products and a store, 20 cycles and as many for its place: 1.4 ms; map and result
// turned, 14 MB from the third-level cache: 1 ms. 256 -> 256, 50 x 68: 4.0 GFLOP, 44 ms; samples 1.6 ms. So the products
// are the limit, and a peer that takes its samples one by one but multiplies as fast can be left behind by little more
// than (its samples + products) / products.
#include "core/gemm_cpu.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "ops/deform_conv2d/deform_backward_cpu.h"
#include "ops/deform_conv2d/deform_conv2d.h"
#include "ops/deform_conv2d/deform_sample_cpu.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

// How a block is cut: output positions, and kernel elements whose columns are there at a time.
struct BlockSize {
  int64_t rows, taps;
};

inline BlockSize block_size(int64_t channels, int64_t taps) {
  constexpr int64_t kElements = 65536, kMostRows = 96, kFewestRows = 24;
  const int64_t fitting = kElements / (channels + 1) / kFewestRows * kFewestRows;
  const int64_t rows = greatest(least(fitting, kMostRows), kFewestRows);
  const int64_t at_once = greatest(kElements / (rows * channels + 1), int64_t{1});
  return {rows, least(least(at_once, taps), kMaxGemmSegments)};
}

// Packs the weight of one group as gemm_rows reads it: rows (tap, channel), columns the output channels.
template <class T>
void pack_weight(const T* weight, int64_t in_channels, int64_t out_channels, int64_t taps, Accumulate<T>* packed) {
  using A = Accumulate<T>;
  const int64_t depth = in_channels * taps;
  constexpr int64_t kColumns = kPanelColumns<A>, kAtOnce = 64;
  const int64_t pieces = ceil_div(depth, kAtOnce);
  parallel_for(ceil_div(out_channels, kColumns) * pieces, 8, [&](int64_t begin, int64_t end) {
    alignas(64) A turned[kAtOnce * kColumns];  // [channel and tap][output channel]
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task / pieces * kColumns, start = task % pieces * kAtOnce;
      const int64_t width = panel_width<A>(first, out_channels), columns = least(width, out_channels - first);
      const int64_t count = least(kAtOnce, depth - start);
      if (columns < width) {
        for (int64_t i = 0; i < count * width; ++i) turned[i] = A(0);
      }
      transpose(weight + first * depth + start, depth, turned, width, columns, count);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t c = (start + i) / taps, tap = (start + i) % taps;
        __builtin_memcpy(packed + first * depth + (tap * in_channels + c) * width, turned + i * width,
                         width * sizeof(A));
      }
    }
  });
}

template <class T>
class Forward {
  using A = Accumulate<T>;

 public:
  Forward(const DeformConv2dParams& p, const A* map, const A* packed)
      : p_(p),
        g_(p.geometry),
        map_(map),
        packed_(packed),
        taps_(g_.taps()),
        size_(block_size(g_.in_channels, taps_)),
        in_channels_(g_.in_channels / g_.groups),
        out_channels_(g_.out_channels / g_.groups),
        group_size_(packed_size<A>(in_channels_ * taps_, out_channels_)) {}

  void run() const {
    const int64_t positions = g_.positions(), blocks = ceil_div(positions, size_.rows);
    parallel_for(g_.batch * blocks, 1, [&](int64_t begin, int64_t end) {
      const int64_t channels = greatest(g_.in_channels, int64_t{1});
      const Scratch columns(bytes_of<A>(size_.rows, size_.taps, channels));
      const Scratch sums(bytes_of<A>(size_.rows, g_.out_channels));
      const Scratch places(Samples<A>::bytes(size_.rows));
      const Scratch zeros(bytes_of<A>(channels));
      const Scratch pointers(bytes_of<A*>(size_.taps, size_.rows + kRowsPadding));
      Samples<A> samples(places.as<A>(), size_.rows);
      for (int64_t c = 0; c < channels; ++c) zeros.as<A>()[c] = A(0);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / blocks, first = i % blocks * size_.rows, rows = least(size_.rows, positions - first);
        samples.start(g_, first, rows);
        for (int64_t tap = 0; tap < taps_; tap += size_.taps) {
          const int64_t count = least(size_.taps, taps_ - tap);
          fill(n, first, rows, tap, count, samples, zeros.as<A>(), columns.as<A>());
          multiply(rows, tap, count, columns.as<A>(), pointers.as<const A*>(), sums.as<A>());
        }
        write(sums.as<A>(), n, first, rows);
      }
    });
  }

 private:
  // The columns of `count` kernel elements: [row][element][channel].
  void fill(int64_t n, int64_t first, int64_t rows, int64_t tap, int64_t count, const Samples<A>& samples,
            const A* zeros, A* columns) const {
    const int64_t channels = g_.in_channels / g_.offset_groups;
    const A* const image = map_ + n * g_.pixels() * g_.in_channels;
    for (int64_t t = 0; t < count; ++t) {
      for (int64_t d = 0; d < g_.offset_groups; ++d) {
        locate<false, T>(g_, n, d, tap + t, first, rows, samples);
        sample(image + d * channels, g_.in_channels, g_.x.input, samples, rows, channels, zeros,
               columns + t * g_.in_channels + d * channels, size_.taps * g_.in_channels);
      }
    }
  }

  void multiply(int64_t rows, int64_t tap, int64_t count, const A* columns, const A** pointers, A* sums) const {
    const int64_t padded = rows + kRowsPadding, row_step = size_.taps * g_.in_channels;
    int64_t firsts[kMaxGemmSegments];
    RowSpan spans[kMaxGemmSegments];
    for (int64_t t = 0; t < count; ++t) {
      firsts[t] = (tap + t) * in_channels_;
      spans[t] = {0, rows};
    }
    for (int64_t group = 0; group < g_.groups; ++group) {
      for (int64_t t = 0; t < count; ++t) {
        for (int64_t i = 0; i < padded; ++i) {
          pointers[t * padded + i] =
              columns + least(i, rows - 1) * row_step + t * g_.in_channels + group * in_channels_;
        }
      }
      GemmRows<A> gemm{};
      gemm.a = pointers;
      gemm.a_stride = padded;
      gemm.packed = packed_ + group * group_size_;
      gemm.b_depth = in_channels_ * taps_;
      gemm.first = firsts;
      gemm.segments = count;
      gemm.depth = in_channels_;
      gemm.c = sums + group * out_channels_;
      gemm.c_stride = g_.out_channels;
      gemm.rows = rows;
      gemm.columns = out_channels_;
      gemm.bias = p_.bias == nullptr ? nullptr : static_cast<const A*>(p_.bias) + group * out_channels_;
      gemm.accumulate = tap > 0;
      gemm.row_step = row_step;
      gemm.spans = spans;
      gemm_rows(gemm);
    }
  }

  void write(const A* sums, int64_t n, int64_t first, int64_t rows) const {
    const int64_t positions = g_.positions(), channels = g_.out_channels;
    T* const image = static_cast<T*>(p_.output) + n * channels * positions;
    if (g_.output_channels_last) {
      convert_run(sums, rows * channels, image + first * channels);
    } else {
      transpose(sums, channels, image + first, positions, rows, channels);
    }
  }

  const DeformConv2dParams& p_;
  const DeformGeometry& g_;
  const A* map_;
  const A* packed_;
  int64_t taps_;
  BlockSize size_;
  int64_t in_channels_, out_channels_;  // of one group
  int64_t group_size_;
};

template <class T>
void convolve(const DeformConv2dParams& p) {
  using A = Accumulate<T>;
  const DeformGeometry& g = p.geometry;
  const int64_t in_channels = g.in_channels / g.groups, out_channels = g.out_channels / g.groups;
  const int64_t size = packed_size<A>(in_channels * g.taps(), out_channels);
  const Scratch packed(bytes_of<A>(g.groups, size));
  for (int64_t group = 0; group < g.groups; ++group) {
    pack_weight(static_cast<const T*>(p.weight) + group * out_channels * in_channels * g.taps(), in_channels,
                out_channels, g.taps(), packed.as<A>() + group * size);
  }
  const InnermostMap<T> map(g.input, g.input_channels_last, g.batch, g.in_channels, g.pixels(), false);
  advise_huge_pages(p.output, sizeof(T) * static_cast<size_t>(g.batch * g.out_channels * g.positions()));
  Forward<T>(p, map.data(), packed.as<A>()).run();
}

}  // namespace

void deform_conv2d_cpu(const DeformConv2dParams& params) {
  dispatch_floating(params.geometry.dtype, [&](auto tag) { convolve<typename decltype(tag)::type>(params); });
}

void deform_conv2d_backward_cpu(const DeformConv2dBackwardParams& params) {
  dispatch_floating(params.geometry.dtype, [&](auto tag) { Backward<typename decltype(tag)::type>(params).run(); });
}

}  // namespace fastcv::FASTCV_VARIANT

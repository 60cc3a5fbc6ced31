// The forward and the gradient of the input on the CPU: both gather (conv_geometry.h). Every target site of one phase
// is a row of one and the same matrix product, whose left factor is made of channels-last pixels that lie where
// pointers say (gemm_cpu.h); sites beyond the border point at a row of zeros. No column matrix is built and nothing is
// added twice. Work is split into blocks of neighbouring sites of one phase along z and y, all phases of x: a block's
// results form whole runs of output pixels, written once.
//
// Phases of x in pairs: with stride 2 and a kernel of even size, output pixels 2m - padding and 2m + 1 - padding read
// the same input pixels m, m - 1, ... Where a phase fills half of a panel of columns, both are computed as one.
//
// Cost, in float32 on AVX-512: per result K / 32 cycles for its K = channels x taps products, plus about one for the
// transposition in and out where channels are not innermost: 3 to 6 % for K = 256, less beyond. Pairs of bfloat16 take
// K / 64 cycles where their instruction issues twice per cycle (gemm_cpu.h).
#pragma once

#include "core/gemm_cpu.h"
#include "core/layout_cpu.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "ops/conv_transpose/conv_geometry.h"

namespace fastcv::FASTCV_VARIANT {

// Calls body(k, offset) for each tap of a phase, ascending.
template <class Body>
inline void for_each_tap(const GatherAxis& axis, int64_t phase, const Body& body) {
  const TapRun run = taps_of_phase(axis, phase);
  for (int64_t i = 0; i < run.count; ++i) body(run.first + i * axis.tap_step, run.offset + i * run.offset_step);
}

// Everything that one call of the engine needs. E is the type of the factors: that of the sums, or pairs of bfloat16; T
// is the type of the result.
template <class E, class T>
struct GatherProblem {
  using S = Accumulate<E>;
  GatherAxis axes[3];
  int64_t batch, groups;
  int64_t depth, columns;  // channels, or pairs of them, of one group on the source side; channels on the target side
  const E* source;         // [n][z][y][x][groups * depth]
  const E* packed;         // per group: pack_panels of a [taps * depth][columns] matrix
  const S* bias;           // [groups * columns] or null
  bool relu;
  T* target;
  bool target_channels_last;
};

// Products per element between two visits of a tile: the panels of B then stay in the second-level cache.
constexpr int64_t kDepthPerPass = 512;

// Collects the segments of one tile and multiplies them when there are enough.
template <class E>
struct TileProduct {
  GemmRows<E> gemm;
  const E** pointers;
  int64_t* first;
  RowSpan* spans;
  bool fresh;  // nothing has been written to the tile

  void flush() {
    if (gemm.segments == 0 && !fresh) return;
    gemm.accumulate = !fresh;
    gemm_rows(gemm);
    gemm.segments = 0;
    fresh = false;
  }
};

template <class E, class T>
struct Gather {
  using S = Accumulate<E>;
  const GatherProblem<E, T>& p;
  int64_t phases_z, phases_y, phases_x;
  int64_t sites_y, sites_x;            // of a phase, rounded up
  int64_t rows_per_block, row_blocks;  // runs of sites_x sites
  int64_t sites_per_piece, pieces;     // a run in pieces
  int64_t most_segments;
  bool paired;
  int64_t first_pair;  // the m of site 0

  explicit Gather(const GatherProblem<E, T>& problem) : p(problem) {
    phases_z = phases_of(p.axes[0]);
    phases_y = phases_of(p.axes[1]);
    phases_x = phases_of(p.axes[2]);
    sites_y = sites_of_phase(p.axes[1]);
    sites_x = sites_of_phase(p.axes[2]);
    const GatherAxis& x = p.axes[2];
    first_pair = x.padding / 2;
    const int64_t sites_in_pairs = (x.target - 1 + x.padding) / 2 - first_pair + 1;
    paired = x.forward && x.out_step == 2 && x.kernel % 2 == 0 && x.dilation == 1 && p.groups == 1 &&
             2 * p.columns == kPanelColumns<S> && p.depth > 0 && sites_in_pairs >= 24;
    if (paired) sites_x = sites_in_pairs;
    const int64_t runs = p.batch * sites_of_phase(p.axes[0]) * sites_y;
    // A tile of at most 64 K elements, 12 to 96 sites; 128 where they are short.
    int64_t sites = (int64_t{64} << 10) / (p.columns * phases_x);
    const int64_t fewest = phases_x > 8 ? 1 : 12;
    const int64_t most = 2 * p.columns <= kPanelColumns<S> ? 128 : 96;
    sites = greatest(fewest, least(sites, most));
    pieces = ceil_div(sites_x, sites);
    sites_per_piece = ceil_div(sites_x, pieces);
    rows_per_block = sites_x >= sites ? 1 : sites / sites_x;
    if (rows_per_block > runs) rows_per_block = runs;
    row_blocks = ceil_div(runs, rows_per_block);
    most_segments = p.depth == 0 ? 1 : kDepthPerPass / p.depth;
    const int64_t taps = p.axes[0].kernel * p.axes[1].kernel * p.axes[2].kernel;
    if (most_segments > taps) most_segments = taps;
    if (most_segments < 1) most_segments = 1;
    if (most_segments > kMaxGemmSegments) most_segments = kMaxGemmSegments;
  }

  int64_t blocks() const { return p.groups * phases_z * phases_y * row_blocks * pieces; }

  // How often the tile is visited, at most.
  int64_t passes() const {
    const int64_t taps = p.axes[0].kernel * p.axes[1].kernel * p.axes[2].kernel;
    return ceil_div(paired ? taps / 2 : taps, most_segments);
  }

  // The target's x of the first phase of a site; with pairs it may be -1.
  int64_t first_pixel(int64_t site) const {
    return site * p.axes[2].out_step + (paired ? 2 * first_pair - p.axes[2].padding : 0);
  }

  struct Run {
    int64_t n, z, y;  // image, target z and y; n < 0: beyond the target
  };

  // The sites of a block: `width` of each run, from first_x on, of one phase along z and y.
  struct Sites {
    int64_t group, phase_z, phase_y;
    const Run* run;
    int64_t count, first_x, width;

    int64_t size() const { return count * width; }
  };

  void block(int64_t index) const {
    const int64_t piece = index % pieces;
    index /= pieces;
    const int64_t row_block = index % row_blocks;
    index /= row_blocks;
    const int64_t phase_y = index % phases_y;
    index /= phases_y;
    const int64_t phase_z = index % phases_z, group = index / phases_z;

    const int64_t sites_z = sites_of_phase(p.axes[0]);
    const int64_t first_x = piece * sites_per_piece, width = least(sites_x - first_x, sites_per_piece);
    const int64_t first_run = row_block * rows_per_block;
    const int64_t count = least(p.batch * sites_z * sites_y - first_run, rows_per_block);
    const Scratch run_memory(bytes_of<Run>(count));
    Run* run = run_memory.as<Run>();
    for (int64_t r = 0; r < count; ++r) {
      const int64_t flat = first_run + r, q_y = flat % sites_y, rest = flat / sites_y;
      run[r] = {rest / sites_z, rest % sites_z * p.axes[0].out_step + phase_z, q_y * p.axes[1].out_step + phase_y};
      if (run[r].z >= p.axes[0].target || run[r].y >= p.axes[1].target) run[r].n = -1;
    }
    const Sites sites{group, phase_z, phase_y, run, count, first_x, width};
    if constexpr (sizeof(S) == sizeof(T)) {
      if (p.target_channels_last && count == 1 &&
          !(paired && passes() > 1)) {  // the run's pixels lie in the target as they do in a tile
        if (run[0].n < 0) return;
        const int64_t channels = p.groups * p.columns, x = first_pixel(first_x);
        T* pixel = p.target + group * p.columns +
                   (((run[0].n * p.axes[0].target + run[0].z) * p.axes[1].target + run[0].y) * p.axes[2].target + x) *
                       channels;
        const int64_t pixels = least(p.axes[2].target - x, width * phases_x);
        return multiply(sites, pixels, pixel, channels, x < 0, pixels < width * phases_x);
      }
    }
    const Scratch tile_memory(bytes_of<S>(count, width, phases_x, p.columns));
    S* tile = tile_memory.as<S>();  // [run][q][phase_x][columns]
    multiply(sites, sites.size() * phases_x, tile, p.columns, false, false);
    write(sites, tile);
  }

  // The taps of a phase of x, or of a pair of them: then every second tap, which stands for two.
  template <class Body>
  void for_each_tap_x(int64_t phase, const Body& body) const {
    if (!paired) return for_each_tap(p.axes[2], phase, body);
    for (int64_t k = 0; k < p.axes[2].kernel; k += 2) body(k, first_pair - k / 2);
  }

  // The source pixels that one tap takes to the sites, kRowsPadding more for padding, and which sites of each run those
  // are; zeros elsewhere. False where all are zeros: then not all pointers are written.
  bool point_at_sources(const Sites& sites, int64_t offset_z, int64_t offset_y, int64_t offset_x, const E* zeros,
                        const E** pointer, RowSpan* span) const {
    const int64_t width = sites.width, channels = p.groups * p.depth;
    // Those q for which x = (first_x + q) * in_step + offset_x lies in the source: [begin, end).
    const int64_t step_x = p.axes[2].in_step, x = sites.first_x * step_x + offset_x;
    int64_t begin = x >= 0 ? 0 : ceil_div(-x, step_x), end = p.axes[2].source - x;
    end = end < 0 ? 0 : least(ceil_div(end, step_x), width);
    begin = least(begin, end);
    *span = {begin, end};
    bool any = false;
    for (int64_t r = 0; r < sites.count; ++r) {
      const Run& run = sites.run[r];
      const int64_t z = run.z / p.axes[0].out_step * p.axes[0].in_step + offset_z;
      const int64_t y = run.y / p.axes[1].out_step * p.axes[1].in_step + offset_y;
      const bool inside = run.n >= 0 && z >= 0 && z < p.axes[0].source && y >= 0 && y < p.axes[1].source;
      const int64_t pixel = ((run.n * p.axes[0].source + z) * p.axes[1].source + y) * p.axes[2].source;
      const int64_t place = (pixel + x) * channels + sites.group * p.depth;
      int64_t q = 0;
      for (; q < (inside ? begin : width); ++q) pointer[q] = zeros;
      for (; q < end; ++q) pointer[q] = p.source + place + q * step_x * channels;
      for (; q < width; ++q) pointer[q] = zeros;
      pointer += width;
      any = any || (inside && begin < end);
    }
    for (int64_t i = 0; any && i < kRowsPadding; ++i) *pointer++ = zeros;
    return any;
  }

  // Puts the first `pixels` results to tile[run][q][phase_x], `step` elements from pixel to pixel; of pairs, the first
  // and the one behind the last can be left out.
  void multiply(const Sites& sites, int64_t pixels, S* tile, int64_t step, bool cut_first, bool cut_last) const {
    const int64_t stride = sites.size() + kRowsPadding;
    const int64_t taps_y = p.axes[1].kernel, taps_x = p.axes[2].kernel;
    const int64_t depth_of_taps = p.axes[0].kernel * taps_y * taps_x * p.depth;
    const Scratch pointer_memory(bytes_of<E*>(most_segments, stride));
    const Scratch first_memory(bytes_of<int64_t>(most_segments)), span_memory(bytes_of<RowSpan>(most_segments));
    const Scratch zero_memory(bytes_of<E>(p.depth));
    E* zeros = zero_memory.as<E>();
    for (int64_t c = 0; c < p.depth; ++c) zeros[c] = E{};
    const Scratch bias_memory(bytes_of<S>(2, p.columns));
    S* two_biases = bias_memory.as<S>();
    for (int64_t c = 0; c < 2 * p.columns && paired && p.bias != nullptr; ++c) two_biases[c] = p.bias[c % p.columns];
    for (int64_t phase_x = 0; phase_x < (paired ? 1 : phases_x); ++phase_x) {
      TileProduct<E> product{};
      product.pointers = pointer_memory.as<const E*>();
      product.first = first_memory.as<int64_t>();
      product.spans = span_memory.as<RowSpan>();
      product.fresh = true;
      product.gemm.a = product.pointers;
      product.gemm.a_stride = stride;
      product.gemm.packed = p.packed + sites.group * packed_size<E>(depth_of_taps, p.columns);
      product.gemm.b_depth = depth_of_taps;
      product.gemm.first = product.first;
      product.gemm.depth = p.depth;
      product.gemm.c = tile + phase_x * step;
      product.gemm.c_stride = phases_x * step;
      product.gemm.rows = paired ? sites.size() : ceil_div(pixels - phase_x, phases_x);
      product.gemm.row_step = p.axes[2].in_step * p.groups * p.depth;
      product.gemm.spans = sites.count == 1 && product.gemm.row_step <= 4 * p.depth ? product.spans : nullptr;
      product.gemm.columns = paired ? 2 * p.columns : p.columns;
      if (p.bias != nullptr) product.gemm.bias = paired ? two_biases : p.bias + sites.group * p.columns;
      if (paired) {
        product.gemm.half = p.depth * p.columns;  // the next tap
        product.gemm.cut_first = cut_first;
        product.gemm.cut_last = cut_last;
      }
      for_each_tap(p.axes[0], sites.phase_z, [&](int64_t k_z, int64_t offset_z) {
        for_each_tap(p.axes[1], sites.phase_y, [&](int64_t k_y, int64_t offset_y) {
          for_each_tap_x(phase_x, [&](int64_t k_x, int64_t offset_x) {
            const int64_t segment = product.gemm.segments;
            if (!point_at_sources(sites, offset_z, offset_y, offset_x, zeros, product.pointers + segment * stride,
                                  product.spans + segment)) {
              return;
            }
            product.first[segment] = ((k_z * taps_y + k_y) * taps_x + k_x) * p.depth;
            if (++product.gemm.segments == most_segments) product.flush();
          });
        });
      });
      product.flush();
    }
    for (int64_t i = cut_first ? 1 : 0; i < pixels && p.relu; ++i) {
      for (int64_t c = 0; c < p.columns; ++c) {
        S& value = tile[i * step + c];
        value = value < S(0) ? S(0) : value;
      }
    }
  }

  // Copies the tile to the target: runs of output pixels, transposed where channels are not innermost.
  void write(const Sites& sites, const S* tile) const {
    const int64_t size_z = p.axes[0].target, size_y = p.axes[1].target, size_x = p.axes[2].target;
    const int64_t channels = p.groups * p.columns, plane = size_z * size_y * size_x, first = sites.group * p.columns;
    const int64_t skipped = first_pixel(sites.first_x) < 0 ? 1 : 0, x = first_pixel(sites.first_x) + skipped;
    const int64_t tile_pixels = sites.width * phases_x;  // more than one phase where out_step is at most the size
    const int64_t pixels = least(size_x - x, tile_pixels - skipped);
    for (int64_t r = 0; r < sites.count; ++r) {
      const Run& run = sites.run[r];
      if (run.n < 0) continue;
      const S* from = tile + (r * tile_pixels + skipped) * p.columns;
      const int64_t pixel = (run.z * size_y + run.y) * size_x + x;
      if (p.target_channels_last) {
        unpack_channels_last(from, p.columns, p.target + (run.n * plane + pixel) * channels + first, 1, channels,
                             pixels, p.columns);
      } else {
        transpose(from, p.columns, p.target + (run.n * channels + first) * plane + pixel, plane, pixels, p.columns);
      }
    }
  }
};

template <class E, class T>
void gather_all(const GatherProblem<E, T>& problem) {
  const Gather<E, T> gather(problem);
  advise_huge_pages(problem.target, problem.batch * problem.groups * problem.columns * problem.axes[0].target *
                                        problem.axes[1].target * problem.axes[2].target * sizeof(T));
  parallel_for(gather.blocks(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) gather.block(i);
  });
}

}  // namespace fastcv::FASTCV_VARIANT

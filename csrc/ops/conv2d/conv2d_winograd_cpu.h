// 3 x 3 convolution by Winograd's minimal filtering. CPU translation units only.
//
// A tile of kTile x kTile results needs (kTile + 2)^2 inputs; kStridedTile, of stride 2, has 2 x 2 of 5 x 5. They are
// transformed (B^T d B), multiplied place by place with the transformed filters, summed over channels, and transformed
// back (A^T m A). Vectors lie along channels. The sums over channels are one matrix product per place: rows are tiles,
// on the micro-kernel of gemm_cpu.h.
//
// Napkin maths, 256 to 256 channels at 100 x 136, float32. kTile 4: 850 tiles of 36 products of 256 x 256 are 4.0 GFLOP
// where a direct sum takes 16; at 117 GFLOP/s (one 512-bit FMA per cycle at 3.65 GHz) 34 ms. kTile 6: 391 tiles, cut off
// at the borders more often, of 64 products: 28 ms. A block of 24 tiles has 0.9 (1.6) MB of transformed inputs and, for
// a panel of 64 columns, 0.2 (0.4) MB of products: the second level's cache holds them, or nearly. The filters, 9.4
// (16.8) MB, come from the third level once per block: 2.7 bytes per cycle. Transforms are 12 and 10 (20 and 19)
// operations per line of 6 (8), 2 to 4 % of the cycles of the products; what they take is their way through memory: 36
// (64) lines out and back in.
//
// Measured on one such core, processor time: products 35.5 (30.4) ms, inputs 1.8 (1.6), results 2.9 (2.9), together 3.5
// (4.0) times as fast as torch's direct sum, which runs at 115 GFLOP/s. Products are at 0.93 to 0.97 of the rate of the
// machine with either, in blocks of 12, 24, 36 or 48 tiles, so what is left is in the transforms: storing results past
// the caches takes 4.4 (6.9) ms instead of 11.9 (11.8) at 200 x 272; fetching lines before they are needed, be it
// products, inputs or results, takes at most 3 % off, with 64 channels, and is not done.
//
// Time with kTile 4 over that with 6: 256 channels at 200 x 272 and 100 x 136 1.15, at 50 x 68 1.1, 128 at 100 x 136
// 1.15, 64 at 200 x 272 1.07, 512 at 25 x 34 1.2. Of stride 2, the direct sum over kStridedTile: 128 channels at 200 x
// 272, 256 at 100 x 136 and 512 at 50 x 68 1.29; at 120 x 160, 60 x 80 and 30 x 40 1.29, 1.33, 1.13.
#pragma once

#include "core/past_caches_cpu.h"
#include "ops/conv2d/conv2d_problem_cpu.h"
#include "ops/conv2d/conv2d_transforms_cpu.h"

namespace fastcv::FASTCV_VARIANT {

constexpr int64_t kBlockTiles = 24;  // a multiple of the rows of all products but those of AVX2

// Tiles are counted image by image, row by row.
template <int kTile>
struct TileGrid {
  int64_t rows, columns;

  explicit TileGrid(const Conv2dProblem<float>& p)
      : rows(ceil_div(p.axes[0].output, tile_shape(kTile).results)),
        columns(ceil_div(p.axes[1].output, tile_shape(kTile).results)) {}
  int64_t of_image() const { return rows * columns; }
};

// Transformed data of a few tiles, [place][tile][channel]: elements from place to place and from tile to tile. Places
// lie a cache line more apart than they need, so that their lines do not all fall into one set of the cache.
struct TileLayout {
  int64_t place, tile;

  TileLayout(int64_t tiles, int64_t width)
      : place(tiles * round_up(width, kLanes<float>) + 16), tile(round_up(width, kLanes<float>)) {}
  int64_t elements(int64_t places) const { return places * place + kRowsPadding * tile; }
};

// The inputs of neighbouring tiles of a row, transformed. First along y, pixel by pixel, so that memory is read in
// order: `side` rows at a time; what tiles share is transformed once. Then along x, tile by tile.
template <int kTile>
class StripTransform {
  static constexpr int kSide = tile_shape(kTile).side, kStep = tile_shape(kTile).step;

 public:
  explicit StripTransform(const Conv2dProblem<float>& p)
      : p_(p), width_(round_up(p.channels, kLanes<float>) + 16), memory_(bytes_of<float>(kSide * kSide + 1, width_)) {
    for (int64_t c = 0; c < width_; ++c) zeros()[c] = 0;
  }

  // Tiles first ... first + count - 1 of all, which lie in one row, to rows of `target`.
  void run(const TileGrid<kTile>& grid, int64_t first, int64_t count, float* target, TileLayout layout) const {
    const Conv2dAxis &ys = p_.axes[0], &xs = p_.axes[1];
    const int64_t top = first % grid.of_image() / grid.columns * kStep - ys.padding;
    const int64_t left = first % grid.columns * kStep - xs.padding;
    const float* image = p_.source + first / grid.of_image() * ys.input * xs.input * p_.channels;
    const float* rows[kSide];
    int64_t steps[kSide];
    for (int y = 0; y < kSide; ++y) {
      const bool inside = top + y >= 0 && top + y < ys.input;
      rows[y] = inside ? image + (top + y) * xs.input * p_.channels : zeros();
      steps[y] = inside ? p_.channels : 0;
    }
    int64_t x = left;
    for (int64_t t = 0; t < count; ++t) {
      for (const int64_t end = left + t * kStep + kSide; x < end; ++x) {
        const bool inside = x >= 0 && x < xs.input;
        const float* pixels[kSide];
        for (int y = 0; y < kSide; ++y) pixels[y] = inside ? rows[y] + x * steps[y] : zeros();
        transform_column(pixels, slot(x - left));
      }
      float* slots[kSide];
      for (int i = 0; i < kSide; ++i) slots[i] = slot(t * kStep + i);
      transform_rows(slots, target + t * layout.tile, layout.place);
    }
  }

 private:
  float* zeros() const { return memory_.template as<float>(); }
  // Of column x of the strip, counted from 0: [y][channel].
  float* slot(int64_t x) const { return zeros() + width_ + x % kSide * (kSide * width_); }

  void transform_column(const float* const* pixels, float* target) const {
    const auto step = [&](int64_t c, const auto& fetch) __attribute__((always_inline)) {
      Line d[kSide], o[kSide];
#pragma GCC unroll 8
      for (int y = 0; y < kSide; ++y) d[y] = fetch(pixels[y] + c);
      transform_source<kTile>(d, o);
#pragma GCC unroll 8
      for (int y = 0; y < kSide; ++y) store(target + y * width_ + c, o[y]);
    };
    int64_t c = 0;
    for (; c + kLanes<float> <= p_.channels; c += kLanes<float>) step(c, [](const float* at) { return load(at); });
    const int64_t left = p_.channels - c;
    if (left > 0) step(c, [left](const float* at) { return load_lanes(at, left); });
  }

  void transform_rows(const float* const* slots, float* target, int64_t place) const {
    for (int y = 0; y < kSide; ++y) {
      float* to = target + y * kSide * place;
      for (int64_t c = 0; c < p_.channels; c += kLanes<float>) {
        Line d[kSide], o[kSide];
#pragma GCC unroll 8
        for (int x = 0; x < kSide; ++x) d[x] = load(slots[x] + y * width_ + c);
        transform_source<kTile>(d, o);
#pragma GCC unroll 8
        for (int x = 0; x < kSide; ++x) store(to + x * place + c, o[x]);
      }
    }
  }

  const Conv2dProblem<float>& p_;
  int64_t width_;
  Scratch memory_;
};

// Any tiles, one after the other.
template <int kTile>
void transform_tiles(const StripTransform<kTile>& transform, const TileGrid<kTile>& grid, int64_t first, int64_t count,
                     float* target, TileLayout layout) {
  for (int64_t t = 0; t < count;) {
    const int64_t run = least(count - t, grid.columns - (first + t) % grid.columns);
    transform.run(grid, first + t, run, target + t * layout.tile, layout);
    t += run;
  }
}

// Where one vector of columns of a tile's results goes.
struct TileTarget {
  const float* residual;  // null: none
  float* target;
  int64_t row, pixel;            // elements from row to row and from pixel to pixel
  int64_t height, width, lanes;  // of which those inside the map are written
  bool past_caches;
};

// One vector of columns of a tile's products, to its results.
template <int kTile, Activation kActivation>
FASTCV_INLINE void transform_products(const float* products, int64_t place, Line bias, Line slope,
                                      const TileTarget& to) {
  constexpr int kSide = tile_shape(kTile).side, kResults = tile_shape(kTile).results;
  Line half[kResults][kSide];
#pragma GCC unroll 8
  for (int x = 0; x < kSide; ++x) {
    Line m[kSide], o[kResults];
#pragma GCC unroll 8
    for (int y = 0; y < kSide; ++y) m[y] = load(products + (y * kSide + x) * place);
    transform_result<kTile>(m, o);
#pragma GCC unroll 6
    for (int y = 0; y < kResults; ++y) half[y][x] = o[y];
  }
  const bool whole = to.height == kResults && to.width == kResults && to.lanes == kLanes<float>;
  Line edge[kResults * kResults];
#pragma GCC unroll 6
  for (int y = 0; y < kResults; ++y) {
    Line o[kResults];
    transform_result<kTile>(half[y], o);
#pragma GCC unroll 6
    for (int x = 0; x < kResults; ++x) {
      const int64_t at = y * to.row + x * to.pixel;
      Line value = o[x] + bias;
      if (!whole) {
        edge[y * kResults + x] = value;
        continue;
      }
      if (to.residual != nullptr) value += load(to.residual + at);
      value = activate<kActivation, float>(value, slope);
      if (to.past_caches) {
        store_past_caches(to.target + at, value);
      } else {
        store(to.target + at, value);
      }
    }
  }
  if (whole) return;
  for (int64_t y = 0; y < to.height; ++y) {
    for (int64_t x = 0; x < to.width; ++x) {
      const int64_t at = y * to.row + x * to.pixel;
      Line value = edge[y * kResults + x];
      if (to.residual != nullptr) value += load_lanes(to.residual + at, to.lanes);
      store_lanes(to.target + at, activate<kActivation, float>(value, slope), to.lanes);
    }
  }
}

// Whether results are not worth a place in the caches: so large a map has left them before it is read.
inline bool goes_past_caches(const Conv2dProblem<float>& p) {
  constexpr int64_t kLeastBytes = int64_t{32} << 20;
  const int64_t bytes = p.batch * p.axes[0].output * p.axes[1].output * p.columns * int64_t{sizeof(float)};
  return bytes >= kLeastBytes && p.columns % kLanes<float> == 0 && p.residual != p.target &&
         reinterpret_cast<uintptr_t>(p.target) % kVectorBytes == 0;
}

// What comes out of the products of `count` tiles and the panel of columns that begins at `first`.
template <int kTile, Activation kActivation>
void finish_panel(const Conv2dProblem<float>& p, const TileGrid<kTile>& grid, const float* products, TileLayout layout,
                  int64_t first_tile, int64_t count, int64_t first) {
  constexpr int kResults = tile_shape(kTile).results;
  const Conv2dAxis &ys = p.axes[0], &xs = p.axes[1];
  const int64_t end = least(p.columns, first + layout.tile);
  const Line slope = broadcast(p.epilogue.slope);
  TileTarget to{};
  to.row = xs.output * p.columns;
  to.pixel = p.columns;
  to.past_caches = goes_past_caches(p);
  for (int64_t t = 0; t < count; ++t) {
    const int64_t tile = first_tile + t;
    const int64_t y = tile % grid.of_image() / grid.columns * kResults, x = tile % grid.columns * kResults;
    const int64_t at = (tile / grid.of_image() * ys.output + y) * to.row + x * to.pixel;
    to.height = least(ys.output - y, int64_t{kResults});
    to.width = least(xs.output - x, int64_t{kResults});
    for (int64_t n = first; n < end; n += kLanes<float>) {
      to.lanes = least(p.columns - n, int64_t{kLanes<float>});
      to.residual = p.residual == nullptr ? nullptr : p.residual + at + n;
      to.target = p.target + at + n;
      const Line bias = p.bias == nullptr ? Line{} : load_lanes(p.bias + n, to.lanes);
      transform_products<kTile, kActivation>(products + t * layout.tile + n - first, layout.place, bias, slope, to);
    }
  }
}

// The matrix products of all places for `count` tiles and one panel of columns.
template <int kVectors>
void multiply_panel(const float* panel, int64_t channels, int places, const float* inputs, TileLayout layout,
                    int64_t count, float* products, TileLayout out) {
  constexpr int kRows = gemm_rows_of(kVectors);
  constexpr int64_t kWidth = kVectors * kLanes<float>;
  for (int place = 0; place < places; ++place) {
    const float* b = panel + place * channels * kWidth;
    for (int64_t m = 0; m < count; m += kRows) {
      const float* a = inputs + place * layout.place + m * layout.tile;
      gemm_tile<float, kRows, kVectors, GemmA::kSpaced>(&a, layout.tile, &b, kWidth, 1, channels,
                                                        products + place * out.place + m * kWidth, kWidth, count - m,
                                                        kWidth, GemmStart::kZero, nullptr);
    }
  }
}

// All of a few tiles and some panels: the products, and what comes out of them.
template <int kTile>
void multiply_panels(const Conv2dProblem<float>& p, const TileGrid<kTile>& grid, const float* inputs, TileLayout layout,
                     int64_t first_tile, int64_t count, int64_t first_panel, int64_t end_panel, float* products) {
  constexpr int kPlaces = tile_shape(kTile).side * tile_shape(kTile).side;
  for (int64_t panel = first_panel; panel < end_panel; ++panel) {
    const int64_t first = panel * kPanelColumns<float>;
    const TileLayout out(count, panel_width<float>(first, p.columns));
    dispatch_panel<float>(first, p.columns, [&](auto vectors) {
      multiply_panel<decltype(vectors)::value>(p.packed + first * kPlaces * p.channels, p.channels, kPlaces, inputs,
                                               layout, count, products, out);
    });
    dispatch_activation(p.epilogue.activation, [&](auto tag) {
      finish_panel<kTile, decltype(tag)::value>(p, grid, products, out, first_tile, count, first);
    });
  }
  finish_past_caches();
}

// Tiles in blocks, each transformed, multiplied and transformed back by one thread, without leaving its cache.
template <int kTile>
void convolve_blocks(const Conv2dProblem<float>& p, const TileGrid<kTile>& grid) {
  constexpr int64_t kPlaces = tile_shape(kTile).side * tile_shape(kTile).side;
  const int64_t tiles = p.batch * grid.of_image(), panels = ceil_div(p.columns, kPanelColumns<float>);
  parallel_for(ceil_div(tiles, kBlockTiles), 1, [&](int64_t begin, int64_t end) {
    const TileLayout layout(kBlockTiles, p.channels);
    const StripTransform<kTile> transform(p);
    const Scratch inputs(bytes_of<float>(layout.elements(kPlaces)));
    const Scratch products(bytes_of<float>(TileLayout(kBlockTiles, kPanelColumns<float>).elements(kPlaces)));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * kBlockTiles, count = least(tiles - first, kBlockTiles);
      transform_tiles(transform, grid, first, count, inputs.as<float>(), layout);
      multiply_panels<kTile>(p, grid, inputs.as<float>(), layout, first, count, 0, panels, products.as<float>());
    }
  });
}

// Few tiles: all are transformed first; then threads share the panels, so that each reads its filters once.
template <int kTile>
void convolve_few(const Conv2dProblem<float>& p, const TileGrid<kTile>& grid) {
  constexpr int64_t kPlaces = tile_shape(kTile).side * tile_shape(kTile).side, kMost = 72,
                    kUnit = gemm_rows_of(kPanelVectors);
  const int64_t tiles = p.batch * grid.of_image(), panels = ceil_div(p.columns, kPanelColumns<float>);
  const TileLayout layout(tiles, p.channels);
  const Scratch inputs(bytes_of<float>(layout.elements(kPlaces)));
  parallel_for(tiles, 6, [&](int64_t begin, int64_t end) {
    const StripTransform<kTile> transform(p);
    transform_tiles(transform, grid, begin, end - begin, inputs.as<float>() + begin * layout.tile, layout);
  });
  const int64_t block = round_up(ceil_div(tiles, ceil_div(tiles, kMost)), kUnit), blocks = ceil_div(tiles, block);
  parallel_for(blocks * panels, 1, [&](int64_t begin, int64_t end) {
    const Scratch products(bytes_of<float>(TileLayout(block, kPanelColumns<float>).elements(kPlaces)));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % blocks * block, count = least(tiles - first, block), panel = i / blocks;
      multiply_panels<kTile>(p, grid, inputs.as<float>() + first * layout.tile, layout, first, count, panel, panel + 1,
                             products.as<float>());
    }
  });
}

template <int kTile>
void convolve_by_tiles(const Conv2dProblem<float>& p) {
  const TileGrid<kTile> grid(p);
  if (p.batch * grid.of_image() > 8 * kBlockTiles) {
    convolve_blocks(p, grid);
  } else {
    convolve_few(p, grid);
  }
}

}  // namespace fastcv::FASTCV_VARIANT

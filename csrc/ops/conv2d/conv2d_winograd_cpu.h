// 3 x 3 convolution by Winograd's minimal filtering. CPU translation units only.
//
// A tile of kTile x kTile results needs (kTile + 2)^2 inputs. They are transformed (B^T d B), multiplied place by place
// with the transformed filters, summed over channels, and transformed back (A^T m A). Vectors lie along channels. The
// sums over channels are one matrix product per place: rows are tiles, on the micro-kernel of gemm_cpu.h.
#pragma once

#include "ops/conv2d/conv2d_problem_cpu.h"
#include "ops/conv2d/conv2d_transforms_cpu.h"

namespace fastcv::FASTCV_VARIANT {

// Tiles are counted image by image, row by row.
template <int kTile>
struct TileGrid {
  int64_t rows, columns;

  explicit TileGrid(const Conv2dProblem<float>& p)
      : rows(ceil_div(p.axes[0].output, kTile)), columns(ceil_div(p.axes[1].output, kTile)) {}
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

// One vector of channels of the inputs of a tile, to all places. fetch(y, x) gives an input.
template <int kTile, class Fetch>
FASTCV_INLINE void transform_inputs(const Fetch& fetch, float* target, int64_t place) {
  constexpr int kSide = kTile + 2;
  Line half[kSide][kSide];
#pragma GCC unroll 6
  for (int x = 0; x < kSide; ++x) {
    Line d[kSide], o[kSide];
#pragma GCC unroll 6
    for (int y = 0; y < kSide; ++y) d[y] = fetch(y, x);
    transform_source<kTile>(d, o);
#pragma GCC unroll 6
    for (int y = 0; y < kSide; ++y) half[y][x] = o[y];
  }
#pragma GCC unroll 6
  for (int y = 0; y < kSide; ++y) {
    Line o[kSide];
    transform_source<kTile>(half[y], o);
#pragma GCC unroll 6
    for (int x = 0; x < kSide; ++x) store(target + (y * kSide + x) * place, o[x]);
  }
}

// Tile number `tile` of all, to row `row` of the transformed data.
template <int kTile>
void transform_tile(const Conv2dProblem<float>& p, const TileGrid<kTile>& grid, int64_t tile, float* target,
                    int64_t place) {
  constexpr int kSide = kTile + 2;
  const Conv2dAxis &ys = p.axes[0], &xs = p.axes[1];
  const int64_t top = tile % grid.of_image() / grid.columns * kTile - ys.padding;
  const int64_t left = tile % grid.columns * kTile - xs.padding;
  const int64_t row = xs.input * p.channels;
  const float* origin = p.source + tile / grid.of_image() * ys.input * row + top * row + left * p.channels;
  const bool inside = top >= 0 && left >= 0 && top + kSide <= ys.input && left + kSide <= xs.input;
  int64_t c = 0;
  if (inside) {
    for (; c + kLanes<float> <= p.channels; c += kLanes<float>) {
      const float* at = origin + c;
      transform_inputs<kTile>([&](int y, int x) { return load(at + y * row + x * p.channels); }, target + c, place);
    }
  }
  for (; c < p.channels; c += kLanes<float>) {
    const int64_t lanes = least(p.channels - c, int64_t{kLanes<float>});
    const auto fetch = [&](int y, int x) __attribute__((always_inline)) {
      const bool exists = top + y >= 0 && top + y < ys.input && left + x >= 0 && left + x < xs.input;
      return exists ? load_lanes(origin + y * row + x * p.channels + c, lanes) : Line{};
    };
    transform_inputs<kTile>(fetch, target + c, place);
  }
}

// One vector of columns of a tile's products, to its results.
template <int kTile, Activation kActivation>
FASTCV_INLINE void transform_products(const float* products, int64_t place, Line bias, Line slope,
                                      const float* residual, float* target, int64_t row, int64_t pixel, int64_t height,
                                      int64_t width, int64_t lanes) {
  constexpr int kSide = kTile + 2;
  Line half[kTile][kSide];
#pragma GCC unroll 6
  for (int x = 0; x < kSide; ++x) {
    Line m[kSide], o[kTile];
#pragma GCC unroll 6
    for (int y = 0; y < kSide; ++y) m[y] = load(products + (y * kSide + x) * place);
    transform_result<kTile>(m, o);
#pragma GCC unroll 4
    for (int y = 0; y < kTile; ++y) half[y][x] = o[y];
  }
  const bool whole = height == kTile && width == kTile && lanes == kLanes<float>;
#pragma GCC unroll 4
  for (int y = 0; y < kTile; ++y) {
    Line o[kTile];
    transform_result<kTile>(half[y], o);
#pragma GCC unroll 4
    for (int x = 0; x < kTile; ++x) {
      float* at = target + y * row + x * pixel;
      Line value = o[x] + bias;
      if (whole) {
        if (residual != nullptr) value += load(residual + y * row + x * pixel);
        store(at, activate<kActivation, float>(value, slope));
      } else if (y < height && x < width) {
        if (residual != nullptr) value += load_lanes(residual + y * row + x * pixel, lanes);
        store_lanes(at, activate<kActivation, float>(value, slope), lanes);
      }
    }
  }
}

// The matrix products of all places for `count` tiles and one panel of columns, and what comes out of them.
template <int kTile, int kVectors, Activation kActivation>
void multiply_panel(const Conv2dProblem<float>& p, const TileGrid<kTile>& grid, const float* inputs, TileLayout layout,
                    int64_t first_tile, int64_t count, int64_t first, float* products) {
  constexpr int kSide = kTile + 2, kPlaces = kSide * kSide, kRows = gemm_rows_of(kVectors);
  constexpr int64_t kWidth = kVectors * kLanes<float>;
  const TileLayout out(count, kWidth);
  const float* panel = p.packed + first * kPlaces * p.channels;
  for (int place = 0; place < kPlaces; ++place) {
    const float* b = panel + place * p.channels * kWidth;
    for (int64_t m = 0; m < count; m += kRows) {
      const float* a = inputs + place * layout.place + m * layout.tile;
      gemm_tile<float, kRows, kVectors, GemmA::kSpaced>(&a, layout.tile, &b, kWidth, 1, p.channels,
                                                        products + place * out.place + m * kWidth, kWidth, count - m,
                                                        kWidth, GemmStart::kZero, nullptr);
    }
  }
  const Conv2dAxis &ys = p.axes[0], &xs = p.axes[1];
  const int64_t row = xs.output * p.columns;
  const Line slope = broadcast(p.epilogue.slope);
  for (int64_t t = 0; t < count; ++t) {
    const int64_t tile = first_tile + t;
    const int64_t y = tile % grid.of_image() / grid.columns * kTile, x = tile % grid.columns * kTile;
    const int64_t at = (tile / grid.of_image() * ys.output + y) * row + x * p.columns + first;
    const int64_t height = least(ys.output - y, int64_t{kTile}), width = least(xs.output - x, int64_t{kTile});
    for (int64_t n = 0; n < kWidth && first + n < p.columns; n += kLanes<float>) {
      const int64_t lanes = least(p.columns - first - n, int64_t{kLanes<float>});
      const Line bias = p.bias == nullptr ? Line{} : load_lanes(p.bias + first + n, lanes);
      transform_products<kTile, kActivation>(products + t * kWidth + n, out.place, bias, slope,
                                             p.residual == nullptr ? nullptr : p.residual + at + n, p.target + at + n,
                                             row, p.columns, height, width, lanes);
    }
  }
}

template <int kTile>
void multiply_panels(const Conv2dProblem<float>& p, const TileGrid<kTile>& grid, const float* inputs, TileLayout layout,
                     int64_t first_tile, int64_t count, int64_t first_panel, int64_t end_panel, float* products) {
  for (int64_t panel = first_panel; panel < end_panel; ++panel) {
    const int64_t first = panel * kPanelColumns<float>;
    dispatch_activation(p.epilogue.activation, [&](auto tag) {
      constexpr Activation kActivation = decltype(tag)::value;
      const auto run = [&](auto vectors) {
        multiply_panel<kTile, decltype(vectors)::value, kActivation>(p, grid, inputs, layout, first_tile, count, first,
                                                                     products);
      };
      switch (panel_width<float>(first, p.columns) / kLanes<float>) {
        case 1:
          run(VectorCount<1>{});
          break;
        case 2:
          run(VectorCount<2>{});
          break;
#if defined(__AVX512F__)
        case 3:
          run(VectorCount<3>{});
          break;
        default:
          run(VectorCount<4>{});
#endif
      }
    });
  }
}

template <int kTile>
void convolve_by_tiles(const Conv2dProblem<float>& p) {
  constexpr int kPlaces = (kTile + 2) * (kTile + 2);
  const TileGrid<kTile> grid(p);
  const int64_t tiles = p.batch * grid.of_image();
  const int64_t panels = ceil_div(p.columns, kPanelColumns<float>);
  constexpr int64_t most = 24, mode = 0;
  if (mode == 0) {
    const int64_t block = most, blocks = ceil_div(tiles, block);
    parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
      const TileLayout layout(block, p.channels);
      const Scratch inputs(bytes_of<float>(layout.elements(kPlaces)));
      const Scratch products(bytes_of<float>(TileLayout(block, kPanelColumns<float>).elements(kPlaces)));
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = i * block, count = least(tiles - first, block);
        for (int64_t t = 0; t < count; ++t) {
          transform_tile<kTile>(p, grid, first + t, inputs.as<float>() + t * layout.tile, layout.place);
        }
        multiply_panels<kTile>(p, grid, inputs.as<float>(), layout, first, count, 0, panels, products.as<float>());
      }
    });
  } else {
    const int64_t super = 192, block = most;
    const TileLayout layout(super, p.channels);
    const Scratch inputs(bytes_of<float>(layout.elements(kPlaces)));
    float* in = inputs.as<float>();
    for (int64_t start = 0; start < tiles; start += super) {
      const int64_t all = least(super, tiles - start), blocks = ceil_div(all, block);
      parallel_for(all, 4, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
          transform_tile<kTile>(p, grid, start + t, in + t * layout.tile, layout.place);
        }
      });
      parallel_for(blocks * panels, 1, [&](int64_t begin, int64_t end) {
        const Scratch products(bytes_of<float>(TileLayout(block, kPanelColumns<float>).elements(kPlaces)));
        for (int64_t i = begin; i < end; ++i) {
          const int64_t first = i % blocks * block, count = least(all - first, block), panel = i / blocks;
          multiply_panels<kTile>(p, grid, in + first * layout.tile, layout, start + first, count, panel, panel + 1,
                                 products.as<float>());
        }
      });
    }
  }
}

}  // namespace fastcv::FASTCV_VARIANT

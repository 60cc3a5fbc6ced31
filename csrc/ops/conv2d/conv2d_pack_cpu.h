// The weight of a convolution as the kernels read it. CPU translation units only.
#pragma once

#include "ops/conv2d/conv2d_problem_cpu.h"

namespace fastcv::FASTCV_VARIANT {

// As many groups as channels, of one channel and one column each.
inline bool is_depthwise(const Conv2dParams& p) {
  return p.groups > 1 && p.in_channels == 1 && p.out_channels == 1;
}

// Whether the direct product is one of pairs of bfloat16, where the processor has such.
inline bool serves_pairs(const Conv2dParams& p) {
  return p.tile == 0 && p.in_channels % 2 == 0 && !is_depthwise(p);
}

// Depthwise: [tap][channel].
template <class T, class S>
void pack_depthwise(const Conv2dParams& p, S* packed) {
  const int64_t taps = p.axes[0].kernel * p.axes[1].kernel;
  const T* weight = static_cast<const T*>(p.weight);
  for (int64_t c = 0; c < p.groups; ++c) {
    for (int64_t tap = 0; tap < taps; ++tap) packed[tap * p.groups + c] = to_float(weight[c * taps + tap]);
  }
}

// Each group as a matrix [tap][channel or pair] x columns, in panels.
template <class T, class E>
void pack_direct(const Conv2dParams& p, E* packed) {
  const int64_t taps = p.axes[0].kernel * p.axes[1].kernel, filter = p.in_channels * taps;
  const int64_t channels = factors_to_elements<E>(p.in_channels), depth = taps * channels;
  const T* weight = static_cast<const T*>(p.weight);
  const int64_t panels = ceil_div(p.out_channels, kPanelColumns<E>);
  constexpr int64_t kPiece = 16;
  const int64_t pieces = ceil_div(channels, kPiece);
  parallel_for(p.groups * panels * pieces, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t piece = i % pieces, panel = i / pieces % panels, group = i / pieces / panels;
      const int64_t first = panel * kPanelColumns<E>, width = panel_width<E>(first, p.out_channels);
      const int64_t count = least(p.out_channels - first, width);
      const T* source = weight + (group * p.out_channels + first) * filter;
      E* target = packed + group * packed_size<E>(depth, p.out_channels) + first * depth;
      const int64_t end_c = least(piece * kPiece + kPiece, channels);
      for (int64_t c = piece * kPiece; c < end_c; ++c) {
        for (int64_t tap = 0; tap < taps; ++tap) {
          E* row = target + (tap * channels + c) * width;
          for (int64_t n = 0; n < width; ++n) {
            row[n] = n < count ? gather_factors<E>(source + n * filter + tap, taps, c, p.in_channels) : E{};
          }
        }
      }
    }
  });
}

// ---- Winograd -------------------------------------------------------------------------------------------------------

// The matrix G of F(kTile, 3), [side][3]: as the transforms have it.
template <int kTile>
inline const double (&filter_matrix())[tile_shape(kTile).side][3] {
  if constexpr (kTile == 2) {
    static constexpr double kMatrix[4][3] = {{1, 0, 0}, {.5, .5, .5}, {.5, -.5, .5}, {0, 0, 1}};
    return kMatrix;
  } else if constexpr (kTile == 4) {
    static constexpr double kMatrix[6][3] = {{1. / 4, 0, 0},
                                             {-1. / 6, -1. / 6, -1. / 6},
                                             {-1. / 6, 1. / 6, -1. / 6},
                                             {1. / 24, 1. / 12, 1. / 6},
                                             {1. / 24, -1. / 12, 1. / 6},
                                             {0, 0, 1}};
    return kMatrix;
  } else if constexpr (kTile == kStridedTile) {
    static constexpr double kMatrix[5][3] = {{1, 0, 0}, {1, 0, 1}, {0, 0, 1}, {0, 1, 0}, {0, 1, 0}};
    return kMatrix;
  } else {
    static constexpr double kMatrix[8][3] = {{1, 0, 0},
                                             {-2. / 9, -2. / 9, -2. / 9},
                                             {-2. / 9, 2. / 9, -2. / 9},
                                             {1. / 90, 1. / 45, 2. / 45},
                                             {1. / 90, -1. / 45, 2. / 45},
                                             {1. / 45, 1. / 90, 1. / 180},
                                             {1. / 45, -1. / 90, 1. / 180},
                                             {0, 0, 1}};
    return kMatrix;
  }
}

// G g G^T of all filters g, in float64, as [panel][place][channel][column].
template <int kTile, class T>
void pack_transformed(const Conv2dParams& p, float* packed) {
  constexpr int kSide = tile_shape(kTile).side, kPlaces = kSide * kSide, kLine = 16;
  const auto& matrix = filter_matrix<kTile>();
  const int64_t filter = p.in_channels * 9;
  const int64_t panels = ceil_div(p.out_channels, kPanelColumns<float>);
  constexpr int64_t kPiece = 8;
  const int64_t pieces = ceil_div(p.in_channels, kPiece);
  parallel_for(panels * pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t piece = i % pieces, first = i / pieces * kPanelColumns<float>;
      const int64_t width = panel_width<float>(first, p.out_channels), count = least(p.out_channels - first, width);
      float* target = packed + first * kPlaces * p.in_channels;
      const int64_t end_c = least(piece * kPiece + kPiece, p.in_channels);
      for (int64_t c = piece * kPiece; c < end_c; ++c) {
        const T* source = static_cast<const T*>(p.weight) + first * filter + c * 9;
        for (int64_t n = 0; n < width; n += kLine) {
          const int lanes = static_cast<int>(least(width - n, int64_t{kLine}));
          double g[9][kLine], half[kSide * 3][kLine];
          for (int tap = 0; tap < 9; ++tap) {
            for (int j = 0; j < kLine; ++j) g[tap][j] = n + j < count ? to_float(source[(n + j) * filter + tap]) : 0;
          }
          for (int y = 0; y < kSide; ++y) {
            for (int x = 0; x < 3; ++x) {
              for (int j = 0; j < kLine; ++j) {
                half[y * 3 + x][j] = matrix[y][0] * g[x][j] + matrix[y][1] * g[3 + x][j] + matrix[y][2] * g[6 + x][j];
              }
            }
          }
          for (int place = 0; place < kPlaces; ++place) {
            const double* row = matrix[place % kSide];
            const auto* line = half + place / kSide * 3;
            float values[kLine];
            for (int j = 0; j < kLine; ++j) {
              values[j] = static_cast<float>(row[0] * line[0][j] + row[1] * line[1][j] + row[2] * line[2][j]);
            }
            __builtin_memcpy(target + (place * p.in_channels + c) * width + n, values, lanes * sizeof(float));
          }
        }
      }
    }
  });
}

}  // namespace fastcv::FASTCV_VARIANT

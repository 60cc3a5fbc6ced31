// Convolution in two dimensions, for inference: with bias, an addition and an activation on the way out.
//
//   input     (N, C, H, W)             contiguous, or channels innermost
//   weight    (O, C / groups, KH, KW)  contiguous
//   bias      (O,)                     in the dtype that sums are kept in
//   residual  (N, O, H', W')           in the layout of output, which it may be, where conv2d_takes_over; or smaller maps,
//                                      (N, O, residual_size), whose nearest pixels are added
//   output    (N, O, H', W')           contiguous, or channels innermost
//
//   output[o, i] = activation(bias[o] + sum over c, k of weight[o, c, k] * input[c, i * stride - padding + k * dilation]
//                             + residual[o, i])
//
// with zeros for what lies outside input. Products are taken in one of these ways ("tile"):
//
//   0  directly: tap by tap, channels ascending
//   2, 4, 6  kernels of 3 x 3, stride and dilation 1, one group, float32 sums: Winograd's minimal filtering F(tile x
//            tile, 3 x 3) (Winograd 1980; Lavin and Gray 2016, "Fast algorithms for convolutional neural networks"),
//            which takes (tile + 2)^2 products for tile^2 results where the direct sum takes 9 tile^2: 2.25, 4 and 5.06
//            times fewer. The packed weight is 1.8, 4 and 7.1 times as large
//
//   22  the same of stride 2, 2 x 2 results: of the even inputs along an axis, which two of three taps meet, F(2, 2), of
//       the odd ones products as they are. That takes 25 products where the direct sum takes 36, and no factors but 1 and
//       -1, so errors are those of the direct sum. The packed weight is 2.8 times as large
//
// conv2d_pack writes the weight as conv2d_forward reads it for a tile: panels of columns of the instruction set in use.
// On CUDA the binding asks torch for everything: there is no kernel.
#pragma once

#include "core/cpu_variants.h"
#include "core/epilogue.h"
#include "core/types.h"

namespace fastcv {

struct Conv2dAxis {
  int64_t input, output, kernel;      // sizes
  int64_t stride, padding, dilation;  // padding: before the first pixel
};

struct Conv2dParams {
  const void* input;
  const void* weight;
  const void* bias;          // null: none
  const void* residual;      // null: none
  int64_t residual_size[2];  // y, x
  const void* packed;        // the weight as conv2d_pack writes it; null: pack it on the way
  void* output;              // of conv2d_pack: the packed weight
  DType dtype;
  int tile;
  int64_t batch, groups;
  int64_t in_channels, out_channels;  // of one group
  Conv2dAxis axes[2];                 // y, x
  bool input_channels_last, output_channels_last;
  Activation activation;
  double negative_slope;
};

constexpr int kStridedTile = 22;
constexpr int kTiles[] = {2, 4, 6, kStridedTile};

namespace FASTCV_VARIANT {

// Along one axis: results and inputs (as many as products) of a tile, and inputs from one tile to the next.
struct TileShape {
  int results, side, step;
};
constexpr TileShape tile_shape(int tile) {
  return tile == kStridedTile ? TileShape{2, 5, 4} : TileShape{tile, tile + 2, tile};
}

// Elements of a packed weight of any instruction set: columns rounded up to the widest vector.
inline int64_t conv2d_packed_elements(const Conv2dParams& p, int tile) {
  const int64_t taps = tile == 0 ? p.axes[0].kernel * p.axes[1].kernel : tile_shape(tile).side * tile_shape(tile).side;
  const int64_t columns =
      (p.groups > 1 && p.in_channels == 1 && p.out_channels == 1 ? 1 : (p.out_channels + 15) / 16 * 16);
  return p.groups * taps * p.in_channels * columns;
}

// Whether a tile other than 0 serves at all. That of stride 2 saves less than products of pairs of bfloat16.
inline bool conv2d_may_tile(const Conv2dParams& p, int tile) {
  const int64_t stride = tile == kStridedTile ? 2 : 1;
  bool fits = p.groups == 1 && p.dtype != DType::kFloat64 && (stride == 1 || p.dtype != DType::kBFloat16);
  for (const Conv2dAxis& axis : p.axes) fits = fits && axis.kernel == 3 && axis.stride == stride && axis.dilation == 1;
  return fits;
}

// Whether residual may be output, or smaller than it: where sums are not kept in output before they are finished.
inline bool conv2d_takes_over(const Conv2dParams& p) {
  const bool depthwise = p.groups > 1 && p.in_channels == 1 && p.out_channels == 1;
  const bool whole = p.residual_size[0] == p.axes[0].output && p.residual_size[1] == p.axes[1].output;
  return p.input_channels_last && p.output_channels_last && !depthwise && (whole || p.tile == 0) &&
         (p.dtype == DType::kFloat32 || p.dtype == DType::kFloat64);
}

// What a convolution costs with a tile, in cycles of a core that takes 16 products per cycle and reads packed weights
// from memory with 6 bytes per cycle. Per place of a tile, transforms take about 13 cycles for a vector of channels and
// 16 for one of columns, with tiles of 6, which do not stay in registers, 15 and 24; and filters that are transformed on
// the way 8 for a channel and a vector of columns. These numbers were measured on one core of Zen 4, whose times are
// within 30 % of the model from 16 to 512 channels and from 7 x 7 to 416 x 416 pixels.
inline double conv2d_cost(const Conv2dParams& p, int tile, bool is_packed) {
  const double lanes = 16, bytes_per_cycle = 6;
  const double depth = static_cast<double>(p.in_channels), columns = static_cast<double>((p.out_channels + 15) / 16);
  if (tile == 0) {
    const double pixels = static_cast<double>(p.batch * p.axes[0].output * p.axes[1].output);
    const double products = pixels * 9 * depth * columns, bytes = 9 * depth * columns * lanes * 4;
    return products > bytes / bytes_per_cycle ? products : bytes / bytes_per_cycle;
  }
  const TileShape shape = tile_shape(tile);
  const int64_t down = (p.axes[0].output + shape.results - 1) / shape.results;
  const double tiles = static_cast<double>(p.batch * down * ((p.axes[1].output + shape.results - 1) / shape.results));
  const double places = shape.side * shape.side, vectors = static_cast<double>((p.in_channels + 15) / 16);
  const double rows = tiles < 6 ? 6 : tiles;  // of a matrix product: not fewer than one block
  const double products = rows * places * depth * columns, bytes = places * depth * columns * lanes * 4;
  const double transforms = tiles * places * (tile != 6 ? 13 * vectors + 16 * columns : 15 * vectors + 24 * columns);
  const double packing = is_packed ? 0 : 8 * places * depth * columns;
  return (products > bytes / bytes_per_cycle ? products : bytes / bytes_per_cycle) + transforms + packing;
}

// The cheapest tile. Tiles of 6 and of stride 2 have to save a cycle for each byte by which their packed weight is
// larger: that keeps tiles of 6, in a ResNet-50 with a feature pyramid, to the large maps, where they take 0.87 of the
// time of tiles of 4; for 5 % of the time of the smaller ones the weights of the network would grow by 100 MB.
inline int conv2d_choose_tile(const Conv2dParams& p, bool exact, bool is_packed) {
  if (exact) return 0;
  int best = 0;
  double least_cost = conv2d_cost(p, 0, is_packed);
  for (const int tile : kTiles) {
    if (!conv2d_may_tile(p, tile)) continue;
    double cost = conv2d_cost(p, tile, is_packed);
    if (tile > 4) {
      cost += 4.0 * static_cast<double>(conv2d_packed_elements(p, tile) - conv2d_packed_elements(p, best));
    }
    if (cost < least_cost) best = tile, least_cost = cost;
  }
  return best;
}

}  // namespace FASTCV_VARIANT

FASTCV_DECLARE_KERNEL(conv2d_pack, Conv2dParams);
FASTCV_DECLARE_KERNEL(conv2d_forward, Conv2dParams);

}  // namespace fastcv

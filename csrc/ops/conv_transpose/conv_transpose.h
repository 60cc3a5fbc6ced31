// Transposed convolution in one, two or three dimensions (Dumoulin and Visin 2016, "A guide to convolution arithmetic
// for deep learning", chapter 4; the in-network upsampling of Long, Shelhamer and Darrell 2015), and its two
// derivatives.
//
//   input   (N, C, Z, Y, X)          contiguous, or channels innermost
//   weight  (C, O / groups, KZ, KY, KX)   contiguous
//   output  (N, O, Z', Y', X')       contiguous, or channels innermost
//   bias    (O,)                     in the dtype that sums are kept in; contiguous
//
// Every input site spreads the kernel over the output: along each axis
//
//   output[o, i * stride - padding + k * dilation] += input[c, i] * weight[c, o, k]
//
// In one and two dimensions the missing axes come first and have size one. The three kernels are the three ways to
// differentiate the same trilinear form: given two of input, weight and output, they compute the third,
//
//   conv_transpose_forward          output from input and weight, plus bias, and max(0, .) where `relu`
//   conv_transpose_backward_input   input from output and weight: an ordinary convolution
//   conv_transpose_backward_weight  weight from input and output
//
// so the derivatives of each are the other two. Sums run in a fixed order: tap by tap, channels ascending. A fourth,
// conv_transpose_pack, writes the weight as the first two read it: in panels of the instruction set on the CPU, as
// [group][tap][column][depth] on CUDA. Depth is what is summed over: input channels for the output, output channels for
// the gradient of the input; columns are the others.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"

namespace fastcv {

struct ConvAxis {
  int64_t input, output, kernel;  // sizes
  int64_t stride, padding, dilation;
};

struct ConvTransposeParams {
  void* input;
  void* weight;
  void* output;
  const void* bias;    // null: none
  void* packed;        // the weight as conv_transpose_pack writes it; on the CPU null means: pack it on the way
  bool packs_forward;  // conv_transpose_pack: for the output, or for the gradient of the input
  void* workspace;     // CUDA: conv_weight_pieces() times the elements of the weight, in the type of the sums
  DType dtype;
  bool relu;
  bool tf32;  // CUDA: whether float32 may be rounded to 10 bits of mantissa for tensor cores
  int64_t batch, groups;
  int64_t in_channels, out_channels;  // of one group
  ConvAxis axes[3];                   // z, y, x
  bool input_channels_last, output_channels_last;
};

// Room for a packed weight of any layout: columns rounded up to the widest vector, in the type of the sums.
inline int64_t packed_bytes(DType dtype, int64_t groups, int64_t taps, int64_t depth, int64_t columns) {
  const int64_t size = dtype == DType::kFloat64 ? 8 : 4;
  return groups * taps * depth * ((columns + 15) / 16 * 16) * size;
}

// Into how many pieces the CUDA kernels cut the pixels whose products make the gradient of the weight: blocks for a
// large GPU, but at least 512 pixels each.
inline int64_t conv_weight_pieces(const ConvTransposeParams& p) {
  constexpr int64_t kTile = 64, kBlocks = 512, kPixels = 512;
  int64_t tiles = p.groups * ((p.in_channels + kTile - 1) / kTile) * ((p.out_channels + kTile - 1) / kTile);
  int64_t pixels = p.batch;
  for (const ConvAxis& axis : p.axes) {
    tiles *= axis.kernel;
    pixels *= axis.input;
  }
  if (tiles == 0) return 1;
  const int64_t wanted = (kBlocks + tiles - 1) / tiles, most = (pixels + kPixels - 1) / kPixels;
  const int64_t pieces = wanted < most ? wanted : most;
  return pieces < 1 ? 1 : pieces;
}

FASTCV_DECLARE_KERNEL(conv_transpose_pack, ConvTransposeParams);
FASTCV_DECLARE_KERNEL(conv_transpose_forward, ConvTransposeParams);
FASTCV_DECLARE_KERNEL(conv_transpose_backward_input, ConvTransposeParams);
FASTCV_DECLARE_KERNEL(conv_transpose_backward_weight, ConvTransposeParams);

}  // namespace fastcv

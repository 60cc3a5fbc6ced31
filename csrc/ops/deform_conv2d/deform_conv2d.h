// Deformable convolution: Dai et al. 2017, "Deformable Convolutional Networks" (v1), and with a mask Zhu et al. 2019,
// "Deformable ConvNets v2". Every element of the kernel reads the input not on the grid but at a place that `offset`
// moves, for each output position anew, by bilinear interpolation.
//
//   input    (N, C, H, W)                 contiguous, or channels innermost
//   offset   (N, D * K * 2, P)            contiguous: for each offset group d and kernel element k, y then x
//   mask     (N, D * K, P)                contiguous, or null: ones
//   weight   (O, C / G, K)                contiguous
//   bias     (O,)                         in the dtype that sums are kept in, or null
//   output   (N, O, P)                    contiguous, or channels innermost
//
// with K = KH * KW kernel elements (taps) and P = H' * W' output positions. With o(c), the offset group of channel c,
//
//   column[n, p, k, c] = mask[n, o(c), k, p] * sample of input[n, c] at (y, x)
//   y = p_y * stride - padding + k_y * dilation + offset[n, o(c), k, 0, p],  x alike
//   output[n, :, p] = bias + sum_k sum_c  weight[:, c, k] column[n, p, k, c]      within each of the G groups of channels
//
// A place with -1 < y < H and -1 < x < W is inside; its sample is the bilinear mean of the four pixels around it, of
// which those outside the map count as zeros. Everywhere else, and for an offset that is not finite, the sample is 0.
// The gradient to an offset is that towards larger values: at y = -1 already, and at a pixel that of the side below it.
//
// No column is stored on the CPU beyond a block that stays in the cache. Sums run in an order that depends on the shapes
// alone. Halves are computed in float32, coordinates too.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"

namespace fastcv {

struct DeformAxis {
  int64_t input, output, kernel;  // sizes
  int64_t stride, padding, dilation;
};

// What forward and backward share.
struct DeformGeometry {
  const void* input;
  const void* offset;
  const void* mask;
  DType dtype;
  int64_t batch, groups, offset_groups;
  int64_t in_channels, out_channels;  // C, O: all groups
  DeformAxis y, x;
  bool input_channels_last, output_channels_last;

  FASTCV_HD int64_t taps() const { return y.kernel * x.kernel; }
  FASTCV_HD int64_t pixels() const { return y.input * x.input; }
  FASTCV_HD int64_t positions() const { return y.output * x.output; }
};

struct DeformConv2dParams {
  DeformGeometry geometry;
  const void* weight;
  const void* bias;
  void* output;
};

// What a launch of the backward does on CUDA, where torch sorts between the two. The CPU does all at once.
enum class DeformStep { kKeys, kGradients };

// A gradient that is null is not computed.
struct DeformConv2dBackwardParams {
  DeformGeometry geometry;
  const void* weight;
  const void* grad_output;  // the layout that geometry.output_channels_last says
  void* grad_input;         // geometry.input_channels_last
  void* grad_offset;
  void* grad_mask;
  void* grad_weight;
  // CUDA, see deform_conv2d_cuda.cu
  DeformStep step;
  int64_t* keys;               // one for each sample (n, d, k, p): the cell it lies in
  const int64_t* sorted_keys;  // ascending, and the samples they belong to
  const int64_t* samples;
  void* columns;  // gradients of the columns (N, P, K, C), of the accumulating dtype
  void* pieces;   // deform_weight_pieces() times the elements of the weight, of that dtype
};

FASTCV_DECLARE_KERNEL(deform_conv2d, DeformConv2dParams);
FASTCV_DECLARE_KERNEL(deform_conv2d_backward, DeformConv2dBackwardParams);

// Into how many pieces the CUDA kernels cut the positions whose products make the gradient of the weight: blocks for a
// large GPU, but at least 512 positions each.
inline int64_t deform_weight_pieces(const DeformGeometry& g) {
  constexpr int64_t kTile = 64, kBlocks = 512, kPositions = 512;
  if (g.groups < 1 || g.in_channels < 1 || g.out_channels < 1) return 1;
  const int64_t tiles = g.groups * g.taps() * ((g.in_channels / g.groups + kTile - 1) / kTile) *
                        ((g.out_channels / g.groups + kTile - 1) / kTile);
  const int64_t wanted = (kBlocks + tiles - 1) / tiles;
  const int64_t most = (g.batch * g.positions() + kPositions - 1) / kPositions;
  const int64_t pieces = wanted < most ? wanted : most;
  return pieces < 1 ? 1 : pieces;
}

}  // namespace fastcv

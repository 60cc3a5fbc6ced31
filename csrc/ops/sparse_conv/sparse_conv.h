// Sparse convolution over a kernel map (Graham, Engelcke, van der Maaten 2018, section 3; see sparse_kernel_map.h).
//
//   input       (N, G * C_in)     features of the input sites; contiguous
//   weight      (G * C_out, K, C_in)  any strides
//   bias        (G * C_out,)      contiguous, or null
//   neighbours  (K, M)            int32: the row of `input` that feeds output m through kernel element k, or less
//                                than 0
//   output      (M, G * C_out)    contiguous
//
//   output[m] = bias + sum_k  weight[:, k, :] input[neighbours[k, m]]      within each of the G groups of channels
//
// The gradient to the input is the same over the reverse map with the weight's channels exchanged, which its strides
// can say. The gradient to the weight is
//
//   grad_weight[:, k, :] = sum_m  grad_output[m] (x) input[neighbours[k, m]]
//
// summed in pieces of output rows whose bounds depend on the shapes alone, the pieces in ascending order. Halves
// accumulate in float32. A neighbour of N or more is a ValueError on the CPU; on CUDA it feeds nothing.
//
// For inference a residual and an activation follow the sums, and two inputs may stand for one with the channels of both:
// what networks join is never copied. The weight can be packed once, for many calls. On CUDA torch does the same.
#pragma once

#include "core/cpu_variants.h"
#include "core/epilogue.h"
#include "core/types.h"

namespace fastcv {

struct SparseConvParams {
  const void* input;
  const void* weight;  // that of group g, output channel o, kernel element k, input channel i lies at
  int64_t group_stride, out_stride, element_stride, in_stride;  // g * group_stride + o * out_stride + ...
  const void* bias;
  const int32_t* neighbours;
  const int32_t* order;  // (M,) CUDA: the order of rows in tiles, a permutation, or null; no sum depends on it
  void* output;
  DType dtype;
  bool tf32;  // CUDA: whether float32 may be rounded to 10 bits of mantissa for tensor cores
  int64_t inputs, outputs, volume, groups;  // N, M, K, G
  int64_t in_channels, out_channels;        // of one group
};

// For inference, on the CPU alone.
struct SparseConvInferenceParams {
  SparseConvParams conv;
  const void* beside;    // (N, C_in), whose channels follow those of `input` in the weight; or null. One group
  const void* packed;    // the weight as sparse_conv_pack writes it, or null: it is packed on the way
  const void* residual;  // (M, G * C_out), added before the activation, or null
  Activation activation;
  double negative_slope;
};

struct SparseConvWeightParams {
  const void* input;
  const void* grad_output;
  const int32_t* neighbours;
  void* grad_weight;  // (G * C_out, K, C_in), contiguous
  DType dtype;
  bool tf32;
  int64_t inputs, outputs, volume, groups;
  int64_t in_channels, out_channels;
  void* workspace;  // CUDA: sparse_conv_weight_workspace_bytes() for each element of grad_weight
};

FASTCV_DECLARE_KERNEL(sparse_conv, SparseConvParams);
FASTCV_DECLARE_KERNEL(sparse_conv_inference, SparseConvInferenceParams);
FASTCV_DECLARE_KERNEL(sparse_conv_pack, SparseConvInferenceParams);  // the weight, to `output`
FASTCV_DECLARE_KERNEL(sparse_conv_weight, SparseConvWeightParams);

namespace FASTCV_VARIANT {

// Into how many pieces the output rows are cut, each of at least one row.
FASTCV_HD int64_t weight_gradient_pieces(int64_t outputs) {
  const int64_t pieces = ceil_div(outputs, 8192);
  return pieces < 1 ? 1 : least(pieces, 16);
}

// The parts of the weight's input channels: two for two inputs.
inline int64_t sparse_conv_parts(const SparseConvInferenceParams& p) {
  return p.beside == nullptr ? 1 : 2;
}

// Bytes of a packed weight of any instruction set: columns rounded up to the widest vector.
inline int64_t sparse_conv_packed_bytes(int64_t groups, int64_t volume, int64_t in_channels, int64_t out_channels,
                                        int64_t accumulate_bytes) {
  return groups * volume * in_channels * ((out_channels + 15) / 16 * 16) * accumulate_bytes;
}

}  // namespace FASTCV_VARIANT

// For each element of grad_weight: one of the accumulating dtype for each piece.
inline int64_t sparse_conv_weight_workspace_bytes(int64_t outputs, int64_t accumulate_bytes) {
  return FASTCV_VARIANT::weight_gradient_pieces(outputs) * accumulate_bytes;
}

}  // namespace fastcv

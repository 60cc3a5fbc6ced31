// The kernel map of a sparse 3-D convolution (Graham, van der Maaten 2017, "Submanifold Sparse Convolutional Networks";
// the layout of Yan et al. 2018, "SECOND", section 3.1.3): which input site feeds which output site through which
// element of the kernel.
//
//   indices      (N, 4)  int32: batch, z, y, x of each active input site; no two alike; contiguous
//   out_indices  (M, 4)  int32: the active output sites in ascending order of batch, z, y, x
//   neighbours   (K, M)  int32: the row of `indices` that feeds output m through kernel element k, or -1
//   reverse      (K, N)  int32: the row of `out_indices` that input n feeds through kernel element k, or -1
//
// K is the number of kernel elements, k = (kz * KY + ky) * KX + kx. A site is active in the output when any input site
// feeds it. Along each axis
//
//   convolution             input  = output * stride - padding + k * dilation
//   transposed convolution  output = input  * stride - padding + k * dilation
//
// A submanifold map has the input's sites as its outputs, in the same order, with stride 1 and padding (k / 2) *
// dilation: only neighbours and reverse are written. With odd kernels reverse[k] is neighbours[K - 1 - k].
//
// A site is known by its key, in which batch, z, y and x are fields of as many bits as their sizes need (kMaxKeyBits
// together), so that keys ascend as sites do and a step along an axis is an addition.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"

namespace fastcv {

constexpr int kMaxKeyBits = 62;
constexpr int64_t kMaxKernelVolume = 32768;
constexpr int64_t kMaxSparseExtent = int64_t{1} << 30;  // of strides, padding, and kernel times dilation

struct SparseAxis {
  int64_t in_size, out_size;
  int32_t kernel, stride, padding, dilation;
  int32_t in_shift, out_shift;  // where the axis' field begins in a key of an input and of an output site
  int32_t stride_bits;          // log2 of the stride, or -1 when it is no power of two
};

// Where the CPU kernel writes, asked for once the number of output sites is known.
struct SparseMapOutputs {
  int32_t* out_indices;
  int32_t* neighbours;
  int32_t* reverse;
};

// The CPU does everything at once. On CUDA the caller sorts and allocates between the steps.
enum class SparseMapStep {
  kInsert,   // (N): checks the input sites and enters them into the table, `table_values` their rows
  kMirror,   // (N): submanifold: fills neighbours, and reverse unless it is null, both -1 before
  kSpread,   // (N, K): enters the keys of all output sites into the table
  kCompact,  // (slots): writes the keys in the table to out_keys[places[slot] - 1]
  kNumber,   // (M): decodes the sorted out_keys to out_indices and sets their table_values
  kLink      // (N, K): fills neighbours, -1 before, and reverse
};

struct SparseMapParams {
  const int32_t* indices;
  int64_t sites;  // N
  int64_t batch_size;
  SparseAxis axes[3];  // z, y, x
  int32_t in_batch_shift, out_batch_shift;
  bool submanifold, transposed;

  // CPU
  SparseMapOutputs (*allocate)(void* context, int64_t outputs);
  void* context;

  // CUDA
  SparseMapStep step;
  int64_t outputs;  // M
  SparseMapOutputs out;
  uint64_t* table_keys;  // `slots` of them, a power of two; kEmptySlot where there is none
  int32_t* table_values;
  int64_t slots;
  uint64_t* status;  // [0] the first row that lies outside, [1] the least key that comes twice; ~0 where there is none
  uint64_t* out_keys;
  const int32_t* places;  // inclusive prefix sum over the slots in use
};

FASTCV_DECLARE_KERNEL(sparse_kernel_map, SparseMapParams);

namespace FASTCV_VARIANT {

// The output coordinate that an input coordinate feeds through element k of the axis; false when there is none.
FASTCV_HD bool output_coordinate(const SparseAxis& axis, bool transposed, int32_t input, int32_t k, int32_t& output) {
  if (transposed) {
    const int64_t value =
        static_cast<int64_t>(input) * axis.stride - axis.padding + static_cast<int64_t>(k) * axis.dilation;
    output = static_cast<int32_t>(value);
    return value >= 0 && value < axis.out_size;
  }
  const int64_t value = static_cast<int64_t>(input) + axis.padding - static_cast<int64_t>(k) * axis.dilation;
  if (value < 0) return false;
  const uint32_t distance = static_cast<uint32_t>(value);  // below 2^31 + 2^30
  if (axis.stride_bits >= 0) {
    const uint32_t quotient = distance >> axis.stride_bits;
    output = static_cast<int32_t>(quotient);
    return quotient << axis.stride_bits == distance && quotient < static_cast<uint32_t>(axis.out_size);
  }
  const uint32_t quotient = distance / static_cast<uint32_t>(axis.stride);
  output = static_cast<int32_t>(quotient);
  return quotient * static_cast<uint32_t>(axis.stride) == distance && quotient < static_cast<uint32_t>(axis.out_size);
}

FASTCV_HD bool is_inside(const SparseMapParams& p, const int32_t* site) {
  return site[0] >= 0 && site[0] < p.batch_size && site[1] >= 0 && site[1] < p.axes[0].in_size && site[2] >= 0 &&
         site[2] < p.axes[1].in_size && site[3] >= 0 && site[3] < p.axes[2].in_size;
}

FASTCV_HD uint64_t input_key(const SparseMapParams& p, int32_t b, int32_t z, int32_t y, int32_t x) {
  return (static_cast<uint64_t>(b) << p.in_batch_shift) | (static_cast<uint64_t>(z) << p.axes[0].in_shift) |
         (static_cast<uint64_t>(y) << p.axes[1].in_shift) | static_cast<uint64_t>(x);
}

FASTCV_HD uint64_t output_key(const SparseMapParams& p, int32_t b, int32_t z, int32_t y, int32_t x) {
  return (static_cast<uint64_t>(b) << p.out_batch_shift) | (static_cast<uint64_t>(z) << p.axes[0].out_shift) |
         (static_cast<uint64_t>(y) << p.axes[1].out_shift) | static_cast<uint64_t>(x);
}

// Writes batch, z, y, x of an output site.
FASTCV_HD void decode_output(const SparseMapParams& p, uint64_t key, int32_t* site) {
  const int shifts[4] = {p.out_batch_shift, p.axes[0].out_shift, p.axes[1].out_shift, 0};
  for (int i = 0; i < 4; ++i) {
    site[i] = static_cast<int32_t>(key >> shifts[i]);
    key -= static_cast<uint64_t>(site[i]) << shifts[i];
  }
}

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

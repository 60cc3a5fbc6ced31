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
// A submanifold map has the input's sites as its outputs, in the same order, with stride 1 and padding (kernel / 2) *
// dilation: only neighbours and reverse are written. With odd K it is its own mirror image:
// reverse[k] is neighbours[K - 1 - k].
//
// A site is known by its key, in which batch, z, y and x are fields of as many bits as their sizes need (kMaxKeyBits
// together), so that keys ascend as sites do and a step along an axis is an addition.
#pragma once

#include "core/cpu_variants.h"
#include "core/errors.h"
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

// How a kernel moves over a batch of grids. The binding reads it from its arguments; nothing else is told of it.
struct SparseGeometry {
  SparseAxis axes[3];  // z, y, x
  int64_t batch_size;
  int64_t volume;  // K
  int32_t in_batch_shift, out_batch_shift;
  bool submanifold, transposed;
};

// The map is made in steps. Between them the binding allocates, and for CUDA it asks torch for sums and sorts.
enum class SparseMapStep {
  kSubmanifold,  // writes neighbours, and reverse unless it is null; for CUDA both are -1 before
  kFind,         // all others: finds the output sites, into `work` on the CPU, on CUDA into `output_table`
  kCompact,      // CUDA: writes the keys in the table to out_keys[places[slot] - 1]
  kLink,         // writes out_indices, neighbours (for CUDA -1 before), and reverse unless it is null
  kReverse       // reads neighbours, any (K, M), and writes reverse (K, N) (for CUDA -1 before); of the rest only sizes
};

// What the CPU kernel keeps from kFind to kLink. Whoever holds it calls `release`, once.
struct SparseMapWork {
  void* state;  // null: nothing to release
  void (*release)(void* state);
  int64_t outputs;  // M
};

// A hash table of sites in device memory, see core/cuda/hash.cuh.
struct SparseTable {
  uint64_t* keys;  // `slots` of them, ~0 where there is none
  int32_t* values;
  int64_t slots;
};

struct SparseMapParams : SparseGeometry {
  SparseMapStep step;
  const int32_t* indices;
  int64_t sites, outputs;  // N, M
  int32_t* out_indices;
  int32_t* neighbours;
  int32_t* reverse;

  // CPU
  SparseMapWork* work;

  // CUDA
  SparseTable input_table;   // values: the row of each input site
  SparseTable output_table;  // values: the row of each output site
  uint64_t* status;          // [0] the first row that lies outside, [1] the least key that comes twice; ~0: none
  uint64_t* out_keys;        // (M,) in ascending order, but as kCompact writes them
  const int32_t* places;     // inclusive prefix sum over the slots in use
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

// How many output coordinates an input coordinate feeds at most.
FASTCV_HD int64_t most_outputs(const SparseAxis& axis, bool transposed) {
  if (transposed) return axis.kernel;
  int32_t a = axis.stride, b = axis.dilation;  // two elements that feed something are stride / gcd apart
  while (b != 0) {
    const int32_t rest = a % b;
    a = b;
    b = rest;
  }
  const int32_t apart = axis.stride / a;
  return (axis.kernel + apart - 1) / apart;
}

FASTCV_HD bool is_inside(const SparseGeometry& g, const int32_t* site) {
  return site[0] >= 0 && site[0] < g.batch_size && site[1] >= 0 && site[1] < g.axes[0].in_size && site[2] >= 0 &&
         site[2] < g.axes[1].in_size && site[3] >= 0 && site[3] < g.axes[2].in_size;
}

FASTCV_HD uint64_t input_key(const SparseGeometry& g, int32_t b, int32_t z, int32_t y, int32_t x) {
  return (static_cast<uint64_t>(b) << g.in_batch_shift) | (static_cast<uint64_t>(z) << g.axes[0].in_shift) |
         (static_cast<uint64_t>(y) << g.axes[1].in_shift) | static_cast<uint64_t>(x);
}

FASTCV_HD uint64_t output_key(const SparseGeometry& g, int32_t b, int32_t z, int32_t y, int32_t x) {
  return (static_cast<uint64_t>(b) << g.out_batch_shift) | (static_cast<uint64_t>(z) << g.axes[0].out_shift) |
         (static_cast<uint64_t>(y) << g.axes[1].out_shift) | static_cast<uint64_t>(x);
}

// Writes batch, z, y, x of a key whose fields begin there, that of x at 0.
FASTCV_HD void decode_key(uint64_t key, int batch_shift, int z_shift, int y_shift, int32_t* site) {
  const int shifts[4] = {batch_shift, z_shift, y_shift, 0};
  for (int i = 0; i < 4; ++i) {
    site[i] = static_cast<int32_t>(key >> shifts[i]);
    key -= static_cast<uint64_t>(site[i]) << shifts[i];
  }
}

FASTCV_HD void decode_output(const SparseGeometry& g, uint64_t key, int32_t* site) {
  decode_key(key, g.out_batch_shift, g.axes[0].out_shift, g.axes[1].out_shift, site);
}

// For the CPU kernel, and for the binding that reads `status`.
[[noreturn]] inline void throw_outside(const SparseGeometry& g, const int32_t* site, int64_t row) {
  throw_value_error("indices must be at least 0 and below (%lld, %lld, %lld, %lld), got (%d, %d, %d, %d) in row %lld",
                    static_cast<long long>(g.batch_size), static_cast<long long>(g.axes[0].in_size),
                    static_cast<long long>(g.axes[1].in_size), static_cast<long long>(g.axes[2].in_size), site[0],
                    site[1], site[2], site[3], static_cast<long long>(row));
}

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

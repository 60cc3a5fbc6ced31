// The kernel map on CUDA, in steps between which the binding sorts and allocates. See sparse_kernel_map.h.
//
//   submanifold   insert, mirror
//   all others    insert (into a table of its own, to find duplicates) and spread; compact the table; sort its keys;
//                 number and link
//
// Every kernel has one thread per site, per pair of site and kernel element, or per slot. Where a key lands in the
// table depends on the order of arrival, but tables are only asked whether a key is there and what its value is, and
// every entry of a map is written by the one pair of sites it stands for: the result is the same every time.
//
// Napkin maths, submanifold 3 x 3 x 3, 120 000 sites on an H200: 13 probes of 12 bytes per site fall into 32-byte
// sectors, 50 MB out of L2 (the table has 3 MB), and the map has 13 MB: 15 us.
#include "core/cuda/hash.cuh"
#include "core/cuda/launch.cuh"
#include "ops/sparse_kernel_map/sparse_kernel_map.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kBlockSize = 256;

struct KernelElement {
  int32_t z, y, x;
};

__device__ __forceinline__ KernelElement element_of(const SparseMapParams& p, int32_t k) {
  const int32_t kx = p.axes[2].kernel, ky = p.axes[1].kernel;
  const int32_t row = k / kx;
  return {row / ky, row % ky, k % kx};
}

__device__ __forceinline__ int64_t thread_index() {
  return static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
}

// The output site that an input site feeds through a kernel element.
__device__ __forceinline__ bool fed_key(const SparseMapParams& p, const int32_t* site, KernelElement k, uint64_t& key) {
  int32_t z, y, x;
  if (!output_coordinate(p.axes[0], p.transposed, site[1], k.z, z)) return false;
  if (!output_coordinate(p.axes[1], p.transposed, site[2], k.y, y)) return false;
  if (!output_coordinate(p.axes[2], p.transposed, site[3], k.x, x)) return false;
  key = output_key(p, site[0], z, y, x);
  return true;
}

__global__ void __launch_bounds__(kBlockSize, 2) insert_kernel(const SparseMapParams p) {
  const int64_t n = thread_index();
  if (n >= p.sites) return;
  const int32_t* site = p.indices + 4 * n;
  if (!is_inside(p, site)) {
    atomic_min(&p.status[0], static_cast<uint64_t>(n));
    return;
  }
  const uint64_t key = input_key(p, site[0], site[1], site[2], site[3]);
  bool inserted;
  const uint64_t slot = hash_insert(p.input_table.keys, static_cast<uint64_t>(p.input_table.slots), key, inserted);
  if (inserted) {
    p.input_table.values[slot] = static_cast<int32_t>(n);
  } else {
    atomic_min(&p.status[1], key);
  }
}

// Of an odd kernel whose reverse is not wanted, the first half of the elements serves the other half as well.
__global__ void __launch_bounds__(kBlockSize, 2) mirror_kernel(const SparseMapParams p, int32_t volume) {
  const int64_t n = thread_index();
  if (n >= p.sites) return;
  const int32_t* site = p.indices + 4 * n;
  for (int32_t k = static_cast<int32_t>(blockIdx.y); k < volume; k += static_cast<int32_t>(gridDim.y)) {
    const bool mirrors = p.reverse == nullptr && volume % 2 == 1;
    if (mirrors && 2 * k + 1 > volume) return;
    int32_t* there = p.neighbours + k * p.outputs;
    if (mirrors && 2 * k + 1 == volume) {
      there[n] = static_cast<int32_t>(n);
      return;
    }
    const KernelElement element = element_of(p, k);
    const int64_t z =
        static_cast<int64_t>(site[1]) - p.axes[0].padding + static_cast<int64_t>(element.z) * p.axes[0].dilation;
    const int64_t y =
        static_cast<int64_t>(site[2]) - p.axes[1].padding + static_cast<int64_t>(element.y) * p.axes[1].dilation;
    const int64_t x =
        static_cast<int64_t>(site[3]) - p.axes[2].padding + static_cast<int64_t>(element.x) * p.axes[2].dilation;
    if (z < 0 || z >= p.axes[0].in_size || y < 0 || y >= p.axes[1].in_size || x < 0 || x >= p.axes[2].in_size) continue;
    const uint64_t key =
        input_key(p, site[0], static_cast<int32_t>(z), static_cast<int32_t>(y), static_cast<int32_t>(x));
    const uint64_t slot = hash_find(p.input_table.keys, static_cast<uint64_t>(p.input_table.slots), key);
    if (slot == kEmptySlot) continue;
    const int32_t found = p.input_table.values[slot];
    there[n] = found;
    if (mirrors) {
      p.neighbours[(volume - 1 - k) * p.outputs + found] = static_cast<int32_t>(n);
    } else if (p.reverse != nullptr) {
      p.reverse[k * p.sites + found] = static_cast<int32_t>(n);
    }
  }
}

__global__ void __launch_bounds__(kBlockSize, 2) spread_kernel(const SparseMapParams p, int32_t volume) {
  const int64_t n = thread_index();
  if (n >= p.sites) return;
  const int32_t* site = p.indices + 4 * n;
  if (!is_inside(p, site)) return;  // has been reported
  for (int32_t k = static_cast<int32_t>(blockIdx.y); k < volume; k += static_cast<int32_t>(gridDim.y)) {
    uint64_t key;
    if (!fed_key(p, site, element_of(p, k), key)) continue;
    bool inserted;
    hash_insert(p.output_table.keys, static_cast<uint64_t>(p.output_table.slots), key, inserted);
  }
}

__global__ void __launch_bounds__(kBlockSize, 2) compact_kernel(const SparseMapParams p) {
  const int64_t slot = thread_index();
  if (slot >= p.output_table.slots || p.output_table.keys[slot] == kEmptySlot) return;
  p.out_keys[p.places[slot] - 1] = p.output_table.keys[slot];
}

__global__ void __launch_bounds__(kBlockSize, 2) number_kernel(const SparseMapParams p) {
  const int64_t m = thread_index();
  if (m >= p.outputs) return;
  const uint64_t key = p.out_keys[m];
  decode_output(p, key, p.out_indices + 4 * m);
  const uint64_t slot = hash_find(p.output_table.keys, static_cast<uint64_t>(p.output_table.slots), key);
  if (slot != kEmptySlot) p.output_table.values[slot] = static_cast<int32_t>(m);
}

__global__ void __launch_bounds__(kBlockSize, 2) link_kernel(const SparseMapParams p, int32_t volume) {
  const int64_t n = thread_index();
  if (n >= p.sites) return;
  const int32_t* site = p.indices + 4 * n;
  for (int32_t k = static_cast<int32_t>(blockIdx.y); k < volume; k += static_cast<int32_t>(gridDim.y)) {
    int32_t output = -1;
    uint64_t key;
    if (fed_key(p, site, element_of(p, k), key)) {
      const uint64_t slot = hash_find(p.output_table.keys, static_cast<uint64_t>(p.output_table.slots), key);
      if (slot != kEmptySlot) output = p.output_table.values[slot];
    }
    if (p.reverse != nullptr) p.reverse[k * p.sites + n] = output;
    if (output >= 0) p.neighbours[k * p.outputs + output] = static_cast<int32_t>(n);
  }
}

__global__ void __launch_bounds__(kBlockSize, 2) reverse_kernel(const SparseMapParams p, int32_t volume) {
  const int64_t m = thread_index();
  if (m >= p.outputs) return;
  for (int32_t k = static_cast<int32_t>(blockIdx.y); k < volume; k += static_cast<int32_t>(gridDim.y)) {
    const int32_t n = p.neighbours[k * p.outputs + m];
    if (n >= 0 && n < p.sites) p.reverse[k * p.sites + n] = static_cast<int32_t>(m);
  }
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void sparse_kernel_map_cuda(const SparseMapParams& p, Stream stream) {
  using namespace FASTCV_VARIANT;
  const int32_t volume = static_cast<int32_t>(p.volume);
  const auto per = [](int64_t items, int64_t rows = 1) {
    return LaunchShape({grid_size(items, kBlockSize), rows < 65535 ? rows : 65535}, {kBlockSize});
  };
  switch (p.step) {
    case SparseMapStep::kSubmanifold:
      launch(insert_kernel, per(p.sites), stream, p);
      launch(mirror_kernel, per(p.sites, volume), stream, p, volume);
      return;
    case SparseMapStep::kFind:
      launch(insert_kernel, per(p.sites), stream, p);
      launch(spread_kernel, per(p.sites, volume), stream, p, volume);
      return;
    case SparseMapStep::kCompact:
      launch(compact_kernel, per(p.output_table.slots), stream, p);
      return;
    case SparseMapStep::kLink:
      launch(number_kernel, per(p.outputs), stream, p);
      launch(link_kernel, per(p.sites, volume), stream, p, volume);
      return;
    case SparseMapStep::kReverse:
      launch(reverse_kernel, per(p.outputs, volume), stream, p, volume);
      return;
  }
}

}  // namespace fastcv

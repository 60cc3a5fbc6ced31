// Sparse pooling on CUDA. See sparse_pool.h for the meaning.
//
// A thread owns kPack channels of one row of the result, 16 bytes where the channels divide by that, and walks the K
// places of the row. Neighbouring threads take neighbouring channels, so features are read in whole lines; the threads
// of a row read the same place of the map, those of the next row the next one.
//
// Napkin maths, 3x3x3 stride 2, 400 000 -> 600 000 sites, 64 channels, float32: each feature row is read 3.4 times, of
// which L2 (50 MB) serves most after the first (102 MB); 65 MB of map and 154 MB of results (twice that with argmax):
// 320 to 480 MB, 75 to 110 us at 4.3 TB/s.
#include <type_traits>

#include "core/cuda/launch.cuh"
#include "core/cuda/pack.cuh"
#include "ops/sparse_pool/sparse_pool.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kBlockSize = 256;

template <class T>
constexpr int kWidest = 16 / static_cast<int>(sizeof(T));

// Which row and channel this thread begins at; false: none.
struct Place {
  int64_t row;
  int64_t offset;  // of the thread's first channel, within the row
};

template <int kPack>
__device__ bool find_place(const SparsePoolParams& p, Place* place) {
  const unsigned packs = static_cast<unsigned>(p.channels / kPack);
  const unsigned per_row = least(packs, unsigned{kBlockSize});
  const unsigned rows = kBlockSize / per_row;
  const unsigned row = threadIdx.x / per_row;
  const unsigned pack = blockIdx.y * kBlockSize + threadIdx.x % per_row;
  place->row = static_cast<int64_t>(blockIdx.x) * rows + row;
  place->offset = static_cast<int64_t>(pack) * kPack;
  return row < rows && place->row < p.targets && pack < packs;
}

template <class T, int kPack>
LaunchShape launch_shape(const SparsePoolParams& p) {
  const int64_t packs = p.channels / kPack;
  const int64_t rows = packs < kBlockSize ? kBlockSize / packs : 1;
  return LaunchShape({grid_size(p.targets, rows), ceil_div<int64_t>(packs, kBlockSize)}, {kBlockSize});
}

template <class T, int kPack>
__global__ void __launch_bounds__(kBlockSize, 2) sparse_max_pool_forward_kernel(const SparsePoolParams p) {
  using A = Accumulate<T>;
  Place place;
  if (!find_place<kPack>(p, &place)) return;
  const T* source = static_cast<const T*>(p.source) + place.offset;
  const int32_t* map = p.map + place.row;
  A largest[kPack] = {};
  Pack<int32_t, kPack> where;
#pragma unroll
  for (int i = 0; i < kPack; ++i) where.value[i] = -1;
  for (int64_t k = 0; k < p.volume; ++k, map += p.targets) {
    const int32_t from = *map;
    if (from < 0 || from >= p.sources) continue;
    const Pack<T, kPack> row = load_pack<kPack>(source + from * p.channels);
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      const A value = to_float(row.value[i]);
      if (where.value[i] >= 0 && !is_larger(value, largest[i])) continue;
      largest[i] = value;
      where.value[i] = from;
    }
  }
  Pack<T, kPack> result;
#pragma unroll
  for (int i = 0; i < kPack; ++i) result.value[i] = from_float<T>(largest[i]);
  const int64_t target = place.row * p.channels + place.offset;
  store_pack(static_cast<T*>(p.target) + target, result);
  if (p.argmax != nullptr) store_pack(p.argmax + target, where);
}

template <class T, int kPack>
__global__ void __launch_bounds__(kBlockSize, 2) sparse_max_pool_backward_kernel(const SparsePoolParams p) {
  using A = Accumulate<T>;
  Place place;
  if (!find_place<kPack>(p, &place)) return;
  const T* source = static_cast<const T*>(p.source) + place.offset;
  const int32_t* argmax = p.argmax + place.offset;
  const int32_t* map = p.map + place.row;
  A sum[kPack] = {};
  for (int64_t k = 0; k < p.volume; ++k, map += p.targets) {
    const int32_t from = *map;
    if (from < 0 || from >= p.sources) continue;
    const Pack<int32_t, kPack> where = load_pack<kPack>(argmax + from * p.channels);
    const Pack<T, kPack> row = load_pack<kPack>(source + from * p.channels);
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      if (where.value[i] == place.row) sum[i] += to_float(row.value[i]);
    }
  }
  Pack<T, kPack> result;
#pragma unroll
  for (int i = 0; i < kPack; ++i) result.value[i] = from_float<T>(sum[i]);
  store_pack(static_cast<T*>(p.target) + place.row * p.channels + place.offset, result);
}

// The mean, or its backward, which divides each source row by its own count instead of the sum by that of the target.
template <class T, int kPack, bool kBackward>
__global__ void __launch_bounds__(kBlockSize, 2) sparse_avg_pool_kernel(const SparsePoolParams p) {
  using A = Accumulate<T>;
  Place place;
  if (!find_place<kPack>(p, &place)) return;
  const T* source = static_cast<const T*>(p.source) + place.offset;
  const int32_t* map = p.map + place.row;
  const int64_t all = kBackward ? p.count_volume : p.volume;
  A sum[kPack] = {};
  int64_t count = 0;
  for (int64_t k = 0; k < p.volume; ++k, map += p.targets) {
    const int32_t from = *map;
    if (from < 0 || from >= p.sources) continue;
    ++count;
    const A divisor = !kBackward ? A(1) : static_cast<A>(p.count_missing ? all : p.counts[from]);
    const Pack<T, kPack> row = load_pack<kPack>(source + from * p.channels);
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      const A value = to_float(row.value[i]);
      sum[i] += kBackward ? value / divisor : value;
    }
  }
  const int64_t divisor = kBackward ? 1 : p.count_missing ? all : count;
  Pack<T, kPack> result;
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    result.value[i] = from_float<T>(kBackward ? sum[i] : sum[i] / static_cast<A>(divisor > 0 ? divisor : 1));
  }
  store_pack(static_cast<T*>(p.target) + place.row * p.channels + place.offset, result);
}

// One thread counts the neighbours of one source row; at least one, for the sake of the division.
__global__ void __launch_bounds__(kBlockSize, 2) count_neighbours_kernel(const SparsePoolParams p) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  if (row >= p.sources) return;
  int count = 0;
  for (int64_t k = 0; k < p.count_volume; ++k) count += p.neighbours[k * p.sources + row] >= 0;
  p.counts[row] = count > 0 ? count : 1;
}

// Calls body(type of an element, width of a pack): as wide as the channels and the pointers allow.
template <class Body>
void dispatch_pack(const SparsePoolParams& p, Body&& body) {
  dispatch_floating(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto aligned = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; };
    if (p.channels % kWidest<T> == 0 && aligned(p.target) && aligned(p.source) && aligned(p.argmax)) {
      body(tag, std::integral_constant<int, kWidest<T>>{});
    } else {
      body(tag, std::integral_constant<int, 1>{});
    }
  });
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void sparse_max_pool_forward_cuda(const SparsePoolParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_pack(params, [&](auto tag, auto pack) {
    using T = typename decltype(tag)::type;
    constexpr int kPack = decltype(pack)::value;
    launch(sparse_max_pool_forward_kernel<T, kPack>, launch_shape<T, kPack>(params), stream, params);
  });
}

void sparse_max_pool_backward_cuda(const SparsePoolParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_pack(params, [&](auto tag, auto pack) {
    using T = typename decltype(tag)::type;
    constexpr int kPack = decltype(pack)::value;
    launch(sparse_max_pool_backward_kernel<T, kPack>, launch_shape<T, kPack>(params), stream, params);
  });
}

void sparse_avg_pool_forward_cuda(const SparsePoolParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_pack(params, [&](auto tag, auto pack) {
    using T = typename decltype(tag)::type;
    constexpr int kPack = decltype(pack)::value;
    launch(sparse_avg_pool_kernel<T, kPack, false>, launch_shape<T, kPack>(params), stream, params);
  });
}

void sparse_avg_pool_backward_cuda(const SparsePoolParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  if (!params.count_missing) {
    launch(count_neighbours_kernel, {grid_size(params.sources, kBlockSize), kBlockSize}, stream, params);
  }
  dispatch_pack(params, [&](auto tag, auto pack) {
    using T = typename decltype(tag)::type;
    constexpr int kPack = decltype(pack)::value;
    launch(sparse_avg_pool_kernel<T, kPack, true>, launch_shape<T, kPack>(params), stream, params);
  });
}

}  // namespace fastcv

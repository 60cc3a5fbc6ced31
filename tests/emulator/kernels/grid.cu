// Kernels of many blocks: indices, strides, and atomics on global memory.
#include <cstdint>
#include <cstdio>

#include "core/cuda/atomic.cuh"
#include "core/cuda/launch.cuh"
#include "emulator/kernels/cases.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

struct ScaleParams {
  const double* input;
  double* output;
  int64_t count;
  double factor;
};

__global__ void scale_kernel(const ScaleParams p) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < p.count; i += stride) {
    p.output[i] = p.input[i] * p.factor;
  }
}

bool scale(int64_t count, int64_t blocks) {
  Buffer<double> input(count), output(count);
  for (int64_t i = 0; i < count; ++i) input[i] = static_cast<double>(i) / 7;
  launch(scale_kernel, {blocks, 64}, kStream, ScaleParams{input.data(), output.data(), count, 3.5});
  synchronize();
  for (int64_t i = 0; i < count; ++i) {
    if (output[i] != input[i] * 3.5) return false;
  }
  return true;
}

bool grid_stride() {
  return scale(1003, 5) && scale(1, 3) && scale(64, 1);
}

bool empty_grid() {
  Buffer<double> untouched(1);
  const ScaleParams params = {untouched.data(), untouched.data(), 1, 2.0};
  untouched[0] = 1.0;
  launch(scale_kernel, {grid_size(0, 64), 64}, kStream, params);
  launch(scale_kernel, {{1, 0, 1}, 64}, kStream, params);
  synchronize();
  return untouched[0] == 1.0;
}

bool refuses(LaunchShape shape) {
  Buffer<double> one(1);
  try {
    launch(scale_kernel, shape, kStream, ScaleParams{one.data(), one.data(), 1, 1.0});
  } catch (const std::runtime_error& error) {
    return std::strstr(error.what(), "grid.cu:") != nullptr;
  }
  return false;
}

bool impossible_shapes() {
  bool thrown = false;
  try {
    grid_size(int64_t{1} << 40, 256);
  } catch (const std::runtime_error&) {
    thrown = true;
  }
  return thrown && refuses({1, 1025}) && refuses({1, {32, 33}}) && refuses({1, 0}) && refuses({{1, 65536}, 32}) &&
         refuses({int64_t{1} << 31, 32}) && refuses({1, {1, 1, 65}});
}

// Each thread writes its place in the order of the whole grid at that place.
__global__ void index_kernel(int* output) {
  const unsigned x = blockIdx.x * blockDim.x + threadIdx.x, width = gridDim.x * blockDim.x;
  const unsigned y = blockIdx.y * blockDim.y + threadIdx.y, height = gridDim.y * blockDim.y;
  const unsigned z = blockIdx.z * blockDim.z + threadIdx.z;
  const unsigned i = (z * height + y) * width + x;
  output[i] += static_cast<int>(i) + 1;
}

bool index_3d() {
  Buffer<int> output(2 * 5 * 3 * 3 * 2 * 4);
  launch(index_kernel, {{2, 3, 2}, {5, 3, 4}}, kStream, output.data());
  synchronize();
  for (size_t i = 0; i < output.count(); ++i) {
    if (output[i] != static_cast<int>(i) + 1) return false;
  }
  return true;
}

struct AtomicParams {
  int32_t* int32s;    // [sum, min, max]
  uint32_t* uint32s;  // [sum, min, max, or]
  uint64_t* uint64s;  // [sum, min, max, or]
  float* float_sum;
  double* double_sum;
  uint32_t* tickets;  // (threads): each taken once
};

__global__ void atomic_kernel(const AtomicParams p) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const uint64_t wide = (uint64_t{1} << 40) + i;
  atomic_add(&p.int32s[0], -i);
  atomic_min(&p.int32s[1], -i);
  atomic_max(&p.int32s[2], i);
  atomic_min(&p.uint32s[1], 0x80000000u + i);
  atomic_max(&p.uint32s[2], 0x80000000u + i);
  atomic_or(&p.uint32s[3], 1u << i % 32);
  atomic_add(&p.uint64s[0], wide);
  atomic_min(&p.uint64s[1], wide);
  atomic_max(&p.uint64s[2], wide);
  atomic_or(&p.uint64s[3], uint64_t{1} << i % 64);
  atomic_add(p.float_sum, 0.5f);
  atomic_add(p.double_sum, 0.25);
  p.tickets[atomic_add(&p.uint32s[0], 1)] += 1;
}

bool atomics() {
  constexpr int kThreads = 192;
  Buffer<int32_t> int32s(3);
  Buffer<uint32_t> uint32s(4), tickets(kThreads);
  Buffer<uint64_t> uint64s(4);
  Buffer<float> float_sum(1);
  Buffer<double> double_sum(1);
  uint32s[1] = ~0u;
  uint64s[1] = ~uint64_t{0};
  launch(
      atomic_kernel, {3, 64}, kStream,
      AtomicParams{int32s.data(), uint32s.data(), uint64s.data(), float_sum.data(), double_sum.data(), tickets.data()});
  synchronize();
  const int sum = kThreads * (kThreads - 1) / 2;
  const uint64_t base = uint64_t{1} << 40;
  bool right = int32s[0] == -sum && int32s[1] == -(kThreads - 1) && int32s[2] == kThreads - 1;
  right &= uint32s[0] == kThreads && uint32s[1] == 0x80000000u && uint32s[2] == 0x80000000u + kThreads - 1;
  right &= uint32s[3] == ~0u && uint64s[3] == ~uint64_t{0};
  right &= uint64s[0] == base * kThreads + sum && uint64s[1] == base && uint64s[2] == base + kThreads - 1;
  right &= float_sum[0] == kThreads * 0.5f && double_sum[0] == kThreads * 0.25;
  for (int i = 0; i < kThreads; ++i) right &= tickets[i] == 1;
  return right;
}

// Open addressing: each key is in the table once, however many threads bring it.
template <class Key>
__global__ void insert_kernel(Key* table, int slots, int keys) {
  const Key key = static_cast<Key>((blockIdx.x * blockDim.x + threadIdx.x) % keys + 1);
  for (unsigned slot = static_cast<unsigned>(key) * 2654435761u % slots;; slot = (slot + 1) % slots) {
    const Key before = atomic_cas(&table[slot], Key{0}, key);
    if (before == 0 || before == key) return;
  }
}

template <class Key>
bool table_is_right() {
  constexpr int kSlots = 128, kKeys = 60;
  Buffer<Key> table(kSlots);
  launch(insert_kernel<Key>, {4, 64}, kStream, table.data(), kSlots, kKeys);
  synchronize();
  int counts[kKeys + 1] = {};
  for (int i = 0; i < kSlots; ++i) ++counts[table[i]];
  for (int key = 1; key <= kKeys; ++key) {
    if (counts[key] != 1) return false;
  }
  return counts[0] == kSlots - kKeys;
}

bool hash_table() {
  return table_is_right<uint32_t>() && table_is_right<uint64_t>();
}

__global__ void order_kernel(uint32_t* tickets, unsigned* order) {
  order[atomic_add(tickets, 1u)] = blockIdx.x * blockDim.x + threadIdx.x;
}

// Prints the order in which threads come; any is right.
bool thread_order() {
  Buffer<uint32_t> tickets(1);
  Buffer<unsigned> order(64);
  launch(order_kernel, {4, 16}, kStream, tickets.data(), order.data());
  synchronize();
  for (size_t i = 0; i < order.count(); ++i) std::printf("%u ", order[i]);
  return true;
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

CaseList grid_cases() {
  using namespace fastcv::FASTCV_VARIANT;
  static constexpr Case kCases[] = {
      {"grid_stride", grid_stride},   {"empty_grid", empty_grid}, {"impossible_shapes", impossible_shapes},
      {"index_3d", index_3d},         {"atomics", atomics},       {"hash_table", hash_table},
      {"thread_order", thread_order},
  };
  return {kCases, sizeof(kCases) / sizeof(kCases[0])};
}

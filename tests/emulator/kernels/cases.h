// The kernels that the emulator is tested with. Each case launches one and compares with an answer computed otherwise.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>

#include "core/stream.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#endif

struct Case {
  const char* name;
  bool (*is_right)();
};

struct CaseList {
  const Case* cases;
  size_t count;
};

CaseList block_cases();
CaseList warp_cases();
CaseList grid_cases();
CaseList buggy_cases();

constexpr fastcv::Stream kStream = {0, nullptr};

// Zeroed memory that kernels and the host can both reach.
template <class T>
class Buffer {
 public:
  explicit Buffer(size_t count) : count_(count) {
    void* memory = nullptr;
#if defined(__CUDACC__)
    if (cudaMallocManaged(&memory, count * sizeof(T)) != cudaSuccess) throw std::bad_alloc();
#else
    memory = std::malloc(count * sizeof(T));
    if (memory == nullptr) throw std::bad_alloc();
#endif
    std::memset(memory, 0, count * sizeof(T));
    data_ = static_cast<T*>(memory);
  }
  ~Buffer() {
#if defined(__CUDACC__)
    static_cast<void>(cudaFree(data_));
#else
    std::free(data_);
#endif
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() { return data_; }
  size_t count() const { return count_; }
  T& operator[](size_t i) { return data_[i]; }

 private:
  T* data_;
  size_t count_;
};

// Waits for the kernels, so that the host sees what they wrote.
inline void synchronize() {
#if defined(__CUDACC__)
  if (cudaDeviceSynchronize() != cudaSuccess) std::abort();
#endif
}

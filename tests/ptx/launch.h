// Launches of translated kernels: the seam with csrc/core/cuda/launch.cuh, which the host code of the .cu files uses.
#pragma once

#include <cstddef>
#include <cstring>

#include "emulator/runtime.h"

namespace fastcv::ptx {

struct Entry;

// The parameters of a kernel as PTX sees them: one after the other, each at a multiple of its alignment.
struct Parameters {
  static constexpr size_t kMaxBytes = 4096;
  static constexpr unsigned kMost = 32;
  alignas(16) char bytes[kMaxBytes];
  size_t end = 0;
  unsigned count = 0;
  struct {
    size_t offset, size;
  } places[kMost];

  template <class T>
  void add(T value) {
    const size_t offset = (end + alignof(T) - 1) / alignof(T) * alignof(T);
    std::memcpy(bytes + offset, &value, sizeof(T));
    places[count++] = {offset, sizeof(T)};
    end = offset + sizeof(T);
  }
  template <class... Params, class... Args>
  void add_all(Args... args) {
    (add<Params>(args), ...);
  }
};

// Tells which translation stands for a kernel.
struct Translated {
  Translated(const void* kernel, const Entry& entry);
};

// Runs what has been translated for `kernel`; of the call the thread and its context are not used.
void launch(const void* kernel, const emulator::KernelCall& call, const Parameters& parameters);
void launch(const Entry& entry, const emulator::KernelCall& call, const Parameters& parameters);

void start_thread_matrices();
void start_block_products();
void start_thread_products();
void end_thread_products();

// Of the launch under way.
const Entry& running_entry();

}  // namespace fastcv::ptx

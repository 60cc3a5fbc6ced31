// What the checks of memory know: the tensors of the call, the shared arrays of the block, the copies under way.
#pragma once

#include <cstddef>

#include "ptx/runtime.h"

namespace fastcv::ptx {

// Kernels launched by this OS thread may use these bytes, until it forgets them.
void note_memory(const void* begin, size_t bytes);
void forget_memory();

// For a launch that begins, a block that begins, a thread that begins, and one that has ended.
void use_noted_memory();
void start_block_memory(const Entry& entry, unsigned dynamic_bytes);
void start_thread_memory();
void check_no_copies(const Entry& entry);

constexpr unsigned kMaxSharedBytes = 99 << 10;  // of a block on sm_86 and sm_89, which run what is compiled for sm_80

}  // namespace fastcv::ptx

// For tests, through ctypes.
extern "C" __attribute__((visibility("default"))) void fastcv_ptx_note_memory(const void* begin, size_t bytes);
extern "C" __attribute__((visibility("default"))) void fastcv_ptx_forget_memory();

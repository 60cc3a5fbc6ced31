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

// Sixteen bytes of a matrix, as wgmma reads them: all that was written there has arrived and been fenced by its writer.
const char* matrix_read(uint32_t address, unsigned line);

// From when a wgmma is issued until all of its threads have waited for it nobody may write there.
void hold_matrix(uint32_t address);
void release_matrix(uint32_t address);

constexpr unsigned kMaxSharedBytes = 99 << 10;   // of a block on sm_86 and sm_89, which run what is compiled for sm_80
constexpr unsigned kMaxHopperBytes = 227 << 10;  // of a block on sm_90

}  // namespace fastcv::ptx

// For tests, through ctypes.
extern "C" __attribute__((visibility("default"))) void fastcv_ptx_note_memory(const void* begin, size_t bytes);
extern "C" __attribute__((visibility("default"))) void fastcv_ptx_forget_memory();

// Scratch memory that lives between calls, and huge pages for large fresh outputs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/platform.h"

namespace fastcv {

// No memory is so large. bytes_of gives it for all that is, so that sums of some sizes stay far from wrapping around.
constexpr size_t kTooManyBytes = size_t{1} << 60;

namespace FASTCV_VARIANT {

// The bytes of an array of T with these numbers of elements along its axes, for a Scratch: at most kTooManyBytes.
template <class T, class... Sizes>
FASTCV_INLINE size_t bytes_of(Sizes... sizes) {
  if (((sizes == 0) || ...)) return 0;
  size_t bytes = sizeof(T);
  const bool wraps = (__builtin_mul_overflow(bytes, sizes, &bytes) || ...);  // and negative sizes
  return wraps || bytes > kTooManyBytes ? kTooManyBytes : bytes;
}

}  // namespace FASTCV_VARIANT

// A 64-byte aligned block of scratch memory, uninitialised, borrowed from a small cache of the calling thread. Each
// thread keeps at most kScratchCacheBytes between calls; what exceeds that goes back to the system at once.
//
// Throws what becomes Python's MemoryError where there is not so much memory, or where `bytes` is kTooManyBytes or
// more.
class Scratch {
 public:
  explicit Scratch(size_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T>
  FASTCV_INLINE T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_;
  size_t capacity_;
};

constexpr size_t kScratchCacheBytes = size_t{64} << 20;

// For tests: after `count` more of them, one Scratch fails as if there were no memory, on whichever thread it is. With
// a negative count, none does. Returns how many were left before that one: negative when it has failed.
int64_t fail_allocation_after(int64_t count);

// Asks for huge pages where `data` lies, before it is first written: a fresh 50 MB output costs 12 000 page faults
// (about 20 ms) without, a few with. Does nothing for small blocks or where the system has no such advice.
void advise_huge_pages(void* data, size_t bytes);

}  // namespace fastcv

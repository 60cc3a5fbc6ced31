// Scratch memory that lives between calls, and huge pages for large fresh outputs.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastcv {

// A 64-byte aligned block of scratch memory, uninitialised, borrowed from a small cache of the calling thread. Each
// thread keeps at most kScratchCacheBytes between calls; what exceeds that goes back to the system at once.
class Scratch {
 public:
  explicit Scratch(size_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T>
  inline __attribute__((always_inline)) T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_;
  size_t capacity_;
};

constexpr size_t kScratchCacheBytes = size_t{64} << 20;

// Asks for huge pages where `data` lies, before it is first written: a fresh 50 MB output costs 12 000 page faults
// (about 20 ms) without, a few with. Does nothing for small blocks or where the system has no such advice.
void advise_huge_pages(void* data, size_t bytes);

}  // namespace fastcv

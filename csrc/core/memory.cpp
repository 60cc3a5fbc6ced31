#include "core/memory.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "core/types.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastcv {
namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;

// Says how much was asked for, in memory of its own: there may be no other.
class OutOfScratch : public std::bad_alloc {
 public:
  explicit OutOfScratch(size_t bytes) {
    if (bytes < kTooManyBytes) {
      std::snprintf(message_, sizeof(message_), "fastcv could not allocate %zu bytes of scratch memory", bytes);
    } else {
      std::snprintf(message_, sizeof(message_), "fastcv could not allocate 2^60 or more bytes of scratch memory");
    }
  }
  const char* what() const noexcept override { return message_; }

 private:
  char message_[80];
};

struct Block {
  void* data;
  size_t capacity;
};

// Blocks that nobody uses, oldest first. Of a fixed number, so that giving one back needs no memory.
class ScratchCache {
 public:
  ~ScratchCache() {
    while (count_ > 0) std::free(take(0).data);
  }

  // The smallest block of at least so many bytes; one without data when there is none.
  Block take_of_size(size_t bytes) {
    int best = -1;
    for (int i = 0; i < count_; ++i) {
      if (blocks_[i].capacity < bytes) continue;
      if (best < 0 || blocks_[i].capacity < blocks_[best].capacity) best = i;
    }
    return best < 0 ? Block{nullptr, 0} : take(best);
  }

  // Keeps the newest: drops others, oldest first, until this one fits.
  void give_back(Block block) {
    if (block.capacity > kScratchCacheBytes) return std::free(block.data);
    while (count_ == kMostBlocks || bytes_ + block.capacity > kScratchCacheBytes) std::free(take(0).data);
    blocks_[count_++] = block;
    bytes_ += block.capacity;
  }

 private:
  static constexpr int kMostBlocks = 64;

  Block take(int place) {
    const Block block = blocks_[place];
    --count_;
    for (int i = place; i < count_; ++i) blocks_[i] = blocks_[i + 1];
    bytes_ -= block.capacity;
    return block;
  }

  Block blocks_[kMostBlocks] = {};
  int count_ = 0;
  size_t bytes_ = 0;
};

ScratchCache& scratch_cache() {
  thread_local ScratchCache cache;
  return cache;
}

Block allocate(size_t bytes) {
  const size_t alignment = bytes >= kHugePageBytes ? kHugePageBytes : 64;
  const size_t capacity = FASTCV_VARIANT::round_up(bytes, alignment);
  void* data = std::aligned_alloc(alignment, capacity);
  if (data == nullptr) throw OutOfScratch(bytes);
  advise_huge_pages(data, capacity);
  return {data, capacity};
}

// How many may still succeed before one fails; negative when none is to fail.
std::atomic<int64_t> allocations_left{-1};

bool is_to_fail() {
  return allocations_left.load(std::memory_order_relaxed) >= 0 && allocations_left.fetch_sub(1) == 0;
}

}  // namespace

Scratch::Scratch(size_t bytes) {
  if (bytes == 0) bytes = 1;
  if (bytes >= kTooManyBytes || is_to_fail()) throw OutOfScratch(bytes);
  Block block = scratch_cache().take_of_size(bytes);
  if (block.data == nullptr) block = allocate(bytes);
  data_ = block.data;
  capacity_ = block.capacity;
}

Scratch::~Scratch() {
  scratch_cache().give_back({data_, capacity_});
}

int64_t fail_allocation_after(int64_t count) {
  return allocations_left.exchange(count);
}

void advise_huge_pages(void* data, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (bytes < kHugePageBytes) return;
  const uintptr_t begin = FASTCV_VARIANT::round_up(reinterpret_cast<uintptr_t>(data), kHugePageBytes);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) / kHugePageBytes * kHugePageBytes;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data;
  (void)bytes;
#endif
}

}  // namespace fastcv

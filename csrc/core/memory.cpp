#include "core/memory.h"

#include <cstdlib>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastcv {
namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;

struct Block {
  void* data;
  size_t capacity;
};

struct ScratchCache {
  std::vector<Block> blocks;
  size_t bytes = 0;
  ~ScratchCache() {
    for (const Block& block : blocks) std::free(block.data);
  }
};

ScratchCache& scratch_cache() {
  thread_local ScratchCache cache;
  return cache;
}

Block allocate(size_t bytes) {
  const size_t alignment = bytes >= kHugePageBytes ? kHugePageBytes : 64;
  const size_t capacity = (bytes + alignment - 1) / alignment * alignment;
  void* data = std::aligned_alloc(alignment, capacity);
  if (data == nullptr) throw std::bad_alloc();
  advise_huge_pages(data, capacity);
  return {data, capacity};
}

}  // namespace

Scratch::Scratch(size_t bytes) {
  if (bytes == 0) bytes = 1;
  ScratchCache& cache = scratch_cache();
  size_t best = cache.blocks.size();
  for (size_t i = 0; i < cache.blocks.size(); ++i) {
    if (cache.blocks[i].capacity < bytes) continue;
    if (best == cache.blocks.size() || cache.blocks[i].capacity < cache.blocks[best].capacity) best = i;
  }
  Block block;
  if (best < cache.blocks.size()) {
    block = cache.blocks[best];
    cache.blocks[best] = cache.blocks.back();
    cache.blocks.pop_back();
    cache.bytes -= block.capacity;
  } else {
    block = allocate(bytes);
  }
  data_ = block.data;
  capacity_ = block.capacity;
}

Scratch::~Scratch() {
  ScratchCache& cache = scratch_cache();
  // Keep the newest: drop cached blocks, oldest first, until this one fits the budget.
  while (!cache.blocks.empty() && cache.bytes + capacity_ > kScratchCacheBytes) {
    std::free(cache.blocks.front().data);
    cache.bytes -= cache.blocks.front().capacity;
    cache.blocks.erase(cache.blocks.begin());
  }
  if (capacity_ > kScratchCacheBytes) {
    std::free(data_);
    return;
  }
  cache.blocks.push_back({data_, capacity_});
  cache.bytes += capacity_;
}

void advise_huge_pages(void* data, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (bytes < kHugePageBytes) return;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) / kHugePageBytes * kHugePageBytes;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data;
  (void)bytes;
#endif
}

}  // namespace fastcv

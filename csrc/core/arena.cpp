#include "core/arena.h"

#include <cstdlib>
#include <mutex>
#include <vector>

#include "core/memory.h"

namespace fastcv {
namespace {

constexpr size_t kArenaUnit = size_t{2} << 20;

thread_local bool arena_on = false;

// The blocks that nobody uses, oldest first.
//
// How much is kept: what was in use at once at most, up to kMostFreeBytes. So the pool adds nothing to the peak: before
// a new block is made that would exceed it, free ones go.
class Arena {
 public:
  ArenaBlock take(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const size_t capacity = round(bytes);
    size_t best = free_.size();
    for (size_t i = 0; i < free_.size(); ++i) {
      const size_t has = free_[i].capacity;
      if (has < capacity || has / 2 > capacity) continue;  // not twice as much as is wanted
      if (best == free_.size() || has < free_[best].capacity) best = i;
    }
    ArenaBlock block{nullptr, 0};
    if (best < free_.size()) {
      block = remove(best);
    } else {
      while (!free_.empty() && used_ + free_bytes_ + capacity > most_used_) drop(remove(0));
      free_.reserve(blocks_ + 1);  // so that giving back needs no memory
      block.data = std::aligned_alloc(capacity >= kArenaUnit ? kArenaUnit : 64, capacity);
      if (block.data == nullptr) return block;
      block.capacity = capacity;
      advise_huge_pages(block.data, capacity);
      ++blocks_;
    }
    used_ += block.capacity;
    if (used_ > most_used_) most_used_ = used_;
    return block;
  }

  void give(ArenaBlock block) {
    const std::lock_guard<std::mutex> lock(mutex_);
    used_ -= block.capacity;
    if (block.capacity > kMostFreeBytes) return drop(block);
    while (free_bytes_ + block.capacity > kMostFreeBytes) drop(remove(0));
    free_.push_back(block);
    free_bytes_ += block.capacity;
  }

  ArenaUse use() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return {used_, free_bytes_};
  }

  void release() {
    const std::lock_guard<std::mutex> lock(mutex_);
    while (!free_.empty()) drop(remove(0));
    most_used_ = used_;
  }

 private:
  static size_t round(size_t bytes) {
    const size_t unit = bytes >= kArenaUnit ? kArenaUnit : 4096;
    return (bytes + unit - 1) / unit * unit;
  }

  ArenaBlock remove(size_t place) {
    const ArenaBlock block = free_[place];
    free_.erase(free_.begin() + static_cast<std::ptrdiff_t>(place));
    free_bytes_ -= block.capacity;
    return block;
  }

  void drop(ArenaBlock block) {
    std::free(block.data);
    --blocks_;
  }

  std::mutex mutex_;
  std::vector<ArenaBlock> free_;
  size_t blocks_ = 0;  // in use and free
  size_t used_ = 0, free_bytes_ = 0, most_used_ = 0;
};

// Never destroyed: tensors may go after everything else has.
Arena& arena() {
  static Arena* const made = new Arena;
  return *made;
}

}  // namespace

ArenaScope::ArenaScope(bool on) : before_(arena_on) {
  arena_on = on;
}

ArenaScope::~ArenaScope() {
  arena_on = before_;
}

bool arena_is_on() {
  return arena_on;
}

bool set_arena(bool on) {
  const bool before = arena_on;
  arena_on = on;
  return before;
}

ArenaBlock take_from_arena(size_t bytes) {
  return arena().take(bytes);
}

void give_to_arena(ArenaBlock block) {
  arena().give(block);
}

ArenaUse arena_use() {
  return arena().use();
}

void release_arena() {
  arena().release();
}

}  // namespace fastcv

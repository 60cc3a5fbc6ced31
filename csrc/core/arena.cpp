#include "core/arena.h"

#include <cstdlib>
#include <mutex>
#include <vector>

#include "core/memory.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#define FASTCV_HAS_MMAP
#endif

namespace fastcv {
namespace {

constexpr size_t kPage = size_t{64} << 10;  // of any system, or a multiple
constexpr size_t kLargePage = size_t{2} << 20;
constexpr size_t kMostReserved = size_t{16} << 30, kLeastReserved = size_t{1} << 30;

thread_local bool arena_on = false;

// A range of addresses, reserved once, of which blocks are cut: the lowest that fits. Neighbours that are given back
// are one again, so that memory of many small results serves a large one.
//
// How much is kept: what was in use at once at most, up to kMostFreeBytes. So the arena adds nothing to the peak: before
// pages that would exceed it are touched, free ones go back to the system, from the highest address on.
class Arena {
 public:
  ArenaBlock take(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const size_t unit = bytes >= kLargePage ? kLargePage : kPage;
    const size_t capacity = (bytes + unit - 1) / unit * unit;
    // Each block in use may split a run when it is given back, which needs no memory then.
    runs_.reserve(runs_.size() + 2 * blocks_ + 6);
    if (base_ == nullptr) reserve();
    const size_t begin = find(capacity, unit);
    if (begin + capacity > size_) return take_outside(capacity);
    if (!open(begin + capacity)) return {nullptr, 0};
    set(begin, begin + capacity, State::kUsed);
    note(capacity);
    return {base_ + begin, capacity};
  }

  void give(ArenaBlock block) {
    const std::lock_guard<std::mutex> lock(mutex_);
    --blocks_;
    used_ -= block.capacity;
    const auto* data = static_cast<const char*>(block.data);
    if (base_ == nullptr || data < base_ || data >= base_ + size_) return std::free(block.data);
    const auto begin = static_cast<size_t>(data - base_);
    set(begin, begin + block.capacity, State::kKept);
    keep_at_most(kMostFreeBytes);
  }

  ArenaUse use() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return {used_, kept_};
  }

  void release() {
    const std::lock_guard<std::mutex> lock(mutex_);
    keep_at_most(0);
    most_used_ = used_;
  }

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  enum class State { kUsed, kKept, kEmpty };  // empty: without pages
  struct Run {
    size_t begin, end;
    State state;
  };

  // Addresses cost nothing before they are opened, except where they are limited: there most are left to others.
  void reserve() {
#if defined(FASTCV_HAS_MMAP)
    rlimit limit{};
    size_t size = kMostReserved;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur / 8 < size) {
      size = static_cast<size_t>(limit.rlim_cur / 8) / kLargePage * kLargePage;
    }
    for (; size >= kLeastReserved && base_ == nullptr; size /= 2) {
      void* data = mmap(nullptr, size + kLargePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (data == MAP_FAILED) continue;
      const auto address = reinterpret_cast<uintptr_t>(data);
      base_ = static_cast<char*>(data) + (kLargePage - address % kLargePage) % kLargePage;
      size_ = size;
    }
    if (base_ == nullptr) return;
    advise_huge_pages(base_, size_);
    runs_.push_back({0, size_, State::kEmpty});
#endif
  }

  // Makes addresses below `end` usable.
  bool open(size_t end) {
#if defined(FASTCV_HAS_MMAP)
    if (end <= open_) return true;
    const size_t next = (end + kLargePage - 1) / kLargePage * kLargePage;
    if (mprotect(base_ + open_, next - open_, PROT_READ | PROT_WRITE) != 0) return false;
    open_ = next;
#endif
    return true;
  }

  // The lowest begin of so many free bytes; size_ where there is none.
  size_t find(size_t capacity, size_t unit) const {
    size_t begin = 0;  // of the free runs up to here
    for (const Run& run : runs_) {
      if (run.state == State::kUsed) {
        begin = (run.end + unit - 1) / unit * unit;
      } else if (begin + capacity <= run.end) {
        return begin;
      }
    }
    return size_;
  }

  ArenaBlock take_outside(size_t capacity) {
    const ArenaBlock block{std::aligned_alloc(kPage, capacity), capacity};
    if (block.data == nullptr) return {nullptr, 0};
    advise_huge_pages(block.data, capacity);
    note(capacity);
    return block;
  }

  // Counts a block, and makes room for it.
  void note(size_t capacity) {
    ++blocks_;
    used_ += capacity;
    if (used_ > most_used_) most_used_ = used_;
    keep_at_most(most_used_ - used_);
  }

  void keep_at_most(size_t bytes) {
#if defined(FASTCV_HAS_MMAP)
    for (size_t i = runs_.size(); i-- > 0 && kept_ > bytes;) {
      if (runs_[i].state != State::kKept) continue;
      const Run run = runs_[i];
      const size_t spare = (kept_ - bytes + kLargePage - 1) / kLargePage * kLargePage;
      const size_t begin = run.end - run.begin > spare ? (run.end - spare) / kPage * kPage : run.begin;
      madvise(base_ + begin, run.end - begin, MADV_DONTNEED);
      set(begin, run.end, State::kEmpty);
      if (i > runs_.size()) i = runs_.size();
    }
#endif
  }

  // Sets the state of addresses; runs of one state are joined.
  void set(size_t begin, size_t end, State state) {
    size_t first = 0;
    while (runs_[first].end <= begin) ++first;
    size_t last = first;  // the run that has the last address
    while (runs_[last].end < end) ++last;
    for (size_t i = first; i <= last; ++i) {
      if (runs_[i].state != State::kKept) continue;
      kept_ -= (runs_[i].end < end ? runs_[i].end : end) - (runs_[i].begin > begin ? runs_[i].begin : begin);
    }
    if (state == State::kKept) kept_ += end - begin;
    Run parts[3];
    int count = 0;
    const Run before = runs_[first], after = runs_[last];
    if (before.begin < begin) parts[count++] = {before.begin, begin, before.state};
    parts[count++] = {begin, end, state};
    if (after.end > end) parts[count++] = {end, after.end, after.state};
    const auto place = runs_.erase(runs_.begin() + static_cast<std::ptrdiff_t>(first),
                                   runs_.begin() + static_cast<std::ptrdiff_t>(last) + 1);
    runs_.insert(place, parts, parts + count);
    size_t kept = 0;
    for (size_t i = 1; i < runs_.size(); ++i) {
      if (runs_[i].state == runs_[kept].state) {
        runs_[kept].end = runs_[i].end;
      } else {
        runs_[++kept] = runs_[i];
      }
    }
    runs_.resize(kept + 1);
  }

  std::mutex mutex_;
  std::vector<Run> runs_;  // ascending, without gaps
  char* base_ = nullptr;
  size_t size_ = 0, open_ = 0;
  size_t blocks_ = 0;  // in use
  size_t used_ = 0, kept_ = 0, most_used_ = 0;
};

// Never destroyed: tensors may go after everything else has.
Arena& arena() {
  static Arena* const made = [] {
    auto* const result = new Arena;
#if defined(FASTCV_HAS_MMAP)
    // A process that forks while another of its threads is in here: the child has no such thread, to unlock.
    pthread_atfork([] { arena().lock(); }, [] { arena().unlock(); }, [] { arena().unlock(); });
#endif
    return result;
  }();
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
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

}  // namespace fastcv

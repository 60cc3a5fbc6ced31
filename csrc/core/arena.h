// Memory of results that lives between calls, for networks that run again and again.
//
// A fresh block of 50 MB costs its page faults each time: torch gives it back to the system when the tensor goes, and
// the system clears its pages anew. In a detector that was a fifth of the time. So inside an ArenaScope the results of
// operators are blocks of an arena of this process: torch holds them like any memory, and hands them back when their
// tensor goes, on whichever thread. A result is never cleared, or written twice.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastcv {

constexpr size_t kLeastArenaBytes = size_t{64} << 10;  // smaller results come from torch
constexpr size_t kMostFreeBytes = size_t{512} << 20;   // what it keeps at most while nobody uses it

// While one lives, results of this thread come from the arena where `on`.
class ArenaScope {
 public:
  explicit ArenaScope(bool on);
  ~ArenaScope();
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  bool before_;
};

// Whether this thread is inside a scope; sets it, and returns what it was.
bool arena_is_on();
bool set_arena(bool on);

// A block of at least so many bytes, at the start of a page, uninitialised; null where there is no memory. Its capacity is to
// be given back with it.
struct ArenaBlock {
  void* data;
  size_t capacity;
};
ArenaBlock take_from_arena(size_t bytes);
void give_to_arena(ArenaBlock block);

// Bytes in use and bytes that are free, now.
struct ArenaUse {
  size_t used, free;
};
ArenaUse arena_use();
void release_arena();  // gives what is free back to the system, in the arena and elsewhere

}  // namespace fastcv

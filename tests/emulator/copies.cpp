// Asynchronous copies from global to shared memory: they land when the thread waits for them, and not before.
#include <cstring>

#include "emulator/machine.h"

namespace fastcv::emulator {

namespace {

constexpr size_t kBytes = 16;

// Those of a thread form a list, oldest first.
struct Copy {
  Copy* next;
  void* to;
  char data[kBytes];
  unsigned group;
};

struct Copies {
  Copy *first, *last;
  unsigned groups;  // that are closed
};
Copies copies_of[kMaxThreads];

Copies& own_copies() {
  return copies_of[number_of(current_thread())];
}

void remove_first(Copies& copies) {
  Copy* const copy = copies.first;
  copies.first = copy->next;
  delete copy;
}

bool is_aligned(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % kBytes == 0;
}

}  // namespace

void copy_async_16(void* to, const void* from, bool valid, CallSite site) {
  if (!is_aligned(to) || (valid && !is_aligned(from))) {
    fail_thread(describe(current_thread()) + ": an asynchronous copy " + (is_aligned(to) ? "from" : "to") +
                " an address that is not a multiple of 16, at " + site.file + ":" + std::to_string(site.line));
  }
  Copies& own = own_copies();
  Copy* const copy = new Copy{nullptr, to, {}, own.groups};
  if (valid) std::memcpy(copy->data, from, kBytes);
  std::memset(to, 0xff, kBytes);
  (own.first == nullptr ? own.first : own.last->next) = copy;
  own.last = copy;
}

void commit_copies() {
  ++own_copies().groups;
}

void wait_for_copies(unsigned groups) {
  Copies& own = own_copies();
  while (own.first != nullptr && own.first->group + groups < own.groups) {
    std::memcpy(own.first->to, own.first->data, kBytes);
    remove_first(own);
  }
}

void begin_copies(const Thread& thread) {
  Copies& copies = copies_of[number_of(thread)];
  while (copies.first != nullptr) remove_first(copies);  // of a launch that has failed
  copies.groups = 0;
}

void end_copies(const Thread& thread) {
  if (copies_of[number_of(thread)].first == nullptr) return;
  fail(describe(thread) + " returned from the kernel with asynchronous copies under way");
}

}  // namespace fastcv::emulator

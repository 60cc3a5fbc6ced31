// What the threads of a warp and of a block do together.
#include <cstring>

#include "emulator/machine.h"

namespace fastcv::emulator {

namespace {

bool same_line(CallSite a, CallSite b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

// The lane a shuffle reads from; outside of 0 to 31 means the own value.
int source_lane(const Thread& thread, int lane) {
  switch (thread.operation) {
    case Operation::kShuffleDown:
      return lane + thread.argument;
    case Operation::kShuffleUp:
      return lane - thread.argument;
    case Operation::kShuffleXor:
      return lane ^ thread.argument;
    default:
      return thread.argument & 31;
  }
}

// All lanes of the mask have come: gives each its result and wakes all but the last, which is running.
void complete_warp(Warp& warp, Thread* lanes, unsigned mask, Thread& last) {
  uint64_t values[kWarpSize];
  unsigned votes = 0;
  for (unsigned left = mask; left != 0; left &= left - 1) {
    const int lane = __builtin_ctz(left);
    values[lane] = lanes[lane].value;
    votes |= (lanes[lane].value != 0 ? 1u : 0u) << lane;
  }
  warp.waiting &= ~mask;
  if (warp.waiting == 0) warp.mixed = false;
  for (unsigned left = mask; left != 0; left &= left - 1) {
    const int lane = __builtin_ctz(left);
    Thread& thread = lanes[lane];
    switch (thread.operation) {
      case Operation::kBallot:
        thread.value = votes;
        break;
      case Operation::kAny:
        thread.value = votes != 0;
        break;
      case Operation::kAll:
        thread.value = votes == mask;
        break;
      case Operation::kWarpSync:
        break;
      default: {
        const int source = source_lane(thread, lane);
        if (source < 0 || source >= static_cast<int>(kWarpSize)) break;
        // Undefined on the GPU; all bits set are a NaN and an unlikely index.
        thread.value = (mask >> source & 1) != 0 ? values[source] : ~uint64_t{0};
      }
    }
    if (&thread != &last) wake(thread);
  }
  last.state = State::kReady;
}

bool same_collective(const Thread& a, const Thread& b) {
  return a.operation == b.operation && a.mask == b.mask;
}

// Compares the arriving thread with the lanes of its mask that wait for something else. Two lanes that wait for each
// other in different operations never meet; a lane may still be in another group's operation, and come later.
void check_companions(const Warp& warp, const Thread* lanes, const Thread& self) {
  for (unsigned left = warp.waiting & self.mask; left != 0; left &= left - 1) {
    const Thread& other = lanes[__builtin_ctz(left)];
    if (same_collective(self, other) || (other.mask >> lane_of(self) & 1) == 0) continue;
    fail_thread("divergent warp: " + describe(self) + " came to " + describe_wait(self) + ", while " + describe(other) +
                " waits for it in " + describe_wait(other));
  }
}

bool all_have_come(const Warp& warp, const Thread* lanes, const Thread& self) {
  if ((self.mask & ~warp.waiting) != 0) return false;
  if (!warp.mixed) return true;
  for (unsigned left = self.mask; left != 0; left &= left - 1) {
    if (!same_collective(self, lanes[__builtin_ctz(left)])) return false;
  }
  return true;
}

void check_mask(const Warp& warp, const Thread& self) {
  const std::string lane = std::to_string(lane_of(self));
  if ((self.mask >> lane_of(self) & 1) == 0) {
    fail_thread(describe(self) + " came to " + describe_wait(self) + ", whose mask does not name its lane " + lane);
  }
  const unsigned missing = self.mask & ~warp.existing;
  if (missing != 0) {
    fail_thread(describe(self) + " came to " + describe_wait(self) + ", which names lane " +
                std::to_string(__builtin_ctz(missing)) + ": the block has no such thread");
  }
  const unsigned exited = self.mask & warp.exited;
  if (exited != 0) {
    fail_thread(describe(self) + " came to " + describe_wait(self) + ", which names lane " +
                std::to_string(__builtin_ctz(exited)) + ": that thread has returned from the kernel");
  }
}

// All threads that have not returned have come: gives them the vote's result and wakes them. `last` runs, or is null.
void complete_block(const Thread* last) {
  Barrier& barrier = machine.barrier;
  uint64_t result = barrier.votes;
  const Operation operation = barrier.first->operation;
  if (operation == Operation::kBlockAny) result = barrier.votes != 0;
  if (operation == Operation::kBlockAll) result = barrier.votes == barrier.waiting;
  for (unsigned i = 0; i < machine.thread_count; ++i) {
    Thread& thread = machine.threads[i];
    if (thread.state != State::kInBlock) continue;
    thread.value = result;
    if (&thread == last) {
      thread.state = State::kReady;
    } else {
      wake(thread);
    }
  }
  barrier = {};
}

bool block_is_complete() {
  return machine.barrier.waiting != 0 && machine.barrier.waiting + machine.exited_count == machine.thread_count;
}

}  // namespace

uint64_t warp_collective(Operation operation, unsigned mask, uint64_t value, int argument, CallSite site) {
  Thread& self = current_thread();
  const unsigned number = number_of(self), lane = number % kWarpSize;
  Warp& warp = machine.warps[number / kWarpSize];
  Thread* const lanes = &machine.threads[number - lane];
  self.operation = operation;
  self.mask = mask;
  self.argument = argument;
  self.value = value;
  self.site = site;
  if ((mask >> lane & 1) == 0 || (mask & (~warp.existing | warp.exited)) != 0) check_mask(warp, self);

  const unsigned others = warp.waiting & mask;
  const Thread* const companion = others != 0 ? &lanes[__builtin_ctz(others)] : nullptr;
  if (warp.waiting != 0 && (companion == nullptr || !same_collective(self, *companion))) warp.mixed = true;
  if (warp.mixed) check_companions(warp, lanes, self);
  warp.waiting |= 1u << lane;
  self.state = State::kInWarp;

  const bool orders_memory = kThreadSanitizer && operation == Operation::kWarpSync;
  if (orders_memory) {
    self.token = nullptr;
    for (unsigned left = others; left != 0 && self.token == nullptr; left &= left - 1) {
      const Thread& other = lanes[__builtin_ctz(left)];
      if (same_collective(self, other)) self.token = other.token;
    }
    if (self.token == nullptr) self.token = new_token();
    release(self.token);
  }
  if (all_have_come(warp, lanes, self)) {
    complete_warp(warp, lanes, mask, self);
  } else {
    wait();
  }
  if (orders_memory) acquire(self.token);
  return self.value;
}

int block_barrier(Operation operation, bool predicate, CallSite site) {
  Thread& self = current_thread();
  Barrier& barrier = machine.barrier;
  self.operation = operation;
  self.site = site;
  if (barrier.waiting == 0) {
    barrier.first = &self;
    if (kThreadSanitizer) self.token = new_token();
  } else if (operation != barrier.first->operation || !same_line(site, barrier.first->site)) {
    fail_thread("divergent block barrier: " + describe(self) + " came to " + describe_wait(self) + ", while " +
                describe(*barrier.first) + " waits in " + describe_wait(*barrier.first));
  }
  self.token = barrier.first->token;
  if (kThreadSanitizer) release(self.token);
  self.state = State::kInBlock;
  barrier.votes += predicate ? 1 : 0;
  ++barrier.waiting;
  if (block_is_complete()) {
    complete_block(&self);
  } else {
    wait();
  }
  if (kThreadSanitizer) acquire(self.token);
  return static_cast<int>(self.value);
}

void leave_collectives(Thread& thread) {
  const unsigned lane = lane_of(thread);
  Warp& warp = machine.warps[number_of(thread) / kWarpSize];
  warp.exited |= 1u << lane;
  ++machine.exited_count;
  for (unsigned left = warp.waiting; left != 0; left &= left - 1) {
    const Thread& other = machine.threads[number_of(thread) - lane + __builtin_ctz(left)];
    if ((other.mask >> lane & 1) == 0) continue;
    fail(describe(thread) + " returned from the kernel, but " + describe(other) + " waits for it in " +
         describe_wait(other));
    return;
  }
  if (block_is_complete()) complete_block(nullptr);
}

}  // namespace fastcv::emulator

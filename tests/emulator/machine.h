// The state of the one emulated GPU: the block that runs, its warps and its threads. Plain arrays throughout: templates
// of the standard library could be linked from an object that ThreadSanitizer has instrumented.
#pragma once

#include <string>

#include "emulator/fiber.h"
#include "emulator/runtime.h"

namespace fastcv::emulator {

constexpr unsigned kMaxThreads = 1024;
constexpr unsigned kWarpSize = 32;

enum class State : uint8_t { kReady, kInWarp, kInBlock, kExited };

// A point in the order of events that ThreadSanitizer is told about; each collective has one of its own.
struct Token {
  Token* next;
};

struct Thread {
  uint3 index;
  Fiber* fiber;  // null until it first runs
  State state;
  // While it waits, and for the result afterwards:
  Operation operation;
  unsigned mask;
  int argument;
  uint64_t value;
  CallSite site;
  Token* token;
};

struct Warp {
  unsigned existing, exited, waiting;  // lanes, as masks
  bool mixed;                          // the waiting lanes differ in operation or mask
};

struct Barrier {
  unsigned waiting;
  unsigned votes;
  Thread* first;  // of the threads that wait
};

struct SharedArray {
  const void* declaration;
  void* memory;
  size_t bytes;
  SharedArray* next;
};

struct Machine {
  const KernelCall* call;
  Thread threads[kMaxThreads];
  Warp warps[kMaxThreads / kWarpSize];
  Barrier barrier;
  unsigned thread_count, exited_count;
  unsigned ready[kMaxThreads], ready_count;  // numbers of the threads that can go on
  Thread* current;
  bool failed;  // `error` is set and all fibers are to unwind
  std::string error;
  SharedArray* shared;
  uint64_t lost_cas_count;  // since the last one that was won
  // Freed at the end of the launch under ThreadSanitizer, else at the end of the block:
  SharedArray* retired_shared;
  Token* tokens;
  Token end_of_thread;
};

extern Machine machine;

inline unsigned number_of(const Thread& thread) {
  return static_cast<unsigned>(&thread - machine.threads);
}
inline unsigned lane_of(const Thread& thread) {
  return number_of(thread) % kWarpSize;
}

// Unwinds a fiber of a launch that has failed.
struct Abandon {};

void fail(const std::string& what);
[[noreturn]] void fail_thread(const std::string& what);

// Of a block, static and dynamic, on sm_86 and sm_89, which run what was compiled for sm_80. sm_80 has 163 KiB, sm_90 227:
// a kernel for which 99 are too few must ask the device which of its shapes to launch.
constexpr size_t kMaxSharedBytes = 99 << 10, kMaxSharedBytesOfSm90 = 227 << 10, kMaxStaticBytes = 48 << 10;
inline size_t max_shared_bytes(const KernelCall& call) {
  return call.is_for_sm_90 ? kMaxSharedBytesOfSm90 : kMaxSharedBytes;
}

// The thread that calls; an error outside of a kernel.
Thread& current_thread();

// Makes `thread` ready to go on after a wait.
void wake(Thread& thread);

// Sleeps until another thread wakes this one.
void wait();

// What the collectives must know when a thread returns from the kernel.
void leave_collectives(Thread& thread);

// For a thread that begins, and one that has returned from the kernel.
void begin_copies(const Thread& thread);
void end_copies(const Thread& thread);

Token* new_token();
void free_shared();
void free_tokens();

// For messages.
std::string describe(const Thread& thread);
std::string describe_wait(const Thread& thread);
std::string describe_launch();
std::string describe_threads();

}  // namespace fastcv::emulator

#include "emulator/fiber.h"

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#if !defined(__x86_64__) || defined(FASTCV_EMULATOR_UCONTEXT)
#define FASTCV_EMULATOR_USES_UCONTEXT
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(FASTCV_EMULATOR_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace fastcv::emulator {

struct Fiber {
  void* stack_pointer;
  const void* stack;  // of the host: known once a fiber has been switched to
  size_t stack_bytes;
  void (*entry)();
  void* fake_stack;      // AddressSanitizer's
  void* thread_context;  // ThreadSanitizer's
  bool finished;
  Fiber* next_free;
#if defined(FASTCV_EMULATOR_USES_UCONTEXT)
  ucontext_t context;
#endif
};

namespace {

constexpr size_t kGuardBytes = 4096;
#if defined(__SANITIZE_ADDRESS__) || defined(FASTCV_EMULATOR_TSAN)
constexpr size_t kStackBytes = 256 << 10;  // instrumented frames are larger, and reports are written on this stack
#else
constexpr size_t kStackBytes = 64 << 10;
#endif

Fiber host;
Fiber* running = &host;
Fiber* departed = nullptr;  // the one that ran before
Fiber* free_fibers = nullptr;

char* map_stack() {
  void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kGuardBytes, PROT_NONE);
  return static_cast<char*>(memory) + kGuardBytes;
}

void recycle(Fiber* fiber) {
#if defined(FASTCV_EMULATOR_TSAN)
  // The next thread on this stack must not seem to race with this one: unmapping makes the tool forget.
  __tsan_destroy_fiber(fiber->thread_context);
  munmap(static_cast<char*>(const_cast<void*>(fiber->stack)) - kGuardBytes, kGuardBytes + kStackBytes);
  fiber->stack = nullptr;
#endif
  fiber->next_free = free_fibers;
  free_fibers = fiber;
}

// What comes after each switch, on the stack that was switched to.
void arrive() {
#if defined(__SANITIZE_ADDRESS__)
  const void* stack;
  size_t bytes;
  __sanitizer_finish_switch_fiber(running->fake_stack, &stack, &bytes);
  if (departed == &host) {
    host.stack = stack;
    host.stack_bytes = bytes;
  }
#endif
  if (departed->finished) recycle(departed);
}

void run_entry() {
  arrive();
  running->entry();
  std::abort();  // entry ends with finish()
}

#if defined(FASTCV_EMULATOR_USES_UCONTEXT)

void prepare_stack(Fiber* fiber) {
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = const_cast<void*>(fiber->stack);
  fiber->context.uc_stack.ss_size = kStackBytes;
  fiber->context.uc_link = nullptr;
  makecontext(&fiber->context, run_entry, 0);
}
void switch_stack(Fiber* from, Fiber* to) {
  swapcontext(&from->context, &to->context);
}

#else

// Saves the registers that a callee must preserve on this stack, and takes them from the other one. Floating-point
// control words are left alone: no kernel changes them. Fibers mostly wait at the same place, and so `ret` is mostly
// predicted although the stack is another one.
extern "C" void fastcv_emulator_switch_stack(void** save, void* load);
asm(R"(
.text
.p2align 4
.type fastcv_emulator_switch_stack, @function
fastcv_emulator_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size fastcv_emulator_switch_stack, .-fastcv_emulator_switch_stack
)");

void prepare_stack(Fiber* fiber) {
  // Stacks lie at the same offset of their pages; without a shift their tops would all compete for one cache set.
  const uintptr_t stack = reinterpret_cast<uintptr_t>(fiber->stack);
  void** top = reinterpret_cast<void**>(stack + kStackBytes - 64 - stack / kStackBytes % 31 * 128);
  *--top = nullptr;  // ends backtraces, and leaves the stack as after a call
  *--top = reinterpret_cast<void*>(&run_entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  fiber->stack_pointer = top;
}
void switch_stack(Fiber* from, Fiber* to) {
  fastcv_emulator_switch_stack(&from->stack_pointer, to->stack_pointer);
}

#endif

void leave(Fiber* next) {
  Fiber* const self = running;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(self->finished ? nullptr : &self->fake_stack, next->stack, next->stack_bytes);
#endif
#if defined(FASTCV_EMULATOR_TSAN)
  if (self == &host) host.thread_context = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(next->thread_context, __tsan_switch_to_fiber_no_sync);
#endif
  departed = self;
  running = next;
  switch_stack(self, next);
}

}  // namespace

Fiber* take_fiber(void (*entry)()) {
  Fiber* fiber = free_fibers;
  if (fiber == nullptr) {
    fiber = new Fiber{};
  } else {
    free_fibers = fiber->next_free;
  }
  if (fiber->stack == nullptr) fiber->stack = map_stack();
  fiber->stack_bytes = kStackBytes;
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(fiber->stack, kStackBytes);
#endif
#if defined(FASTCV_EMULATOR_TSAN)
  fiber->thread_context = __tsan_create_fiber(0);
#endif
  fiber->entry = entry;
  fiber->fake_stack = nullptr;
  fiber->finished = false;
  prepare_stack(fiber);
  return fiber;
}

Fiber* host_fiber() {
  return &host;
}

Fiber* running_fiber() {
  return running;
}

void switch_to(Fiber* next) {
  leave(next);
  arrive();
}

void finish(Fiber* next) {
  running->finished = true;
  leave(next);
  std::abort();  // a finished fiber is not switched to
}

void release([[maybe_unused]] void* token) {
#if defined(FASTCV_EMULATOR_TSAN)
  __tsan_release(token);
#endif
}

void acquire([[maybe_unused]] void* token) {
#if defined(FASTCV_EMULATOR_TSAN)
  __tsan_acquire(token);
#endif
}

}  // namespace fastcv::emulator

// Fibers: stacks of their own for the emulated threads, all on one OS thread.
#pragma once

namespace fastcv::emulator {

// ThreadSanitizer is told of every fiber. The emulator itself is compiled without its instrumentation, so that the
// scheduler's own variables are no races; the build says which case it is.
#if defined(FASTCV_EMULATOR_TSAN)
constexpr bool kThreadSanitizer = true;
#else
constexpr bool kThreadSanitizer = false;
#endif

struct Fiber;

// A fiber that will run `entry` when it is first switched to. `entry` must end with finish().
Fiber* take_fiber(void (*entry)());

// The context that all fibers are started from: the OS thread's own stack.
Fiber* host_fiber();

Fiber* running_fiber();

// Leaves the running fiber for another. Returns when something switches back.
void switch_to(Fiber* next);

// Leaves the running fiber for good; its stack may serve another one.
[[noreturn]] void finish(Fiber* next);

// For ThreadSanitizer: what came before release(token) happened before what comes after acquire(token).
void release(void* token);
void acquire(void* token);

}  // namespace fastcv::emulator

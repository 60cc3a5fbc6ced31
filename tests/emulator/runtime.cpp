// The scheduler: which thread runs next.
#include "emulator/runtime.h"

#include <cstdlib>
#include <exception>
#include <mutex>
#include <numeric>

#include "emulator/machine.h"

namespace fastcv::emulator {

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
Machine machine;

namespace {

std::mutex launch_mutex;
thread_local bool launching = false;

class LaunchScope {
 public:
  LaunchScope() : lock_(launch_mutex) { launching = true; }
  ~LaunchScope() {
    machine.current = nullptr;
    launching = false;
  }

 private:
  std::lock_guard<std::mutex> lock_;
};

// A compare-and-swap that all threads lose so many times in a row is a thread waiting for one that cannot come.
constexpr uint64_t kMaxLostCas = uint64_t{1} << 22;

class Random {
 public:
  void seed(uint64_t value) { state_ = value; }
  // splitmix64
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  uint64_t below(uint64_t bound) { return static_cast<unsigned __int128>(next()) * bound >> 64; }

 private:
  uint64_t state_ = 0;
};

uint64_t first_seed() {
  const char* text = std::getenv("FASTCV_EMULATOR_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 0) : 1;
}

Random& shuffle() {
  static Random random = [] {
    Random seeded;
    seeded.seed(first_seed());
    return seeded;
  }();
  return random;
}

Random random;  // of the launch under way

// Takes one of the threads that can go on, or null.
Thread* take_ready() {
  if (machine.ready_count == 0) return nullptr;
  const unsigned pick = static_cast<unsigned>(random.below(machine.ready_count));
  const unsigned number = machine.ready[pick];
  machine.ready[pick] = machine.ready[--machine.ready_count];
  return &machine.threads[number];
}

void make_current(Thread& thread) {
  machine.current = &thread;
  threadIdx = thread.index;
}

void run_kernel_thread() {
  if (machine.failed) return;  // made but not started when another thread failed
  begin_copies(*machine.current);
  try {
    machine.call->thread(machine.call->context);
    end_copies(*machine.current);
  } catch (const Abandon&) {
  } catch (const std::exception& error) {
    fail(describe(*machine.current) + " threw an exception: " + error.what());
  } catch (...) {
    fail(describe(*machine.current) + " threw an exception");
  }
}

void run_fiber();

// The fiber to switch to for `next`; without a thread that can go on the host takes over.
Fiber* fiber_of(Thread* next) {
  if (next == nullptr) return host_fiber();
  if (next->fiber == nullptr) next->fiber = take_fiber(run_fiber);
  make_current(*next);
  return next->fiber;
}

// What each fiber runs. A thread that never waits leaves the fiber to the next one, without any switch.
void run_fiber() {
  for (;;) {
    run_kernel_thread();
    Thread& thread = *machine.current;
    thread.state = State::kExited;
    thread.fiber = nullptr;
    if (!machine.failed) leave_collectives(thread);
    release(&machine.end_of_thread);
    if (machine.failed) finish(host_fiber());
    Thread* next = take_ready();
    if (next == nullptr || next->fiber != nullptr) finish(fiber_of(next));
    next->fiber = running_fiber();
    make_current(*next);
  }
}

// Lets every fiber that is under way unwind, so that what its kernel holds is freed.
void abandon_fibers() {
  for (unsigned i = 0; i < machine.thread_count; ++i) {
    Thread& thread = machine.threads[i];
    if (thread.fiber == nullptr) continue;
    switch_to(fiber_of(&thread));
  }
}

void start_block() {
  const unsigned count = machine.thread_count;
  for (unsigned i = 0; i < count; ++i) {
    machine.threads[i].fiber = nullptr;
    machine.threads[i].state = State::kReady;
    machine.ready[i] = i;
  }
  machine.ready_count = count;
  for (unsigned first = 0; first < count; first += kWarpSize) {
    const unsigned lanes = count - first;
    machine.warps[first / kWarpSize] = {lanes < kWarpSize ? (1u << lanes) - 1 : ~0u, 0, 0, false};
  }
  machine.exited_count = 0;
  machine.barrier = {};
  machine.lost_cas_count = 0;
}

void run_block() {
  start_block();
  if (kThreadSanitizer) {
    // A fiber comes after all that its maker has done; made by the host, it comes after no other thread of the block.
    for (unsigned i = 0; i < machine.thread_count; ++i) machine.threads[i].fiber = take_fiber(run_fiber);
  }
  switch_to(fiber_of(take_ready()));
  machine.current = nullptr;
  if (!machine.failed && machine.exited_count < machine.thread_count) fail("no thread can go on");
  if (machine.failed) abandon_fibers();
  free_shared();
}

void start_launch(const KernelCall& call) {
  machine.call = &call;
  machine.failed = false;
  machine.error.clear();
  gridDim = call.grid;
  const bool same_block = call.block.x == blockDim.x && call.block.y == blockDim.y && call.block.z == blockDim.z;
  if (!same_block) {
    blockDim = call.block;
    machine.thread_count = blockDim.x * blockDim.y * blockDim.z;
    uint3 index = {0, 0, 0};
    for (unsigned i = 0; i < machine.thread_count; ++i) {
      machine.threads[i].index = index;
      if (++index.x < blockDim.x) continue;
      index.x = 0;
      if (++index.y < blockDim.y) continue;
      index.y = 0;
      ++index.z;
    }
  }
  random.seed(shuffle().next());
}

// Walks the blocks by a stride that has no divisor in common with their number: each once, in an order of its own.
void run_blocks() {
  const uint64_t count = uint64_t{gridDim.x} * gridDim.y * gridDim.z;
  uint64_t block = random.below(count);
  uint64_t stride = 1 + random.below(count);
  while (std::gcd(stride, count) != 1) ++stride;
  stride %= count;
  for (uint64_t i = 0; i < count && !machine.failed; ++i) {
    const uint64_t row = block / gridDim.x;
    blockIdx = {static_cast<unsigned>(block % gridDim.x), static_cast<unsigned>(row % gridDim.y),
                static_cast<unsigned>(row / gridDim.y)};
    run_block();
    block += stride;
    if (block >= count) block -= count;
  }
}

}  // namespace

unsigned lane() {
  return lane_of(*machine.current);
}

Thread& current_thread() {
  if (machine.current == nullptr) throw EmulatorError("a device function was called outside of a kernel");
  return *machine.current;
}

void fail(const std::string& what) {
  if (machine.failed) return;
  machine.error = what + "\n" + describe_launch() + describe_threads();
  machine.failed = true;
}

void fail_thread(const std::string& what) {
  fail(what);
  throw Abandon{};
}

void check_alignment(const void* address, size_t alignment) {
  if (reinterpret_cast<uintptr_t>(address) % alignment == 0) return;
  fail_thread(describe(current_thread()) + " moves a pack of " + std::to_string(alignment) +
              " bytes, whose address is not a multiple of that");
}

void wake(Thread& thread) {
  thread.state = State::kReady;
  machine.ready[machine.ready_count++] = number_of(thread);
}

void wait() {
  Fiber* const next = fiber_of(take_ready());
  if (next != running_fiber()) switch_to(next);
  if (machine.failed) throw Abandon{};
}

void after_cas(bool won) {
  if (won) {
    machine.lost_cas_count = 0;
    return;
  }
  if (++machine.lost_cas_count > kMaxLostCas) fail_thread("no thread wins its atomic_cas any more");
  if (machine.ready_count == 0) return;
  wake(*machine.current);
  wait();
}

void run(const KernelCall& call) {
  if (launching) throw EmulatorError("a kernel cannot launch a kernel");
  if (call.shared_bytes > max_shared_bytes(call)) {
    throw EmulatorError("a block has at most " + std::to_string(max_shared_bytes(call) >> 10) +
                        " KiB of shared memory, asked for " + std::to_string(call.shared_bytes) + " bytes");
  }
  const LaunchScope scope;
  start_launch(call);
  run_blocks();
  acquire(&machine.end_of_thread);
  free_tokens();
  if (machine.failed) throw EmulatorError(machine.error);
}

void set_seed(uint64_t seed) {
  const std::lock_guard<std::mutex> lock(launch_mutex);
  shuffle().seed(seed);
}

}  // namespace fastcv::emulator

extern "C" void fastcv_emulator_set_seed(uint64_t seed) {
  fastcv::emulator::set_seed(seed);
}

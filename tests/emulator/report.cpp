// The words of an EmulatorError: who waits where.
#include <cstdio>

#include "emulator/machine.h"

namespace fastcv::emulator {

namespace {

std::string hex(unsigned mask) {
  char text[16];
  std::snprintf(text, sizeof(text), "0x%08x", mask);
  return text;
}

}  // namespace

std::string describe(const Thread& thread) {
  return "thread (" + std::to_string(thread.index.x) + ", " + std::to_string(thread.index.y) + ", " +
         std::to_string(thread.index.z) + ")";
}

std::string describe_wait(const Thread& thread) {
  constexpr const char* kNames[] = {"warp_shuffle", "warp_shuffle_down", "warp_shuffle_up", "warp_shuffle_xor",
                                    "warp_ballot",  "warp_any",          "warp_all",        "warp_sync",
                                    "block_sync",   "block_any",         "block_all",       "block_count"};
  std::string text = kNames[static_cast<int>(thread.operation)];
  if (thread.operation <= Operation::kWarpSync) text += " of mask " + hex(thread.mask);
  return text + " at " + thread.site.file + ":" + std::to_string(thread.site.line);
}

std::string describe_launch() {
  const KernelCall& call = *machine.call;
  const auto triple = [](auto e) {
    return "(" + std::to_string(e.x) + ", " + std::to_string(e.y) + ", " + std::to_string(e.z) + ")";
  };
  return "  kernel launched at " + std::string(call.site.file) + ":" + std::to_string(call.site.line) + ", grid " +
         triple(call.grid) + " of blocks " + triple(call.block) + ", in block " + triple(blockIdx) + "\n";
}

// One line for each state, with the numbers of the threads that are in it.
std::string describe_threads() {
  const auto state = [](const Thread& thread) -> std::string {
    if (thread.state == State::kExited) return "returned from the kernel";
    if (thread.state != State::kReady) return "wait in " + describe_wait(thread);
    if (&thread == machine.current) return "running";
    return thread.fiber != nullptr ? "can go on" : "not started";
  };
  bool told[kMaxThreads] = {};
  std::string text;
  for (unsigned first = 0; first < machine.thread_count; ++first) {
    if (told[first]) continue;
    const std::string common = state(machine.threads[first]);
    std::string numbers;
    for (unsigned i = first, next; i < machine.thread_count; i = next) {
      for (next = i; next < machine.thread_count && state(machine.threads[next]) == common;) told[next++] = true;
      if (next > i) numbers += (numbers.empty() ? "" : ", ") + std::to_string(i);
      if (next > i + 1) numbers += "-" + std::to_string(next - 1);
      if (next == i) ++next;
    }
    text += "  " + common + ": threads " + numbers + "\n";
  }
  return text;
}

}  // namespace fastcv::emulator

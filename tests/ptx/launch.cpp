#include "ptx/launch.h"

#include <map>
#include <string>

#include "emulator/machine.h"
#include "ptx/memory.h"
#include "ptx/runtime.h"

namespace fastcv::ptx {

namespace {

std::map<const void*, const Entry*>& entries() {
  static std::map<const void*, const Entry*> map;
  return map;
}

struct Launch {
  const Entry* entry;
  const emulator::KernelCall* call;
  const Parameters* parameters;
  bool has_begun = false;
  uint3 block;
};

const Launch* running;

[[noreturn]] void refuse(const Entry& entry, const std::string& what) {
  throw emulator::EmulatorError(what + ": " + entry.name + " of " + entry.file);
}

void check_parameters(const Entry& entry, const Parameters& parameters) {
  bool same = entry.parameter_count == parameters.count;
  for (unsigned i = 0; same && i < entry.parameter_count; ++i) {
    const Extent& expected = entry.parameters[i];
    same = expected.offset == parameters.places[i].offset && expected.size == parameters.places[i].size;
  }
  if (!same) refuse(entry, "the launch lays its parameters out otherwise than the PTX");
}

// What the driver refuses.
void check_limits(const Entry& entry, const emulator::KernelCall& call) {
  const unsigned threads = call.block.x * call.block.y * call.block.z;
  if (threads > entry.max_threads) {
    refuse(entry, "a block of " + std::to_string(threads) + " threads, more than the " +
                      std::to_string(entry.max_threads) + " of __launch_bounds__");
  }
  const size_t bytes = entry.static_bytes + call.shared_bytes;
  const unsigned most = entry.is_sm_90a ? kMaxHopperBytes : kMaxSharedBytes;
  if (entry.static_bytes > 48 << 10 || bytes > most) {
    refuse(entry, "a block with " + std::to_string(bytes) + " bytes of shared memory, " +
                      std::to_string(entry.static_bytes) + " of them static; " + (entry.is_sm_90a ? "sm_90" : "sm_86") +
                      " has " + std::to_string(most >> 10) + " KiB, 48 KiB static");
  }
}

// Blocks run one after the other, so the first thread of another block begins it.
void run_thread(const void* context) {
  Launch& launch = *static_cast<Launch*>(const_cast<void*>(context));
  const Entry& entry = *launch.entry;
  const bool same = launch.block.x == blockIdx.x && launch.block.y == blockIdx.y && launch.block.z == blockIdx.z;
  if (!launch.has_begun) {
    running = &launch;
    use_noted_memory();
  }
  if (!launch.has_begun || !same) {
    start_block_memory(entry, static_cast<unsigned>(launch.call->shared_bytes));
    start_block_products();
    launch.has_begun = true;
    launch.block = blockIdx;
  }
  start_thread_memory();
  start_thread_matrices();
  start_thread_products();
  entry.run(launch.parameters->bytes);
  check_no_copies(entry);
  end_thread_products();
}

}  // namespace

Translated::Translated(const void* kernel, const Entry& entry) {
  entries()[kernel] = &entry;
}

void launch(const void* kernel, const emulator::KernelCall& call, const Parameters& parameters) {
  const auto found = entries().find(kernel);
  if (found == entries().end()) {
    throw emulator::EmulatorError("no PTX was translated for the kernel launched at " + std::string(call.site.file) +
                                  ":" + std::to_string(call.site.line));
  }
  launch(*found->second, call, parameters);
}

void launch(const Entry& entry, const emulator::KernelCall& call, const Parameters& parameters) {
  check_parameters(entry, parameters);
  check_limits(entry, call);
  Launch launch{&entry, &call, &parameters, false, {0, 0, 0}};
  emulator::KernelCall ours = call;
  ours.thread = run_thread;
  ours.context = &launch;
  emulator::run(ours);
}

const Entry& running_entry() {
  return *running->entry;
}

const char* parameter_read(uint64_t address, unsigned bytes, unsigned line) {
  const Parameters& parameters = *running->parameters;
  if (address % bytes != 0 || address > parameters.end || parameters.end - address < bytes) {
    fault("read of " + std::to_string(bytes) + " bytes outside of the kernel's parameters, or not aligned", line);
  }
  return parameters.bytes + address;
}

void fault(const std::string& what, unsigned line) {
  emulator::fail_thread(emulator::describe(emulator::current_thread()) + ": " + what + ", at " + running_entry().file +
                        ":" + std::to_string(line));
}

void fault_division(unsigned line) {
  fault("division of an integer by zero", line);
}

}  // namespace fastcv::ptx

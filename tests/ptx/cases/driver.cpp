// For tests: launches a translated kernel from Python, through ctypes.
#include <cstring>
#include <exception>

#include "emulator/runtime.h"
#include "ptx/launch.h"
#include "ptx/memory.h"

namespace fastcv::ptx {

extern const Entry* const cases[];  // written by the build

}  // namespace fastcv::ptx

// Launches cases[number] with `count` parameters, of these sizes and values. Returns the text of the error, or null.
extern "C" __attribute__((visibility("default"))) const char* fastcv_ptx_launch(unsigned number, unsigned blocks,
                                                                                unsigned threads, size_t shared_bytes,
                                                                                unsigned count, const unsigned* sizes,
                                                                                const uint64_t* values) {
  using namespace fastcv;
  static char text[4096];
  ptx::Parameters parameters;
  for (unsigned i = 0; i < count; ++i) {
    if (sizes[i] == 8) parameters.add(values[i]);
    if (sizes[i] == 4) parameters.add(static_cast<uint32_t>(values[i]));
  }
  const emulator::KernelCall call{{blocks, 1, 1},       {threads, 1, 1}, shared_bytes,
                                  {__FILE__, __LINE__}, nullptr,         nullptr};
  try {
    ptx::launch(*ptx::cases[number], call, parameters);
  } catch (const std::exception& error) {
    std::strncpy(text, error.what(), sizeof(text) - 1);
    return text;
  }
  return nullptr;
}

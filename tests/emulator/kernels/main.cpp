// Runs one case: <program> <case> [first seed] [number of seeds]. Prints how many answers were right and wrong.
// Without arguments, prints the names of the cases.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <initializer_list>

#include "emulator/kernels/cases.h"
#if defined(FASTCV_EMULATED)
#include "emulator/runtime.h"
#endif

namespace {

const Case* find_case(const char* name) {
  for (const CaseList list : {block_cases(), warp_cases(), grid_cases(), buggy_cases()}) {
    for (size_t i = 0; i < list.count; ++i) {
      if (name == nullptr) std::printf("%s\n", list.cases[i].name);
      if (name != nullptr && std::strcmp(list.cases[i].name, name) == 0) return &list.cases[i];
    }
  }
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  const Case* const found = find_case(argc > 1 ? argv[1] : nullptr);
  if (found == nullptr) return argc > 1 ? 2 : 0;
  const unsigned first = argc > 2 ? static_cast<unsigned>(std::atoi(argv[2])) : 0;
  const unsigned seeds = argc > 3 ? static_cast<unsigned>(std::atoi(argv[3])) : 1;
  unsigned right = 0;
  for (unsigned seed = first; seed < first + seeds; ++seed) {
#if defined(FASTCV_EMULATED)
    if (argc > 2) fastcv::emulator::set_seed(seed);
#endif
    try {
      right += found->is_right() ? 1 : 0;
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
      return 3;
    }
  }
  std::printf("right %u wrong %u\n", right, seeds - right);
  return 0;
}

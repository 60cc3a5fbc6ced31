#include "core/cpu_variants.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace fastcv {
namespace {

constexpr CpuVariant kBestFirst[] = {CpuVariant::kAvx512Bf16, CpuVariant::kAvx512, CpuVariant::kAvx2,
                                     CpuVariant::kBaseline};

// Whether the variant runs here at all, if only by the twin of an instruction.
bool can_be_forced(CpuVariant variant) {
  return is_available(variant == CpuVariant::kAvx512Bf16 ? CpuVariant::kAvx512 : variant);
}

CpuVariant choose_variant() {
  const char* forced = std::getenv("FASTCV_CPU_VARIANT");
  if (forced != nullptr && *forced != '\0') {
    for (CpuVariant variant : kBestFirst) {
      if (std::strcmp(forced, name_of(variant)) != 0) continue;
      if (can_be_forced(variant)) return variant;
      throw std::runtime_error(std::string("FASTCV_CPU_VARIANT=") + forced + " is not available on this processor");
    }
    throw std::runtime_error(std::string("FASTCV_CPU_VARIANT must be baseline, avx2, avx512 or avx512_bf16, got ") +
                             forced);
  }
  for (CpuVariant variant : kBestFirst) {
    if (is_available(variant)) return variant;
  }
  return CpuVariant::kBaseline;
}

CpuVariant& current_variant() {
  static CpuVariant variant = choose_variant();
  return variant;
}

}  // namespace

const char* name_of(CpuVariant variant) {
  switch (variant) {
    case CpuVariant::kAvx512Bf16:
      return "avx512_bf16";
    case CpuVariant::kAvx512:
      return "avx512";
    case CpuVariant::kAvx2:
      return "avx2";
    default:
      return "baseline";
  }
}

bool is_available(CpuVariant variant) {
  if (variant == CpuVariant::kBaseline) return true;
#if defined(FASTCV_X86_VARIANTS)
  if (variant == CpuVariant::kAvx2) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  }
  if (variant == CpuVariant::kAvx512Bf16) {
    return __builtin_cpu_supports("avx512bf16") && is_available(CpuVariant::kAvx512);
  }
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && is_available(CpuVariant::kAvx2);
#else
  return false;
#endif
}

CpuVariant cpu_variant() {
  return current_variant();
}

void set_cpu_variant(CpuVariant variant) {
  if (!can_be_forced(variant)) {
    throw std::invalid_argument(std::string("CPU variant ") + name_of(variant) + " is not available here");
  }
  current_variant() = variant;
}

Bf16Products bf16_products() {
  if (cpu_variant() != CpuVariant::kAvx512Bf16) return Bf16Products::kFloat;
  return is_available(CpuVariant::kAvx512Bf16) ? Bf16Products::kInstruction : Bf16Products::kTwin;
}

}  // namespace fastcv

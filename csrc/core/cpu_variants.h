// One CPU source, several instruction sets, chosen at load.
//
// Each <op>_cpu.cpp is compiled once per variant with FASTCV_VARIANT set to the variant's name, and defines its entry
// points in namespace fastcv::FASTCV_VARIANT. FASTCV_DECLARE_KERNEL in <op>.h declares all of them beside the CUDA
// launcher; FASTCV_RUN (dispatch.h) calls the right one. FASTCV_CPU_VARIANT in the environment forces a variant.
#pragma once

#include "core/stream.h"

namespace fastcv {

enum class CpuVariant { kBaseline, kAvx2, kAvx512 };

const char* name_of(CpuVariant variant);
bool is_available(CpuVariant variant);  // compiled in, and this processor has the instructions
CpuVariant cpu_variant();               // the one in use
void set_cpu_variant(CpuVariant variant);

}  // namespace fastcv

#define FASTCV_DECLARE_KERNEL(name, Params) \
  namespace baseline {                      \
  void name##_cpu(const Params& params);    \
  }                                         \
  namespace avx2 {                          \
  void name##_cpu(const Params& params);    \
  }                                         \
  namespace avx512 {                        \
  void name##_cpu(const Params& params);    \
  }                                         \
  void name##_cuda(const Params& params, Stream stream)

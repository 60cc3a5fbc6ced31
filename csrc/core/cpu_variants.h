// One CPU source, several instruction sets, chosen at load.
//
// Each <op>_cpu.cpp is compiled once per variant with FASTCV_VARIANT set to the variant's name, and defines its entry
// points in namespace fastcv::FASTCV_VARIANT. FASTCV_DECLARE_KERNEL in <op>.h declares all of them beside the CUDA
// launcher; FASTCV_RUN (dispatch.h) calls the right one. FASTCV_CPU_VARIANT in the environment forces a variant.
//
// avx512_bf16 is no compilation of its own: it runs the avx512 kernels, of which those that multiply matrices ask
// bf16_products(). Where the processor lacks the instruction it is never chosen, but can be forced: the kernels then
// use the instruction's twin (bf16_pair_cpu.h), which is slow and serves tests.
#pragma once

#include "core/stream.h"

namespace fastcv {

enum class CpuVariant { kBaseline, kAvx2, kAvx512, kAvx512Bf16 };

const char* name_of(CpuVariant variant);
bool is_available(CpuVariant variant);  // compiled in, and this processor has the instructions
CpuVariant cpu_variant();               // the one in use
void set_cpu_variant(CpuVariant variant);

// How products of bfloat16 are taken, by the kernels that have more than one way: of floats, by AVX512-BF16's
// instruction, or by its twin.
enum class Bf16Products { kFloat, kInstruction, kTwin };
Bf16Products bf16_products();

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

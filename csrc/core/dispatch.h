// FASTCV_RUN(name, params, tensor): calls the kernel `name` where `tensor` lives, without holding the GIL; nothing
// where it is only a description.
// The only place that knows which devices this build serves.
#pragma once

#include <stdexcept>
#include <string>

#include "core/arguments.h"
#include "core/cpu_variants.h"

namespace fastcv {

// False in the test build, where CPU tensors play device memory and the CUDA kernels run on them.
#if defined(FASTCV_EMULATED)
constexpr bool kHasCpuKernels = false;
#else
constexpr bool kHasCpuKernels = true;
#endif

inline bool runs_on_cpu(const TensorView& tensor) {
  return kHasCpuKernels && !tensor.on_cuda;
}

// Whether kernels may round float32 to tf32, as torch.backends.cudnn allows it for convolutions. Read where an operator
// runs, not where it is traced: a compiled model follows the setting of each call, as torch's own convolutions do.
inline bool may_use_tf32(const TensorView& tensor) {
  if (tensor.dtype != DType::kFloat32 || tensor.is_description || runs_on_cpu(tensor)) return false;
  const pybind11::object cudnn = pybind11::module_::import("torch").attr("backends").attr("cudnn");
  return cudnn.attr("conv").attr("fp32_precision").cast<std::string>() == "tf32";
}

}  // namespace fastcv

#if defined(FASTCV_EMULATED)
// The test build: the .cu files compiled as plain C++; CPU tensors play device memory.
#define FASTCV_RUN_CPU(name, params) name##_cuda(params, Stream{0, nullptr})
#elif defined(FASTCV_X86_VARIANTS)
#define FASTCV_RUN_CPU(name, params) \
  switch (cpu_variant()) {           \
    case CpuVariant::kAvx512Bf16:    \
    case CpuVariant::kAvx512:        \
      avx512::name##_cpu(params);    \
      break;                         \
    case CpuVariant::kAvx2:          \
      avx2::name##_cpu(params);      \
      break;                         \
    default:                         \
      baseline::name##_cpu(params);  \
  }
#else
#define FASTCV_RUN_CPU(name, params) baseline::name##_cpu(params)
#endif

// FASTCV_RUN_ON_CPU(name, params): the same for kernels that there are on the CPU alone; of no effect in the test build.
// The binding has found that runs_on_cpu.
#if defined(FASTCV_EMULATED)
#define FASTCV_RUN_ON_CPU(name, params) static_cast<void>(params)
#else
#define FASTCV_RUN_ON_CPU(name, params)   \
  do {                                    \
    pybind11::gil_scoped_release release; \
    FASTCV_RUN_CPU(name, params);         \
  } while (false)
#endif

#if defined(FASTCV_WITH_CUDA)
#define FASTCV_RUN_CUDA(name, params, stream) name##_cuda(params, stream)
#else
#define FASTCV_RUN_CUDA(name, params, stream)                                                                          \
  throw std::runtime_error(                                                                                            \
      "this fastcv was built without CUDA and cannot use a CUDA tensor; rebuild where nvcc is installed (pip install " \
      "with -C cmake.define.FASTCV_CUDA=ON), or move the tensors to the CPU")
#endif

#define FASTCV_RUN(name, params, tensor)                       \
  do {                                                         \
    if ((tensor).is_description) break;                        \
    if ((tensor).on_cuda) {                                    \
      [[maybe_unused]] Stream stream = current_stream(tensor); \
      pybind11::gil_scoped_release release;                    \
      FASTCV_RUN_CUDA(name, params, stream);                   \
    } else {                                                   \
      pybind11::gil_scoped_release release;                    \
      FASTCV_RUN_CPU(name, params);                            \
    }                                                          \
  } while (false)

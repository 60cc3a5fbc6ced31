#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "core/arena.h"
#include "core/cpu_variants.h"
#include "core/dispatch.h"
#include "core/memory.h"

namespace py = pybind11;

namespace fastcv {
namespace {

constexpr CpuVariant kVariants[] = {CpuVariant::kBaseline, CpuVariant::kAvx2, CpuVariant::kAvx512,
                                    CpuVariant::kAvx512Bf16};

const char* name_of(Bf16Products products) {
  if (products == Bf16Products::kFloat) return "float32";
  return products == Bf16Products::kInstruction ? "instruction" : "emulated";
}

py::dict build_info() {
  std::vector<std::string> available;
  for (CpuVariant variant : kVariants) {
    if (is_available(variant)) available.emplace_back(name_of(variant));
  }
  py::dict info;
  info["version"] = FASTCV_VERSION;
  info["compiler"] = __VERSION__;
  info["cpu_variant"] = name_of(cpu_variant());
  info["cpu_variants"] = available;
  info["bf16_products"] = name_of(bf16_products());
#if defined(FASTCV_WITH_CUDA)
  info["cuda"] = true;
  info["cuda_version"] = FASTCV_CUDA_VERSION;
  info["cuda_architectures"] = FASTCV_CUDA_ARCHITECTURES;
#else
  info["cuda"] = false;
  info["cuda_version"] = py::none();
  info["cuda_architectures"] = "";
#endif
#if defined(_OPENMP)
  info["openmp"] = true;
#else
  info["openmp"] = false;
#endif
  return info;
}

void set_cpu_variant_by_name(const std::string& name) {
  for (CpuVariant variant : kVariants) {
    if (name == name_of(variant)) return set_cpu_variant(variant);
  }
  throw py::value_error("variant must be 'baseline', 'avx2', 'avx512' or 'avx512_bf16', got '" + name + "'");
}

}  // namespace

void bind_build_info(py::module_& module) {
  cpu_variant();  // a FASTCV_CPU_VARIANT that cannot be had is an error of the import, not of the first call
  module.def("build_info", &build_info);
  module.def("set_cpu_variant", &set_cpu_variant_by_name, py::arg("variant"));
  module.def("fail_allocation_after", &fail_allocation_after, py::arg("count"));
  module.def("set_arena", &set_arena, py::arg("on"));
  module.def("release_arena", &release_arena);
  module.def("arena_use", [] {
    const ArenaUse use = arena_use();
    return py::make_tuple(use.used, use.free);
  });
  module.def("empty_in_arena", [](const TensorView& like, int64_t channels) {
    const ArenaScope scope(true);
    check_shape({like, "like"}, {kAny, kAny, kAny, kAny}, "(N, C, H, W)");
    return std::move(new_dense(like, like.dtype, like.shape[0], channels, like.shape[2], like.shape[3]).object);
  });
}

}  // namespace fastcv

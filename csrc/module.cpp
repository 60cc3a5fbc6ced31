#include <pybind11/pybind11.h>

namespace fastcv {

void bind_build_info(pybind11::module_& module);
void bind_tensor(pybind11::module_& module);

// ops.inc is written by the build: one FASTCV_OP(<op>) for each folder of csrc/ops.
#define FASTCV_OP(op) void bind_##op(pybind11::module_& module);
#include "ops.inc"
#undef FASTCV_OP

}  // namespace fastcv

PYBIND11_MODULE(FASTCV_MODULE_NAME, module, pybind11::mod_gil_not_used()) {
  fastcv::bind_build_info(module);
  fastcv::bind_tensor(module);
#define FASTCV_OP(op) fastcv::bind_##op(module);
#include "ops.inc"
#undef FASTCV_OP
}

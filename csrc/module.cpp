#include <pybind11/pybind11.h>

namespace fastcv {

void bind_build_info(pybind11::module_& module);

// rooms.inc is written by the build: one FASTCV_ROOM(<op>) for each folder of csrc/ops.
#define FASTCV_ROOM(op) void bind_##op(pybind11::module_& module);
#include "rooms.inc"
#undef FASTCV_ROOM

}  // namespace fastcv

PYBIND11_MODULE(FASTCV_MODULE_NAME, module, pybind11::mod_gil_not_used()) {
  fastcv::bind_build_info(module);
#define FASTCV_ROOM(op) fastcv::bind_##op(module);
#include "rooms.inc"
#undef FASTCV_ROOM
}

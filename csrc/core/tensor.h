// Tensors as the bindings see them: a borrowed view through the DLPack C exchange API, and the checks at the boundary.
//
// torch >= 2.10 publishes a table of C functions as type(tensor).__dlpack_c_exchange_api__. One of them fills a
// DLTensor (pointer, shape, strides, dtype, device) from a Python object without touching reference counts, another
// names the stream that torch would launch on. Nothing here needs a torch header, so one build serves every torch.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>

#include "core/stream.h"
#include "core/types.h"

namespace fastcv {

struct TensorView {
  static constexpr int kMaxRank = 8;
  void* data = nullptr;
  int rank = 0;
  int64_t shape[kMaxRank] = {};
  int64_t strides[kMaxRank] = {};  // in elements
  DType dtype = DType::kOther;
  bool on_cuda = false;
  int device = 0;
  PyObject* object = nullptr;  // the tensor itself, borrowed

  int64_t elements() const {
    int64_t count = 1;
    for (int i = 0; i < rank; ++i) count *= shape[i];
    return count;
  }
  bool is_contiguous() const;
};

// Fills the view from a torch.Tensor. Throws TypeError for anything else, and for tensors without memory of their own
// (fake, meta, sparse, wrapper subclasses).
TensorView view_of(PyObject* object);

// a * b; throws ValueError where that is too large.
int64_t multiply_sizes(int64_t a, int64_t b);

// A tensor that torch has allocated, uninitialised: the object to return, and what a kernel writes to.
struct NewTensor {
  pybind11::object object;
  TensorView view;
};

// On the device of `like`. Throws what torch throws when there is not so much memory.
NewTensor new_tensor(const TensorView& like, DType dtype, std::initializer_list<int64_t> shape,
                     std::initializer_list<int64_t> strides);
NewTensor new_contiguous(const TensorView& like, DType dtype, std::initializer_list<int64_t> shape);
// Four axes in the layout of `like`, which has four: channels_last where its channels are next to each other and it is
// not contiguous.
NewTensor new_dense(const TensorView& like, DType dtype, int64_t n, int64_t c, int64_t h, int64_t w);

// The stream that torch would launch on for this tensor. CUDA tensors only; the emulator has no streams.
Stream current_stream(const TensorView& tensor);

// An argument under check: the view and the name the user knows it by.
struct Argument {
  const TensorView& view;
  const char* name;
};

constexpr int64_t kAny = -1;

// Each throws ValueError or TypeError saying which argument, what was expected and what came. `meaning` names the axes,
// as in "(K, 5)".
void check_shape(Argument argument, std::initializer_list<int64_t> shape, const char* meaning);
void check_dtype(Argument argument, DType expected);
void check_floating(Argument argument);
void check_contiguous(Argument argument);
// A 4-D tensor must be dense: contiguous or channels_last. Writes the strides that its shape gives for that layout,
// with no arbitrary values for axes of size one.
void check_dense(Argument argument, int64_t (&strides)[4]);
void check_same_dtype(Argument argument, Argument other);
void check_same_device(Argument argument, Argument other);

// The dtype that sums of `dtype` are kept in: float64 for float64, else float32.
inline DType accumulate_dtype(DType dtype) {
  return dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

const char* name_of(DType dtype);
pybind11::handle torch_dtype(DType dtype);  // such as torch.float32

}  // namespace fastcv

namespace pybind11::detail {

template <>
struct type_caster<fastcv::TensorView> {
  PYBIND11_TYPE_CASTER(fastcv::TensorView, const_name("torch.Tensor"));
  bool load(handle source, bool) {
    value = fastcv::view_of(source.ptr());
    return true;
  }
};

}  // namespace pybind11::detail

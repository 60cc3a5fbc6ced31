// What a binding sees of a torch.Tensor. Nothing here needs a torch header, so one build serves every torch: the view
// comes over the DLPack exchange API.
//
// In place of a tensor a binding may get a description: shape, strides, dtype and device of a tensor that a trace only
// stands for. The binding checks it and allocates as ever, which gives descriptions too; FASTCV_RUN then runs nothing.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

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
  bool is_description = false;
  int device = 0;
  PyObject* object = nullptr;      // the tensor itself, borrowed
  const void* exchange = nullptr;  // its DLPackExchangeAPI
  pybind11::object copy;           // what holds the memory, where it is not the user's tensor

  int64_t elements() const {  // torch keeps it below 2^63
    int64_t count = 1;
    for (int i = 0; i < rank; ++i) count *= shape[i];
    return count;
  }
  bool is_contiguous() const;
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

// Or None.
struct OptionalTensor : TensorView {
  explicit operator bool() const { return object != nullptr; }
};

// A list or tuple of tensors.
struct TensorList {
  static constexpr int kMost = 16;
  int count = 0;
  TensorView views[kMost];
};

// A list or tuple of ints, and one of floats.
template <class T>
struct Numbers {
  static constexpr int kMost = 64;
  int count = 0;
  T values[kMost] = {};
  T operator[](int i) const { return values[i]; }
};
using Ints = Numbers<int64_t>;
using Floats = Numbers<double>;

// What stands for a tensor in a trace, made by fastcv.ops._define.
struct Description {
  TensorView view;
  pybind11::object dtype;  // torch's
  std::string device;      // "cpu", "cuda", "meta"
};
void bind_tensor(pybind11::module_& module);

// The view of a torch.Tensor or a description; `read_view` fills a new one in its place. Throws TypeError for anything
// else, and for tensors without memory of their own (fake, meta, sparse, wrapper subclasses).
void read_view(PyObject* object, TensorView& view);
inline TensorView view_of(PyObject* object) {
  TensorView view;
  read_view(object, view);
  return view;
}

// The stream that torch would launch on for this tensor. CUDA tensors only; the emulator has no streams.
Stream current_stream(const TensorView& tensor);

// The dtype that sums of `dtype` are kept in: float64 for float64, else float32.
inline DType accumulate_dtype(DType dtype) {
  return dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

// What torch promotes two floating dtypes to.
inline DType promoted(DType a, DType b) {
  if (a == b) return a;
  return a == DType::kFloat64 || b == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

int64_t size_of(DType dtype);  // in bytes
const char* name_of(DType dtype);
pybind11::handle torch_dtype(DType dtype);  // such as torch.float32

}  // namespace fastcv

namespace pybind11::detail {

template <>
struct type_caster<fastcv::TensorView> {
  PYBIND11_TYPE_CASTER(fastcv::TensorView, const_name("torch.Tensor"));
  bool load(handle source, bool) {
    fastcv::read_view(source.ptr(), value);
    return true;
  }
};

template <>
struct type_caster<fastcv::OptionalTensor> {
  PYBIND11_TYPE_CASTER(fastcv::OptionalTensor, const_name("torch.Tensor | None"));
  bool load(handle source, bool) {
    if (!source.is_none()) fastcv::read_view(source.ptr(), value);
    return true;
  }
};

template <>
struct type_caster<fastcv::TensorList> {
  PYBIND11_TYPE_CASTER(fastcv::TensorList, const_name("list[torch.Tensor]"));
  bool load(handle source, bool) {
    if (!PyList_Check(source.ptr()) && !PyTuple_Check(source.ptr())) return false;
    const auto sequence = reinterpret_borrow<pybind11::sequence>(source);
    if (sequence.size() > value.kMost) return false;
    for (const auto& item : sequence) fastcv::read_view(handle(item).ptr(), value.views[value.count++]);
    return true;
  }
};

template <class T>
struct type_caster<fastcv::Numbers<T>> {
  PYBIND11_TYPE_CASTER(fastcv::Numbers<T>, const_name("list[number]"));
  bool load(handle source, bool convert) {
    if (!PyList_Check(source.ptr()) && !PyTuple_Check(source.ptr())) return false;
    const Py_ssize_t count = PySequence_Fast_GET_SIZE(source.ptr());
    if (count > value.kMost) return false;
    for (Py_ssize_t i = 0; i < count; ++i) {
      make_caster<T> number;
      if (!number.load(PySequence_Fast_GET_ITEM(source.ptr(), i), convert)) return false;
      value.values[value.count++] = cast_op<T>(number);
    }
    return true;
  }
};

}  // namespace pybind11::detail

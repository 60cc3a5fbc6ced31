#include "core/arguments.h"

#include <dlpack.h>

#include <cstring>

#include "core/arena.h"
#include "core/dispatch.h"

namespace py = pybind11;

namespace fastcv {
namespace {

// What compiled graphs allocate with: a third of the time of new_empty_strided. Private to torch, so it may be None.
const py::object& empty_strided_cpu() {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::object> storage;
  return storage
      .call_once_and_store_result([]() -> py::object {
        const py::object dynamo = py::module_::import("torch").attr("_C").attr("_dynamo");
        return py::getattr(py::getattr(dynamo, "guards", py::none()), "_empty_strided_cpu", py::none());
      })
      .get_stored();
}

py::tuple tuple_of(const int64_t* values, int count) {
  py::tuple tuple(count);
  for (int i = 0; i < count; ++i) PyTuple_SET_ITEM(tuple.ptr(), i, py::int_(values[i]).release().ptr());
  return tuple;
}

DLDataType dlpack_dtype(DType dtype) {
  const auto bits = static_cast<uint8_t>(8 * size_of(dtype));
  switch (dtype) {
    case DType::kBFloat16:
      return {kDLBfloat, bits, 1};
    case DType::kFloat16:
    case DType::kFloat32:
    case DType::kFloat64:
      return {kDLFloat, bits, 1};
    case DType::kBool:
      return {kDLBool, bits, 1};
    case DType::kUInt8:
      return {kDLUInt, bits, 1};
    default:
      return {kDLInt, bits, 1};
  }
}

std::string describe_device(const TensorView& view) {
  if (view.is_description && !view.on_cuda) return py::handle(view.object).cast<const Description&>().device;
  return view.on_cuda ? "cuda:" + std::to_string(view.device) : "cpu";
}

// Torch's own error for want of memory is a RuntimeError, and its text differs from release to release.
[[noreturn]] void refuse_memory(const py::tuple& shape, DType dtype, int64_t bytes) {
  PyErr_Clear();
  PyErr_Format(PyExc_MemoryError, "fastcv could not allocate a tensor of shape %R and dtype %s: %lld bytes",
               shape.ptr(), name_of(dtype), static_cast<long long>(bytes));
  throw py::error_already_set();
}

py::object allocate(const TensorView& like, DType dtype, const py::tuple& shape, const py::tuple& strides,
                    int64_t bytes) {
  if (like.on_cuda || empty_strided_cpu().is_none()) {
    try {
      return py::handle(like.object).attr("new_empty_strided")(shape, strides, py::arg("dtype") = torch_dtype(dtype));
    } catch (py::error_already_set& error) {
      if (like.on_cuda || !error.matches(PyExc_RuntimeError)) throw;  // CUDA has an error of its own for it
    }
    refuse_memory(shape, dtype, bytes);
  }
  PyObject* const arguments[] = {shape.ptr(), strides.ptr(), torch_dtype(dtype).ptr()};
  PyObject* made = nullptr;
  try {
    made = PyObject_Vectorcall(empty_strided_cpu().ptr(), arguments, 3, nullptr);
  } catch (const std::exception&) {  // torch's error of C++, which this function does not make one of Python
  }
  if (made == nullptr) refuse_memory(shape, dtype, bytes);
  return py::reinterpret_steal<py::object>(made);
}

// A tensor of torch's on a block of the arena, which torch gives back through the deleter.
struct ArenaTensor {
  DLManagedTensorVersioned managed;
  ArenaBlock block;
  int64_t shape[TensorView::kMaxRank], strides[TensorView::kMaxRank];
};

py::object new_in_arena(const TensorView& like, DType dtype, const int64_t* shape, const int64_t* strides, int rank,
                        const py::tuple& sizes, int64_t bytes) {
  const ArenaBlock block = take_from_arena(static_cast<size_t>(bytes));
  if (block.data == nullptr) refuse_memory(sizes, dtype, bytes);
  auto* made = new ArenaTensor{};
  made->block = block;
  for (int i = 0; i < rank; ++i) made->shape[i] = shape[i], made->strides[i] = strides[i];
  made->managed.version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
  made->managed.manager_ctx = made;
  made->managed.deleter = [](DLManagedTensorVersioned* self) {
    auto* const tensor = static_cast<ArenaTensor*>(self->manager_ctx);
    give_to_arena(tensor->block);
    delete tensor;
  };
  DLTensor& tensor = made->managed.dl_tensor;
  tensor.data = block.data;
  tensor.device = {kDLCPU, 0};
  tensor.ndim = rank;
  tensor.dtype = dlpack_dtype(dtype);
  tensor.shape = made->shape;
  tensor.strides = made->strides;
  void* object = nullptr;
  const auto* api = static_cast<const DLPackExchangeAPI*>(like.exchange);
  if (api->managed_tensor_to_py_object_no_sync(&made->managed, &object) != 0) {
    made->managed.deleter(&made->managed);
    throw py::error_already_set();
  }
  return py::reinterpret_steal<py::object>(static_cast<PyObject*>(object));
}

bool is_for_arena(const TensorView& like, int64_t bytes) {
  if (!arena_is_on() || like.on_cuda || bytes < int64_t{kLeastArenaBytes}) return false;
  const auto* api = static_cast<const DLPackExchangeAPI*>(like.exchange);
  return api != nullptr && api->managed_tensor_to_py_object_no_sync != nullptr;
}

NewTensor make(const TensorView& like, DType dtype, const int64_t* shape, const int64_t* strides, int rank) {
  NewTensor made;
  int64_t bytes = size_of(dtype);
  for (int i = 0; i < rank; ++i) bytes = multiply_sizes(bytes, shape[i] > 0 ? shape[i] : 1);
  const py::tuple sizes = tuple_of(shape, rank), steps = tuple_of(strides, rank);
  if (like.is_description) {
    const auto& description = py::handle(like.object).cast<const Description&>();
    made.object = py::type::of<Description>()(sizes, steps, torch_dtype(dtype), description.device, like.device);
  } else if (is_for_arena(like, bytes)) {
    made.object = new_in_arena(like, dtype, shape, strides, rank, sizes, bytes);
  } else {
    made.object = allocate(like, dtype, sizes, steps, bytes);
  }
  read_view(made.object.ptr(), made.view);
#if defined(FASTCV_EMULATED)
  // What a kernel reads before it has written shows: NaN, or -1.
  if (!made.view.is_description && !made.view.on_cuda && made.view.elements() > 0) {
    std::memset(made.view.data, 0xff, bytes);
  }
#endif
  return made;
}

// The view of a copy that torch has made.
TensorView copied(py::object copy) {
  TensorView view = view_of(copy.ptr());
  view.copy = std::move(copy);
  return view;
}

bool has_strides(const TensorView& view, const int64_t* strides) {
  for (int i = 0; i < view.rank; ++i) {
    if (view.shape[i] != 1 && view.strides[i] != strides[i]) return view.elements() == 0;
  }
  return true;
}

bool has_shape(const TensorView& view, const int64_t* shape, int rank) {
  bool same = view.rank == rank;
  for (int i = 0; same && i < rank; ++i) same = view.shape[i] == shape[i];
  return same;
}

}  // namespace

void refuse(const std::string& name, const std::string& expectation, const std::string& came) {
  throw py::value_error(name + " must " + expectation + ", got " + came);
}

void refuse_type(const std::string& name, const std::string& expectation, const std::string& came) {
  throw py::type_error(name + " must " + expectation + ", got " + came);
}

std::string describe_sizes(const int64_t* sizes, int count) {
  std::string text = "(";
  for (int i = 0; i < count; ++i) text += (i > 0 ? ", " : "") + std::to_string(sizes[i]);
  return text + (count == 1 ? ",)" : ")");
}

std::string describe_shape(const TensorView& view) {
  return describe_sizes(view.shape, view.rank);
}

std::string describe_dtype(const TensorView& view) {
  if (view.dtype != DType::kOther) return name_of(view.dtype);
  const auto text = py::str(py::handle(view.object).attr("dtype")).cast<std::string>();
  return text.rfind("torch.", 0) == 0 ? text.substr(6) : text;
}

py::tuple sizes_of(const TensorView& view, const int64_t* sizes) {
  return tuple_of(sizes, view.rank);
}

int64_t multiply_sizes(int64_t a, int64_t b) {
  int64_t product;
  if (__builtin_mul_overflow(a, b, &product))
    throw py::value_error("a result or workspace would have more than 2^63 bytes");
  return product;
}

void check_shape(Argument argument, std::initializer_list<int64_t> shape, const char* meaning) {
  const TensorView& view = argument.view;
  bool matches = view.rank == static_cast<int>(shape.size());
  int axis = 0;
  for (int64_t size : shape) {
    matches = matches && (size == kAny || view.shape[axis] == size);
    ++axis;
  }
  if (matches) return;
  std::string expected;
  bool says_more = false;  // than the meaning, such as "(N, 4)", says already
  for (int64_t size : shape) {
    const std::string text = size == kAny ? "*" : std::to_string(size);
    expected += (expected.empty() ? "" : ", ") + text;
    says_more = says_more || (size != kAny && std::strstr(meaning, text.c_str()) == nullptr);
  }
  refuse(argument.name, std::string("have shape ") + meaning + (says_more ? " = (" + expected + ")" : ""),
         describe_shape(view));
}

void check_dtype(Argument argument, DType expected) {
  if (argument.view.dtype == expected) return;
  refuse_type(argument.name, std::string("be ") + name_of(expected), describe_dtype(argument.view));
}

void check_floating(Argument argument) {
  switch (argument.view.dtype) {
    case DType::kFloat16:
    case DType::kBFloat16:
    case DType::kFloat32:
    case DType::kFloat64:
      return;
    default:
      refuse_type(argument.name, "be float16, bfloat16, float32 or float64", describe_dtype(argument.view));
  }
}

void check_same_shape(Argument argument, Argument other) {
  if (has_shape(argument.view, other.view.shape, other.view.rank)) return;
  refuse(argument.name, std::string("have the shape of ") + other.name + " " + describe_shape(other.view),
         describe_shape(argument.view));
}

void check_same_dtype(Argument argument, Argument other) {
  if (argument.view.dtype == other.view.dtype && argument.view.dtype != DType::kOther) return;
  refuse_type(argument.name, std::string("have the dtype of ") + other.name + " (" + describe_dtype(other.view) + ")",
              describe_dtype(argument.view));
}

void check_same_device(Argument argument, Argument other) {
  const TensorView &view = argument.view, &like = other.view;
  if (!view.is_description && view.on_cuda == like.on_cuda && (!view.on_cuda || view.device == like.device)) return;
  const std::string device = describe_device(view), expected = describe_device(like);
  if (device == expected) return;
  refuse(argument.name, std::string("be on the device of ") + other.name + " (" + expected + ")", device);
}

void check_at_least(const char* name, int64_t value, int64_t least) {
  if (value >= least) return;
  refuse(name, least == 1 ? "be positive" : "be at least " + std::to_string(least), std::to_string(value));
}

void check_fewer(const char* name, const char* what, int64_t count, int64_t limit) {
  if (count < limit) return;
  refuse(name, "have fewer than " + std::to_string(limit) + " " + what, std::to_string(count));
}

TensorView contiguous(const TensorView& view) {
  if (view.is_contiguous()) return view;
  if (!view.is_description) return copied(py::handle(view.object).attr("contiguous")());
  return copied(new_contiguous(view, view.dtype, view.shape, view.rank).object);
}

TensorView converted(const TensorView& view, DType dtype) {
  if (view.dtype == dtype) return contiguous(view);
  if (view.is_description) return copied(new_contiguous(view, dtype, view.shape, view.rank).object);
  return copied(py::handle(view.object).attr("to")(torch_dtype(dtype)).attr("contiguous")());
}

TensorView dense(const TensorView& view) {
  TensorView made = view;
  for (bool channels_last : {false, true}) {
    set_dense_strides(view.shape, view.rank, channels_last, made.strides);
    if (has_strides(view, made.strides)) return made;
  }
  return contiguous(view);
}

TensorView evenly_spaced(const TensorView& view, int64_t& step) {
  step = 1;
  int64_t expected = -1;  // none before the last axis that has more than one place
  for (int i = view.rank - 1; i >= 0 && view.elements() > 0; --i) {
    if (view.shape[i] == 1) continue;
    if (expected < 0) expected = step = view.strides[i];
    if (view.strides[i] != expected) {
      step = 1;
      return contiguous(view);
    }
    expected *= view.shape[i];
  }
  return view;
}

TensorView with_strides_of(const TensorView& view, const TensorView& like) {
  if (has_strides(view, like.strides)) return view;
  NewTensor copy = make(view, view.dtype, view.shape, like.strides, view.rank);
  if (!view.is_description) copy.object.attr("copy_")(py::handle(view.object));
  copy.view.copy = std::move(copy.object);
  return copy.view;
}

TensorView checked(Argument argument, std::initializer_list<int64_t> shape, const char* meaning, DType dtype,
                   Argument like) {
  check_shape(argument, shape, meaning);
  check_dtype(argument, dtype);
  check_same_device(argument, like);
  return contiguous(argument.view);
}

TensorView checked_like(Argument argument, std::initializer_list<int64_t> shape, const char* meaning, Argument like) {
  check_shape(argument, shape, meaning);
  check_same_dtype(argument, like);
  check_same_device(argument, like);
  return contiguous(argument.view);
}

NewTensor new_contiguous(const TensorView& like, DType dtype, const int64_t* shape, int rank) {
  int64_t strides[TensorView::kMaxRank];
  int64_t step = 1;
  for (int i = rank - 1; i >= 0; --i) {
    strides[i] = step;
    step = multiply_sizes(step, shape[i] > 0 ? shape[i] : 1);
  }
  return make(like, dtype, shape, strides, rank);
}

NewTensor new_contiguous(const TensorView& like, DType dtype, std::initializer_list<int64_t> shape) {
  return new_contiguous(like, dtype, shape.begin(), static_cast<int>(shape.size()));
}

NewTensor new_like(const TensorView& like) {
  return new_contiguous(like, like.dtype, like.shape, like.rank);
}

py::object as_gradient_of(const TensorView& argument, const NewTensor& made) {
  if (argument.is_description) return new_workspace(argument, 0).object;  // a trace drops what it gets
  if (!made.object) return py::handle(argument.object).attr("new_empty")(0);
  py::object gradient = made.object;
  if (!has_shape(made.view, argument.shape, argument.rank)) {
    gradient = gradient.attr("sum_to_size")(sizes_of(argument, argument.shape));
  }
  if (made.view.dtype != argument.dtype) gradient = gradient.attr("to")(py::handle(argument.object).attr("dtype"));
  return gradient;
}

NewTensor new_dense(const TensorView& like, DType dtype, const int64_t* shape) {
  int64_t strides[TensorView::kMaxRank];
  set_dense_strides(shape, like.rank, gives_channels_last(like), strides);
  return make(like, dtype, shape, strides, like.rank);
}

NewTensor new_dense(const TensorView& like, DType dtype, int64_t n, int64_t c, int64_t h, int64_t w) {
  const int64_t shape[] = {n, c, h, w};
  return new_dense(like, dtype, shape);
}

NewTensor new_workspace(const TensorView& like, int64_t bytes) {
  return new_contiguous(like, DType::kUInt8, {bytes});
}

bool is_channels_last(const TensorView& view) {
  TensorView other = view;
  set_dense_strides(view.shape, view.rank, true, other.strides);
  for (int i = 0; i < view.rank; ++i) {
    if (view.shape[i] != 1 && view.strides[i] != other.strides[i]) return view.elements() == 0;
  }
  return true;
}

bool gives_channels_last(const TensorView& like) {
  return like.strides[1] == 1 && !like.is_contiguous();
}

void set_dense_strides(const int64_t* shape, int rank, bool channels_last, int64_t* strides) {
  int64_t step = channels_last ? shape[1] : 1;
  for (int i = rank - 1; i >= 0; --i) {
    if (channels_last && i == 1) continue;
    strides[i] = step;
    if (i > 0) step = multiply_sizes(step, shape[i]);
  }
  if (channels_last) strides[1] = 1;
}

}  // namespace fastcv

#include "core/tensor.h"

#include <dlpack.h>

#include <cstring>
#include <string>

namespace py = pybind11;

namespace fastcv {
namespace {

// The exchange table of a type, looked up once per type: a tensor is nearly always a torch.Tensor or a Parameter.
const DLPackExchangeAPI* exchange_api(PyTypeObject* type) {
  constexpr int kSlots = 4;
  static PyTypeObject* types[kSlots] = {};
  static const DLPackExchangeAPI* tables[kSlots] = {};
  static int next = 0;
  for (int i = 0; i < kSlots; ++i) {
    if (types[i] == type) return tables[i];
  }
  PyObject* capsule = PyObject_GetAttrString(reinterpret_cast<PyObject*>(type), "__dlpack_c_exchange_api__");
  if (capsule == nullptr) {
    PyErr_Clear();
    return nullptr;
  }
  const auto* table = static_cast<const DLPackExchangeAPI*>(PyCapsule_GetPointer(capsule, "dlpack_exchange_api"));
  Py_DECREF(capsule);
  if (table == nullptr) throw py::error_already_set();
  if (table->header.version.major != DLPACK_MAJOR_VERSION || table->dltensor_from_py_object_no_sync == nullptr) {
    throw py::type_error("this torch offers an incompatible DLPack exchange API; fastcv needs DLPack 1.x");
  }
  Py_INCREF(type);  // the cache keeps its key alive, or a new type could take the same address
  Py_XDECREF(types[next]);
  types[next] = type;
  tables[next] = table;
  next = (next + 1) % kSlots;
  return table;
}

DType dtype_of(DLDataType type) {
  if (type.lanes != 1) return DType::kOther;
  switch (type.code) {
    case kDLFloat:
      return type.bits == 16   ? DType::kFloat16
             : type.bits == 32 ? DType::kFloat32
             : type.bits == 64 ? DType::kFloat64
                               : DType::kOther;
    case kDLBfloat:
      return type.bits == 16 ? DType::kBFloat16 : DType::kOther;
    case kDLInt:
      return type.bits == 32 ? DType::kInt32 : type.bits == 64 ? DType::kInt64 : DType::kOther;
    case kDLUInt:
      return type.bits == 8 ? DType::kUInt8 : DType::kOther;
    case kDLBool:
      return type.bits == 8 ? DType::kBool : DType::kOther;
    default:
      return DType::kOther;
  }
}

std::string describe_shape(const TensorView& view) {
  std::string text = "(";
  for (int i = 0; i < view.rank; ++i) text += (i > 0 ? ", " : "") + std::to_string(view.shape[i]);
  return text + (view.rank == 1 ? ",)" : ")");
}

std::string describe_device(const TensorView& view) {
  return view.on_cuda ? "cuda:" + std::to_string(view.device) : "cpu";
}

const DLPackExchangeAPI* cuda_stream_source = nullptr;

// What allocation needs of torch, looked up once.
struct Torch {
  py::object dtypes[static_cast<int>(DType::kOther)];
  // What compiled graphs allocate with: a third of the time of new_empty_strided. Private to torch, so it may be null.
  py::object empty_strided_cpu;
};

const Torch& torch() {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<Torch> storage;
  return storage
      .call_once_and_store_result([] {
        Torch found;
        const auto module = py::module_::import("torch");
        for (int i = 0; i < static_cast<int>(DType::kOther); ++i) {
          found.dtypes[i] = module.attr(name_of(static_cast<DType>(i)));
        }
        const py::object guards = py::getattr(module.attr("_C").attr("_dynamo"), "guards", py::none());
        found.empty_strided_cpu = py::getattr(guards, "_empty_strided_cpu", py::none());
        return found;
      })
      .get_stored();
}

py::tuple tuple_of(std::initializer_list<int64_t> values) {
  py::tuple tuple(values.size());
  Py_ssize_t i = 0;
  for (int64_t value : values) PyTuple_SET_ITEM(tuple.ptr(), i++, py::int_(value).release().ptr());
  return tuple;
}

}  // namespace

bool TensorView::is_contiguous() const {
  int64_t expected = 1;
  for (int i = rank - 1; i >= 0; --i) {
    if (shape[i] != 1 && strides[i] != expected) return elements() == 0;
    expected *= shape[i];
  }
  return true;
}

TensorView view_of(PyObject* object) {
  const DLPackExchangeAPI* api = exchange_api(Py_TYPE(object));
  if (api == nullptr) throw py::type_error(std::string("expected a torch.Tensor, got ") + Py_TYPE(object)->tp_name);
  DLTensor tensor;
  if (api->dltensor_from_py_object_no_sync(object, &tensor) != 0) throw py::error_already_set();
  TensorView view;
  view.object = object;
  if (tensor.ndim > TensorView::kMaxRank) {
    throw py::value_error("expected a tensor of at most 8 dimensions, got " + std::to_string(tensor.ndim));
  }
  view.rank = tensor.ndim;
  int64_t expected_stride = 1;
  for (int i = tensor.ndim - 1; i >= 0; --i) {
    view.shape[i] = tensor.shape[i];
    view.strides[i] = tensor.strides != nullptr ? tensor.strides[i] : expected_stride;
    expected_stride *= tensor.shape[i];
  }
  view.dtype = dtype_of(tensor.dtype);
  view.on_cuda = tensor.device.device_type == kDLCUDA || tensor.device.device_type == kDLCUDAManaged;
  view.device = tensor.device.device_id;
  const bool on_cpu = tensor.device.device_type == kDLCPU || tensor.device.device_type == kDLCUDAHost;
  if (!on_cpu && !view.on_cuda) {
    throw py::value_error("expected a tensor on cpu or cuda, got DLPack device type " +
                          std::to_string(static_cast<int>(tensor.device.device_type)));
  }
  if (tensor.data == nullptr && view.elements() > 0) {
    throw py::type_error("expected a tensor with memory of its own, got a fake, meta or wrapper tensor");
  }
  view.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  if (view.on_cuda) cuda_stream_source = api;
  return view;
}

int64_t multiply_sizes(int64_t a, int64_t b) {
  int64_t product;
  if (__builtin_mul_overflow(a, b, &product)) throw py::value_error("the result would have more than 2^63 elements");
  return product;
}

NewTensor new_tensor(const TensorView& like, DType dtype, std::initializer_list<int64_t> shape,
                     std::initializer_list<int64_t> strides) {
  const py::object& on_cpu = torch().empty_strided_cpu;
  NewTensor made;
  const py::tuple sizes = tuple_of(shape), steps = tuple_of(strides);
  if (!like.on_cuda && !on_cpu.is_none()) {
    PyObject* const arguments[] = {sizes.ptr(), steps.ptr(), torch_dtype(dtype).ptr()};
    made.object = py::reinterpret_steal<py::object>(PyObject_Vectorcall(on_cpu.ptr(), arguments, 3, nullptr));
    if (!made.object) throw py::error_already_set();
  } else {
    made.object =
        py::handle(like.object).attr("new_empty_strided")(sizes, steps, py::arg("dtype") = torch_dtype(dtype));
  }
  made.view = view_of(made.object.ptr());
  return made;
}

NewTensor new_contiguous(const TensorView& like, DType dtype, std::initializer_list<int64_t> shape) {
  const int64_t* size = shape.begin();
  switch (shape.size()) {
    case 1:
      return new_tensor(like, dtype, shape, {1});
    case 2:
      return new_tensor(like, dtype, shape, {size[1], 1});
    case 3:
      return new_tensor(like, dtype, shape, {multiply_sizes(size[1], size[2]), size[2], 1});
    default:
      throw py::value_error("new_contiguous makes tensors of one to three axes");
  }
}

NewTensor new_dense(const TensorView& like, DType dtype, int64_t n, int64_t c, int64_t h, int64_t w) {
  const int64_t pixels = multiply_sizes(h, w), image = multiply_sizes(c, pixels);
  if (like.strides[1] == 1 && !like.is_contiguous()) {
    return new_tensor(like, dtype, {n, c, h, w}, {image, 1, multiply_sizes(w, c), c});
  }
  return new_tensor(like, dtype, {n, c, h, w}, {image, pixels, w, 1});
}

Stream current_stream(const TensorView& tensor) {
  Stream stream{tensor.device, nullptr};
#if !defined(FASTCV_EMULATED)
  if (cuda_stream_source->current_work_stream(kDLCUDA, tensor.device, &stream.handle) != 0) {
    throw py::error_already_set();
  }
#endif
  return stream;
}

const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat16:
      return "float16";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kFloat32:
      return "float32";
    case DType::kFloat64:
      return "float64";
    case DType::kInt32:
      return "int32";
    case DType::kInt64:
      return "int64";
    case DType::kUInt8:
      return "uint8";
    case DType::kBool:
      return "bool";
    default:
      return "an unsupported dtype";
  }
}

py::handle torch_dtype(DType dtype) {
  return torch().dtypes[static_cast<int>(dtype)];
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
  throw py::value_error(std::string(argument.name) + " must have shape " + meaning +
                        (says_more ? " = (" + expected + ")" : "") + ", got " + describe_shape(view));
}

void check_dtype(Argument argument, DType expected) {
  if (argument.view.dtype == expected) return;
  throw py::type_error(std::string(argument.name) + " must be " + name_of(expected) + ", got " +
                       name_of(argument.view.dtype));
}

void check_floating(Argument argument) {
  switch (argument.view.dtype) {
    case DType::kFloat16:
    case DType::kBFloat16:
    case DType::kFloat32:
    case DType::kFloat64:
      return;
    default:
      throw py::type_error(std::string(argument.name) + " must be float16, bfloat16, float32 or float64, got " +
                           name_of(argument.view.dtype));
  }
}

void check_contiguous(Argument argument) {
  if (argument.view.is_contiguous()) return;
  throw py::value_error(std::string(argument.name) + " must be contiguous");
}

void check_dense(Argument argument, int64_t (&strides)[4]) {
  const TensorView& view = argument.view;
  const int64_t c = view.shape[1], h = view.shape[2], w = view.shape[3];
  const int64_t contiguous[4] = {c * h * w, h * w, w, 1};
  const int64_t channels_last[4] = {h * w * c, 1, w * c, c};
  for (const auto& candidate : {contiguous, channels_last}) {
    bool matches = true;
    for (int i = 0; i < 4; ++i) {
      strides[i] = candidate[i];
      matches = matches && (view.shape[i] == 1 || view.strides[i] == candidate[i]);
    }
    if (matches || view.elements() == 0) return;
  }
  throw py::value_error(std::string(argument.name) + " must be contiguous or channels_last");
}

void check_same_dtype(Argument argument, Argument other) {
  if (argument.view.dtype == other.view.dtype) return;
  throw py::type_error(std::string(argument.name) + " must have the dtype of " + other.name + " (" +
                       name_of(other.view.dtype) + "), got " + name_of(argument.view.dtype));
}

void check_same_device(Argument argument, Argument other) {
  if (argument.view.on_cuda == other.view.on_cuda &&
      (!argument.view.on_cuda || argument.view.device == other.view.device)) {
    return;
  }
  throw py::value_error(std::string(argument.name) + " must be on the device of " + other.name + " (" +
                        describe_device(other.view) + "), got " + describe_device(argument.view));
}

}  // namespace fastcv

#include "core/tensor.h"

#include <dlpack.h>

#include <string>

#include "core/arguments.h"
#if defined(FASTCV_PTX)
#include "ptx/memory.h"
#endif

namespace py = pybind11;

namespace fastcv {
namespace {

constexpr int kDTypes = static_cast<int>(DType::kOther);

const DLPackExchangeAPI* find_exchange(PyTypeObject* type) {
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
  return table;
}

// What is looked up in torch once: nothing here changes afterwards, so threads may share it.
struct Torch {
  py::object tensor, parameter;       // the two types that nearly all tensors have
  const DLPackExchangeAPI* exchange;  // theirs
  py::object dtypes[kDTypes];
};

const Torch& torch() {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<Torch> storage;
  return storage
      .call_once_and_store_result([] {
        Torch found;
        const auto module = py::module_::import("torch");
        found.tensor = module.attr("Tensor");
        found.parameter = module.attr("nn").attr("Parameter");
        found.exchange = find_exchange(reinterpret_cast<PyTypeObject*>(found.tensor.ptr()));
        for (int i = 0; i < kDTypes; ++i) found.dtypes[i] = module.attr(name_of(static_cast<DType>(i)));
        return found;
      })
      .get_stored();
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

void check_rank(size_t rank) {
  if (rank <= TensorView::kMaxRank) return;
  throw py::value_error("expected a tensor of at most 8 dimensions, got " + std::to_string(rank));
}

Description describe(const Ints& shape, const Ints& strides, const py::object& dtype, const std::string& device,
                     int index) {
  check_rank(shape.count);
  Description made{{}, dtype, device};
  TensorView& view = made.view;
  view.rank = shape.count;
  for (int i = 0; i < view.rank; ++i) {
    view.shape[i] = shape[i];
    view.strides[i] = strides[i];
  }
  for (int i = 0; i < kDTypes; ++i) {
    if (torch().dtypes[i].is(dtype)) view.dtype = static_cast<DType>(i);
  }
  view.on_cuda = device == "cuda";
  view.device = index;
  view.is_description = true;
  return made;
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

void read_view(PyObject* object, TensorView& view) {
  PyTypeObject* const type = Py_TYPE(object);
  const Torch& known = torch();
  const bool is_plain = reinterpret_cast<PyObject*>(type) == known.tensor.ptr() ||
                        reinterpret_cast<PyObject*>(type) == known.parameter.ptr();
  const DLPackExchangeAPI* api = is_plain ? known.exchange : find_exchange(type);
  if (api == nullptr) {
    if (py::isinstance<Description>(object)) {
      view = py::handle(object).cast<const Description&>().view;
      view.object = object;
      return;
    }
    throw py::type_error(std::string("expected a torch.Tensor, got ") + type->tp_name);
  }
  DLTensor tensor;
  if (api->dltensor_from_py_object_no_sync(object, &tensor) != 0) throw py::error_already_set();
  view.object = object;
  view.exchange = api;
  check_rank(tensor.ndim);
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
#if defined(FASTCV_PTX)
  // The test build that checks every access of a kernel: this call may use the bytes from the first element to the last.
  int64_t last = 0;
  for (int i = 0; i < view.rank; ++i) last += (view.shape[i] - 1) * view.strides[i];
  if (view.elements() > 0) ptx::note_memory(view.data, (last + 1) * (tensor.dtype.bits / 8));
#endif
}

Stream current_stream(const TensorView& tensor) {
  Stream stream{tensor.device, nullptr};
#if !defined(FASTCV_EMULATED)
  const auto* api = static_cast<const DLPackExchangeAPI*>(tensor.exchange);
  if (api->current_work_stream(kDLCUDA, tensor.device, &stream.handle) != 0) throw py::error_already_set();
#endif
  return stream;
}

int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
    case DType::kInt64:
      return 8;
    case DType::kFloat32:
    case DType::kInt32:
      return 4;
    case DType::kFloat16:
    case DType::kBFloat16:
      return 2;
    default:
      return 1;
  }
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
      return "another dtype";
  }
}

py::handle torch_dtype(DType dtype) {
  return torch().dtypes[static_cast<int>(dtype)];
}

void bind_tensor(py::module_& module) {
  py::class_<Description>(module, "Description", py::module_local(), "What stands for a tensor in a trace.")
      .def(py::init(&describe), py::arg("shape"), py::arg("strides"), py::arg("dtype"), py::arg("device"),
           py::arg("index") = 0)
      .def_readonly("dtype", &Description::dtype)
      .def_readonly("device", &Description::device)
      .def_property_readonly("shape", [](const Description& self) { return sizes_of(self.view, self.view.shape); })
      .def_property_readonly("strides", [](const Description& self) { return sizes_of(self.view, self.view.strides); });
}

}  // namespace fastcv

#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "core/dispatch.h"
#include "core/tensor.h"
#include "ops/sparse_kernel_map/sparse_kernel_map.h"

namespace py = pybind11;

namespace fastcv {
namespace {

// How many bits the values below `size` need.
int bits_for(int64_t size) {
  int bits = 0;
  while (bits < 62 && (int64_t{1} << bits) < size) ++bits;
  return bits;
}

std::string in_brackets(const std::vector<int64_t>& values, size_t begin) {
  return "(" + std::to_string(values[begin]) + ", " + std::to_string(values[begin + 1]) + ", " +
         std::to_string(values[begin + 2]) + ")";
}

// Places the fields of a key; x always has six bits or more, the bits of a word.
void place_fields(SparseMapParams& p, int64_t SparseAxis::* size, int32_t SparseAxis::* shift, int32_t& batch_shift,
                  const char* name, const std::string& shape) {
  const int x_bits = bits_for(p.axes[2].*size);
  int place = x_bits < 6 ? 6 : x_bits;
  p.axes[2].*shift = 0;
  for (int axis = 1; axis >= 0; --axis) {
    p.axes[axis].*shift = place;
    place += bits_for(p.axes[axis].*size);
  }
  batch_shift = place;
  if (place + bits_for(p.batch_size) > kMaxKeyBits) {
    throw py::value_error(std::string(name) + " " + shape + " with batch_size " + std::to_string(p.batch_size) +
                          " has too many cells: coordinates must fit " + std::to_string(kMaxKeyBits) + " bits");
  }
}

// geometry: spatial shape, shape of the output, kernel, stride, padding, dilation, three numbers each.
SparseMapParams make_params(const TensorView& indices, const std::vector<int64_t>& geometry, int64_t batch_size,
                            bool submanifold, bool transposed) {
  check_shape({indices, "indices"}, {kAny, 4}, "(N, 4)");
  check_dtype({indices, "indices"}, DType::kInt32);
  check_contiguous({indices, "indices"});
  if (geometry.size() != 18) throw py::value_error("geometry must have 18 numbers");
  constexpr int64_t kLimit = int64_t{1} << 31;
  if (indices.shape[0] >= kLimit) throw py::value_error("indices must have fewer than 2^31 rows");
  if (batch_size < 0 || batch_size >= kLimit) {
    throw py::value_error("batch_size must be in [0, 2^31), got " + std::to_string(batch_size));
  }
  SparseMapParams p{};
  p.indices = static_cast<const int32_t*>(indices.data);
  p.sites = indices.shape[0];
  p.batch_size = batch_size;
  p.submanifold = submanifold;
  p.transposed = transposed;
  int64_t volume = 1;
  for (size_t axis = 0; axis < 3; ++axis) {
    const int64_t size = geometry[axis], out_size = geometry[3 + axis], kernel = geometry[6 + axis];
    const int64_t stride = geometry[9 + axis], padding = geometry[12 + axis], dilation = geometry[15 + axis];
    if (size < 0 || size >= kLimit) {
      throw py::value_error("spatial_shape must be in [0, 2^31), got " + in_brackets(geometry, 0));
    }
    if (out_size < 0 || out_size >= kLimit) {
      throw py::value_error("the output's spatial shape must be in [0, 2^31), is " + in_brackets(geometry, 3));
    }
    if (kernel < 1 || kernel > kMaxKernelVolume) {
      throw py::value_error("kernel_size must be positive, got " + in_brackets(geometry, 6));
    }
    volume *= kernel;
    if (stride < 1 || stride > kMaxSparseExtent || dilation < 1 || kernel * dilation > kMaxSparseExtent ||
        padding < 0 || padding > kMaxSparseExtent) {
      throw py::value_error("stride and dilation must be positive, padding not negative, each at most 2^30; got " +
                            in_brackets(geometry, 9) + ", " + in_brackets(geometry, 15) + " and " +
                            in_brackets(geometry, 12));
    }
    p.axes[axis] = {size,
                    out_size,
                    static_cast<int32_t>(kernel),
                    static_cast<int32_t>(stride),
                    static_cast<int32_t>(padding),
                    static_cast<int32_t>(dilation),
                    0,
                    0,
                    (stride & (stride - 1)) == 0 ? static_cast<int32_t>(bits_for(stride)) : -1};
  }
  if (volume > kMaxKernelVolume) {
    throw py::value_error("kernel_size must have at most 32768 elements, got " + in_brackets(geometry, 6));
  }
  place_fields(p, &SparseAxis::in_size, &SparseAxis::in_shift, p.in_batch_shift, "spatial_shape",
               in_brackets(geometry, 0));
  place_fields(p, &SparseAxis::out_size, &SparseAxis::out_shift, p.out_batch_shift, "the output's spatial shape",
               in_brackets(geometry, 3));
  return p;
}

int64_t kernel_volume(const SparseMapParams& p) {
  return static_cast<int64_t>(p.axes[0].kernel) * p.axes[1].kernel * p.axes[2].kernel;
}

int32_t* output_pointer(const py::object& tensor, const char* name, int64_t rows, int64_t columns,
                        const TensorView& indices, const char* meaning) {
  if (tensor.is_none()) return nullptr;
  const TensorView view = view_of(tensor.ptr());
  check_shape({view, name}, {rows, columns}, meaning);
  check_dtype({view, name}, DType::kInt32);
  check_contiguous({view, name});
  check_same_device({view, name}, {indices, "indices"});
  return static_cast<int32_t*>(view.data);
}

SparseMapOutputs make_outputs(const SparseMapParams& p, const py::object& out_indices, const py::object& neighbours,
                              const py::object& reverse, int64_t outputs, const TensorView& indices) {
  const int64_t volume = kernel_volume(p);
  return {output_pointer(out_indices, "out_indices", outputs, 4, indices, "(M, 4)"),
          output_pointer(neighbours, "neighbours", volume, outputs, indices, "(K, M)"),
          output_pointer(reverse, "reverse", volume, p.sites, indices, "(K, N)")};
}

struct Allocation {
  const SparseMapParams* params;
  const TensorView* indices;
  const py::function* allocate;
};

// Asks Python for the outputs. Called by the kernel, which runs without the GIL.
SparseMapOutputs allocate_outputs(void* context, int64_t outputs) {
  const Allocation& allocation = *static_cast<const Allocation*>(context);
  const SparseMapParams& p = *allocation.params;
  const py::gil_scoped_acquire acquire;
  const py::tuple tensors = (*allocation.allocate)(outputs);
  if (tensors.size() != 3) throw py::value_error("allocate must return three tensors");
  if (tensors[0].is_none() != p.submanifold || tensors[1].is_none() || tensors[2].is_none()) {
    throw py::value_error("allocate must return out_indices (None where submanifold), neighbours and reverse");
  }
  return make_outputs(p, tensors[0], tensors[1], tensors[2], outputs, *allocation.indices);
}

// On the CPU, all at once: allocate(M) -> (out_indices or None, neighbours, reverse) is called once.
void sparse_kernel_map(const TensorView& indices, const std::vector<int64_t>& geometry, int64_t batch_size,
                       bool submanifold, bool transposed, const py::function& allocate) {
  SparseMapParams p = make_params(indices, geometry, batch_size, submanifold, transposed);
  if (!runs_on_cpu(indices)) throw py::value_error("sparse_kernel_map: use sparse_kernel_map_step");
  Allocation allocation{&p, &indices, &allocate};
  p.allocate = allocate_outputs;
  p.context = &allocation;
  if (p.sites == 0) {
    allocate_outputs(&allocation, 0);
    return;
  }
  FASTCV_RUN(sparse_kernel_map, p, indices);
}

void* workspace_pointer(const py::object& tensor, const char* name, DType dtype, int64_t elements,
                        const TensorView& indices) {
  if (tensor.is_none()) return nullptr;
  const TensorView view = view_of(tensor.ptr());
  check_shape({view, name}, {elements}, "(elements,)");
  check_dtype({view, name}, dtype);
  check_contiguous({view, name});
  check_same_device({view, name}, {indices, "indices"});
  return view.data;
}

// On CUDA, one step of several; see SparseMapStep.
void sparse_kernel_map_step(int step, const TensorView& indices, const std::vector<int64_t>& geometry,
                            int64_t batch_size, bool submanifold, bool transposed, int64_t outputs,
                            const py::object& out_indices, const py::object& neighbours, const py::object& reverse,
                            const TensorView& table_keys, const py::object& table_values, const py::object& status,
                            const py::object& out_keys, const py::object& places) {
  SparseMapParams p = make_params(indices, geometry, batch_size, submanifold, transposed);
  if (runs_on_cpu(indices)) throw py::value_error("sparse_kernel_map_step: use sparse_kernel_map");
  p.step = static_cast<SparseMapStep>(step);
  p.outputs = outputs;
  p.out = make_outputs(p, out_indices, neighbours, reverse, outputs, indices);
  check_shape({table_keys, "table_keys"}, {kAny}, "(slots,)");
  check_dtype({table_keys, "table_keys"}, DType::kInt64);
  check_contiguous({table_keys, "table_keys"});
  check_same_device({table_keys, "table_keys"}, {indices, "indices"});
  p.slots = table_keys.shape[0];
  if (p.slots < 1 || (p.slots & (p.slots - 1)) != 0) throw py::value_error("table_keys must have a power of two slots");
  p.table_keys = static_cast<uint64_t*>(table_keys.data);
  p.table_values =
      static_cast<int32_t*>(workspace_pointer(table_values, "table_values", DType::kInt32, p.slots, indices));
  p.status = static_cast<uint64_t*>(workspace_pointer(status, "status", DType::kInt64, 2, indices));
  p.out_keys = static_cast<uint64_t*>(workspace_pointer(out_keys, "out_keys", DType::kInt64, outputs, indices));
  p.places = static_cast<const int32_t*>(workspace_pointer(places, "places", DType::kInt32, p.slots, indices));
  bool complete = false;
  switch (p.step) {
    case SparseMapStep::kInsert:
      complete = p.status != nullptr && p.table_values != nullptr && p.slots > p.sites;
      break;
    case SparseMapStep::kMirror:
      complete = p.submanifold && !neighbours.is_none() && p.table_values != nullptr && outputs == p.sites;
      break;
    case SparseMapStep::kSpread:
      complete = true;
      break;
    case SparseMapStep::kCompact:
      complete = !out_keys.is_none() && p.places != nullptr;
      break;
    case SparseMapStep::kNumber:
      complete = !out_keys.is_none() && !out_indices.is_none() && p.table_values != nullptr;
      break;
    case SparseMapStep::kLink:
      complete = !neighbours.is_none() && !reverse.is_none() && p.table_values != nullptr;
      break;
  }
  if (!complete) throw py::value_error("sparse_kernel_map_step: a tensor that the step needs is missing");
  FASTCV_RUN(sparse_kernel_map, p, indices);
}

}  // namespace

void bind_sparse_kernel_map(py::module_& module) {
  module.def("sparse_kernel_map", &sparse_kernel_map);
  module.def("sparse_kernel_map_step", &sparse_kernel_map_step);
}

}  // namespace fastcv

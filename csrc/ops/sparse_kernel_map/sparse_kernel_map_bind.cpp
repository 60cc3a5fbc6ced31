#include <memory>
#include <string>

#include "core/dispatch.h"
#include "core/hash.h"
#include "ops/sparse_kernel_map/sparse_kernel_map.h"

namespace py = pybind11;

namespace fastcv {
namespace {

constexpr int64_t kMaxSize = (int64_t{1} << 31) - 1;

std::string in_brackets(int64_t z, int64_t y, int64_t x) {
  return "(" + std::to_string(z) + ", " + std::to_string(y) + ", " + std::to_string(x) + ")";
}

std::string in_brackets(const Ints& values) {
  std::string text;
  for (int i = 0; i < values.count; ++i) text += (i > 0 ? ", " : "") + std::to_string(values[i]);
  return "(" + text + ")";
}

void check_sparse_axes(const char* name, const Ints& values, int64_t least, int64_t most) {
  if (values.count != 3) refuse(name, "have three sizes (z, y, x)", in_brackets(values));
  for (int axis = 0; axis < 3; ++axis) {
    if (values[axis] < least) {
      refuse(name, least == 1 ? "be positive" : "be at least " + std::to_string(least), in_brackets(values));
    }
    if (values[axis] > most) refuse(name, "be at most " + std::to_string(most), in_brackets(values));
  }
}

// How many bits the values below `size` need.
int bits_for(int64_t size) {
  int bits = 0;
  while (bits < 62 && (int64_t{1} << bits) < size) ++bits;
  return bits;
}

// The sizes as of conv3d and conv_transpose3d.
void set_output_sizes(SparseGeometry& g, const Ints& output_padding) {
  int64_t sizes[3], least = 1, most = 1;
  for (int i = 0; i < 3; ++i) {
    const SparseAxis& axis = g.axes[i];
    const int64_t reach = static_cast<int64_t>(axis.dilation) * (axis.kernel - 1) + 1;
    const int64_t room = axis.in_size + 2 * static_cast<int64_t>(axis.padding) - reach;
    sizes[i] = room < 0 ? 0 : room / axis.stride + 1;
    if (g.transposed) {
      sizes[i] = (axis.in_size - 1) * axis.stride - 2 * static_cast<int64_t>(axis.padding) + reach + output_padding[i];
    }
    if (g.submanifold) sizes[i] = axis.in_size;
    least = sizes[i] < least ? sizes[i] : least;
    most = sizes[i] > most ? sizes[i] : most;
    g.axes[i].out_size = sizes[i];
  }
  if ((g.submanifold || least >= 1) && most <= kMaxSize) return;
  refuse("spatial_shape", least < 1 ? "leave an output" : "leave an output of at most 2147483647 cells along each axis",
         in_brackets(g.axes[0].in_size, g.axes[1].in_size, g.axes[2].in_size) + ", whose output would be " +
             in_brackets(sizes[0], sizes[1], sizes[2]));
}

// Places the fields of a key; x always has six bits or more, the bits of a word.
void place_fields(SparseGeometry& g, int64_t SparseAxis::* size, int32_t SparseAxis::* shift, int32_t& batch_shift,
                  const char* what) {
  const int x_bits = bits_for(g.axes[2].*size);
  int place = x_bits < 6 ? 6 : x_bits;
  g.axes[2].*shift = 0;
  for (int axis = 1; axis >= 0; --axis) {
    g.axes[axis].*shift = place;
    place += bits_for(g.axes[axis].*size);
  }
  batch_shift = place;
  if (place + bits_for(g.batch_size) <= kMaxKeyBits) return;
  refuse(what, "have coordinates that fit 62 bits with batch_size " + std::to_string(g.batch_size),
         in_brackets(g.axes[0].*size, g.axes[1].*size, g.axes[2].*size));
}

// The one place where a geometry is checked.
SparseGeometry read_sparse_geometry(int64_t batch_size, const Ints& spatial_shape, const Ints& kernel_size,
                                    const Ints& stride, const Ints& padding, const Ints& dilation,
                                    const Ints& output_padding, bool submanifold, bool transposed) {
  if (batch_size < 0 || batch_size > kMaxSize) refuse("batch_size", "be in [0, 2^31)", std::to_string(batch_size));
  check_sparse_axes("spatial_shape", spatial_shape, 0, kMaxSize);
  check_sparse_axes("kernel_size", kernel_size, 1, kMaxSize);
  check_sparse_axes("stride", stride, 1, kMaxSparseExtent);
  check_sparse_axes("padding", padding, 0, kMaxSparseExtent);
  check_sparse_axes("dilation", dilation, 1, kMaxSparseExtent);
  check_sparse_axes("output_padding", output_padding, 0, kMaxSparseExtent);
  if (submanifold && transposed) refuse("transposed", "be False where subm is True", "True");
  SparseGeometry g{};
  g.batch_size = batch_size;
  g.submanifold = submanifold;
  g.transposed = transposed;
  g.volume = 1;
  for (int i = 0; i < 3; ++i) {
    const int64_t kernel = kernel_size[i], step = submanifold ? 1 : stride[i];
    if (kernel <= kMaxKernelVolume) g.volume *= kernel;
    if (kernel > kMaxKernelVolume || g.volume > kMaxKernelVolume) {
      refuse("kernel_size", "have at most 32768 elements", in_brackets(kernel_size));
    }
    if (kernel * dilation[i] > kMaxSparseExtent) {
      refuse("dilation", "be at most 2^30 when multiplied by kernel_size", in_brackets(dilation));
    }
    SparseAxis& axis = g.axes[i];
    axis.in_size = spatial_shape[i];
    axis.kernel = static_cast<int32_t>(kernel);
    axis.stride = static_cast<int32_t>(step);
    axis.padding = static_cast<int32_t>(submanifold ? kernel / 2 * dilation[i] : padding[i]);
    axis.dilation = static_cast<int32_t>(dilation[i]);
    axis.stride_bits = (step & (step - 1)) == 0 ? bits_for(step) : -1;
  }
  set_output_sizes(g, output_padding);
  place_fields(g, &SparseAxis::in_size, &SparseAxis::in_shift, g.in_batch_shift, "spatial_shape");
  place_fields(g, &SparseAxis::out_size, &SparseAxis::out_shift, g.out_batch_shift, "the output's spatial_shape");
  return g;
}

py::tuple sparse_output_shape(const Ints& spatial_shape, const Ints& kernel_size, const Ints& stride,
                              const Ints& padding, const Ints& dilation, const Ints& output_padding, bool subm,
                              bool transposed) {
  const SparseGeometry g =
      read_sparse_geometry(1, spatial_shape, kernel_size, stride, padding, dilation, output_padding, subm, transposed);
  return py::make_tuple(g.axes[0].out_size, g.axes[1].out_size, g.axes[2].out_size);
}

// ---- CUDA -----------------------------------------------------------------------------------------------------------

NewTensor new_filled(const TensorView& like, DType dtype, std::initializer_list<int64_t> shape, int value) {
  NewTensor made = new_contiguous(like, dtype, shape);
  made.object.attr("fill_")(value);
  return made;
}

// Memory for a table of at most that many keys.
struct TableMemory {
  TableMemory(const TensorView& like, int64_t most_keys, SparseTable& table)
      : keys(new_filled(like, DType::kInt64, {FASTCV_VARIANT::hash_capacity(most_keys)}, -1)),
        values(new_contiguous(like, DType::kInt32, {keys.view.shape[0]})) {
    table = {keys.view.as<uint64_t>(), values.view.as<int32_t>(), keys.view.shape[0]};
  }
  NewTensor keys, values;
};

// Throws what the first step has found to be wrong: `status` as in SparseMapParams.
void check_status(const SparseMapParams& p, const TensorView& indices, const py::list& status) {
  const auto outside = status[0].cast<int64_t>(), repeated = status[1].cast<int64_t>();
  if (outside >= 0) {
    const py::list row = py::handle(indices.object).attr("select")(0, outside).attr("tolist")();
    const int32_t site[4] = {row[0].cast<int32_t>(), row[1].cast<int32_t>(), row[2].cast<int32_t>(),
                             row[3].cast<int32_t>()};
    FASTCV_VARIANT::throw_outside(p, site, outside);
  }
  if (repeated >= 0) {
    int32_t site[4];
    FASTCV_VARIANT::decode_key(static_cast<uint64_t>(repeated), p.in_batch_shift, p.axes[0].in_shift,
                               p.axes[1].in_shift, site);
    refuse("indices", "have each site once",
           "(" + std::to_string(site[0]) + ", " + std::to_string(site[1]) + ", " + std::to_string(site[2]) + ", " +
               std::to_string(site[3]) + ") more than once");
  }
}

// Finds the output sites, and keeps what the last step needs of it.
struct DeviceSites {
  DeviceSites(SparseMapParams& p, const TensorView& indices)
      : status(new_filled(indices, DType::kInt64, {3}, -1)),
        inputs(indices, p.sites, p.input_table),
        outputs(indices, most_keys(p), p.output_table) {
    p.status = status.view.as<uint64_t>();
    FASTCV_RUN(sparse_kernel_map, p, indices);
    const py::object places =
        outputs.keys.object.attr("ne")(-1).attr("cumsum")(0, py::arg("dtype") = torch_dtype(DType::kInt32));
    status.object.attr("narrow")(0, 2, 1).attr("copy_")(places.attr("narrow")(0, p.output_table.slots - 1, 1));
    const py::list found = status.object.attr("tolist")();  // the one synchronisation
    check_status(p, indices, found);
    p.outputs = found[2].cast<int64_t>();
    p.places = view_of(places.ptr()).as<int32_t>();
    const NewTensor keys = new_contiguous(indices, DType::kInt64, {p.outputs});
    p.out_keys = keys.view.as<uint64_t>();
    p.step = SparseMapStep::kCompact;
    FASTCV_RUN(sparse_kernel_map, p, indices);
    sorted_keys = keys.object.attr("sort")().attr("values");
    p.out_keys = view_of(sorted_keys.ptr()).as<uint64_t>();
  }

  // Both products are far below 2^63: `cells` is that of sizes whose bits fit a key, `fed` at most N * K < 2^46.
  static int64_t most_keys(const SparseMapParams& p) {
    int64_t cells = p.batch_size, fed = p.sites;
    for (const SparseAxis& axis : p.axes) {
      const int64_t most = FASTCV_VARIANT::most_outputs(axis, p.transposed);
      cells *= axis.out_size;
      fed *= most < axis.out_size ? most : axis.out_size;
    }
    return fed < cells ? fed : cells;
  }

  NewTensor status;
  TableMemory inputs, outputs;
  py::object sorted_keys;
};

// ---- both -----------------------------------------------------------------------------------------------------------

// Each returns (out_indices, neighbours, reverse); reverse has no rows where it is not wanted, out_indices none where
// they are the input's.
py::tuple map_submanifold(SparseMapParams& p, const TensorView& indices, bool with_reverse) {
  const bool flips = p.volume % 2 == 1 && with_reverse && !runs_on_cpu(indices);
  const bool has_reverse = with_reverse && !flips;
  const NewTensor out_indices = new_contiguous(indices, DType::kInt32, {0, 4});
  const NewTensor neighbours = new_contiguous(indices, DType::kInt32, {p.volume, p.sites});
  NewTensor reverse = new_contiguous(indices, DType::kInt32, {has_reverse ? p.volume : 0, p.sites});
  if (indices.is_description) return py::make_tuple(out_indices.object, neighbours.object, reverse.object);
  p.step = SparseMapStep::kSubmanifold;
  p.outputs = p.sites;
  p.neighbours = neighbours.view.as<int32_t>();
  p.reverse = has_reverse ? reverse.view.as<int32_t>() : nullptr;
  if (p.sites > 0 && runs_on_cpu(indices)) {
    FASTCV_RUN(sparse_kernel_map, p, indices);
  } else if (p.sites > 0) {
    neighbours.object.attr("fill_")(-1);
    if (has_reverse) reverse.object.attr("fill_")(-1);
    const NewTensor status = new_filled(indices, DType::kInt64, {2}, -1);
    p.status = status.view.as<uint64_t>();
    const TableMemory inputs(indices, p.sites, p.input_table);
    FASTCV_RUN(sparse_kernel_map, p, indices);
    check_status(p, indices, status.object.attr("tolist")());  // the one synchronisation
  }
  if (flips) reverse.object = neighbours.object.attr("flip")(0);
  return py::make_tuple(out_indices.object, neighbours.object, reverse.object);
}

// Calls the kernel's `release`.
struct CpuSites : SparseMapWork {
  CpuSites() : SparseMapWork{} {}
  ~CpuSites() {
    if (state != nullptr) release(state);
  }
};

py::tuple map_convolution(SparseMapParams& p, const TensorView& indices, bool with_reverse) {
  CpuSites work;
  std::unique_ptr<DeviceSites> device;
  const bool runs = !indices.is_description && p.sites > 0;
  if (runs) {
    p.step = SparseMapStep::kFind;
    if (runs_on_cpu(indices)) {
      p.work = &work;
      FASTCV_RUN(sparse_kernel_map, p, indices);
      p.outputs = work.outputs;
    } else {
      device = std::make_unique<DeviceSites>(p, indices);
    }
  }
  const NewTensor out_indices = new_contiguous(indices, DType::kInt32, {p.outputs, 4});
  const NewTensor neighbours = new_contiguous(indices, DType::kInt32, {p.volume, p.outputs});
  const NewTensor reverse = new_contiguous(indices, DType::kInt32, {with_reverse ? p.volume : 0, p.sites});
  if (runs) {
    if (device != nullptr) neighbours.object.attr("fill_")(-1);
    p.step = SparseMapStep::kLink;
    p.out_indices = out_indices.view.as<int32_t>();
    p.neighbours = neighbours.view.as<int32_t>();
    p.reverse = with_reverse ? reverse.view.as<int32_t>() : nullptr;
    FASTCV_RUN(sparse_kernel_map, p, indices);
  }
  return py::make_tuple(out_indices.object, neighbours.object, reverse.object);
}

py::tuple sparse_kernel_map(const TensorView& indices, int64_t batch_size, const Ints& spatial_shape,
                            const Ints& kernel_size, const Ints& stride, const Ints& padding, const Ints& dilation,
                            const Ints& output_padding, bool subm, bool transposed, bool with_reverse) {
  check_shape({indices, "indices"}, {kAny, 4}, "(N, 4)");
  check_dtype({indices, "indices"}, DType::kInt32);
  check_fewer("indices", "rows", indices.shape[0], int64_t{1} << 31);
  SparseMapParams p{};
  static_cast<SparseGeometry&>(p) = read_sparse_geometry(batch_size, spatial_shape, kernel_size, stride, padding,
                                                         dilation, output_padding, subm, transposed);
  const TensorView sites = contiguous(indices);
  p.indices = sites.as<int32_t>();
  p.sites = sites.shape[0];
  return subm ? map_submanifold(p, sites, with_reverse) : map_convolution(p, sites, with_reverse);
}

py::object sparse_reverse_map(const TensorView& neighbours, int64_t inputs) {
  check_shape({neighbours, "neighbours"}, {kAny, kAny}, "(K, M)");
  check_dtype({neighbours, "neighbours"}, DType::kInt32);
  check_fewer("neighbours", "rows", neighbours.shape[0], int64_t{1} << 31);
  check_fewer("neighbours", "columns", neighbours.shape[1], int64_t{1} << 31);
  if (inputs < 0 || inputs > kMaxSize) refuse("inputs", "be in [0, 2^31)", std::to_string(inputs));
  const TensorView map = contiguous(neighbours);
  const NewTensor reverse = new_contiguous(neighbours, DType::kInt32, {map.shape[0], inputs});
  SparseMapParams p{};
  p.step = SparseMapStep::kReverse;
  p.volume = map.shape[0];
  p.outputs = map.shape[1];
  p.sites = inputs;
  p.neighbours = map.as<int32_t>();
  p.reverse = reverse.view.as<int32_t>();
  if (!neighbours.is_description && !runs_on_cpu(neighbours)) reverse.object.attr("fill_")(-1);
  const bool has_work = p.volume > 0 && (p.outputs > 0 || runs_on_cpu(neighbours));
  if (has_work) FASTCV_RUN(sparse_kernel_map, p, neighbours);
  return reverse.object;
}

}  // namespace

void bind_sparse_kernel_map(py::module_& module) {
  module.def("sparse_kernel_map", &sparse_kernel_map);
  module.def("sparse_reverse_map", &sparse_reverse_map);
  module.def("sparse_output_shape", &sparse_output_shape);
}

}  // namespace fastcv

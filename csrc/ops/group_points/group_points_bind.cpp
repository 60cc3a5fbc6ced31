#include <string>

#include "core/dispatch.h"
#include "families/point/point_bind.h"
#include "ops/group_points/group_points.h"

namespace py = pybind11;

namespace fastcv {
namespace {

// Indices and weights as kernels read them; the weights' data is null where there are none.
struct GroupEntries {
  TensorView indices, weights;
  int lead;  // axes of the indices that the grouped features have too
  int64_t groups, terms;
};

// `like` has the clouds, the dtype and the device.
GroupEntries checked_entries(const TensorView& indices, const OptionalTensor& weights, Argument like) {
  const Argument argument{indices, "indices"};
  const int64_t batch = like.view.shape[0];
  GroupEntries entries{};
  if (weights) {
    check_shape(argument, {kAny, kAny, kAny}, "(B, P, K)");
  } else if (indices.rank < 2 || indices.rank == TensorView::kMaxRank) {
    refuse("indices", "have shape (B, ...) of 2 to 7 axes", describe_shape(indices));
  }
  if (indices.shape[0] != batch) {
    refuse("indices", "have shape (B, ...) with B = " + std::to_string(batch) + " as in " + like.name,
           describe_shape(indices));
  }
  check_integers(argument);
  check_same_device(argument, like);
  entries.lead = weights ? 2 : indices.rank;
  entries.terms = weights ? indices.shape[2] : 1;
  entries.groups = 1;
  for (int i = 1; i < entries.lead; ++i) entries.groups = multiply_sizes(entries.groups, indices.shape[i]);
  check_fewer("indices", "columns", entries.terms, int64_t{1} << 31);
  if (weights) {
    check_shape({weights, "weights"}, {batch, indices.shape[1], indices.shape[2]}, "(B, P, K)");
    check_floating({weights, "weights"});
    check_same_device({weights, "weights"}, like);
    entries.weights = converted(weights, accumulate_dtype(like.view.dtype));
  }
  entries.indices = converted(indices, DType::kInt64);
  return entries;
}

GroupPointsParams make_params(const TensorView& features, const TensorView& grouped, const GroupEntries& entries) {
  GroupPointsParams params{};
  params.features = features.data;
  params.indices = entries.indices.as<int64_t>();
  params.weights = entries.weights.data;
  params.grouped = grouped.data;
  params.dtype = features.dtype;
  params.batch = features.shape[0];
  params.count = features.shape[1];
  params.channels = features.shape[2];
  params.groups = entries.groups;
  params.terms = entries.terms;
  return params;
}

py::object group_points(const TensorView& features, const TensorView& indices, const OptionalTensor& weights) {
  check_shape({features, "features"}, {kAny, kAny, kAny}, "(B, N, C)");
  check_floating({features, "features"});
  const GroupEntries entries = checked_entries(indices, weights, {features, "features"});
  int64_t shape[TensorView::kMaxRank];
  for (int i = 0; i < entries.lead; ++i) shape[i] = indices.shape[i];
  shape[entries.lead] = features.shape[2];
  NewTensor grouped = new_contiguous(features, features.dtype, shape, entries.lead + 1);
  const TensorView source = contiguous(features);
  const GroupPointsParams params = make_params(source, grouped.view, entries);
  if (grouped.view.elements() > 0) FASTCV_RUN(group_points_forward, params, features);
  return std::move(grouped.object);
}

// The kernels of CUDA get the entries sorted by the row they take, by torch. What is made here lives as long as this.
struct SortedEntries {
  SortedEntries(GroupPointsParams& params, const TensorView& like, const GroupEntries& entries) {
    if (runs_on_cpu(like) || like.is_description) return;
    const py::object indices =
        py::handle(entries.indices.object).attr("reshape")(params.batch, params.groups * params.terms);
    const py::object clouds =
        py::module_::import("torch").attr("arange")(params.batch, py::arg("device") = indices.attr("device"));
    const py::object is_none = indices.attr("lt")(0) | indices.attr("ge")(params.count);
    const py::object rows = (indices + (clouds * py::int_(params.count)).attr("unsqueeze")(1))
                                .attr("masked_fill")(is_none, -1)
                                .attr("view")(-1);
    const py::object sorted = rows.attr("sort")(py::arg("stable") = true);
    sorted_rows = sorted.attr("values");
    order = sorted.attr("indices");
    params.sorted_rows = view_of(sorted_rows.ptr()).as<int64_t>();
    params.order = view_of(order.ptr()).as<int64_t>();
  }

  py::object sorted_rows, order;
};

py::object group_points_backward(const TensorView& grad_output, const TensorView& indices,
                                 const OptionalTensor& weights, int64_t count) {
  if (grad_output.rank < 3) refuse("grad_output", "have shape (B, ..., C)", describe_shape(grad_output));
  check_floating({grad_output, "grad_output"});
  check_at_least("count", count, 0);
  const GroupEntries entries = checked_entries(indices, weights, {grad_output, "grad_output"});
  bool matches = grad_output.rank == entries.lead + 1;
  for (int i = 0; i < entries.lead; ++i) matches = matches && grad_output.shape[i] == indices.shape[i];
  if (!matches) {
    refuse("grad_output", "have shape (B, ..., C) for indices " + describe_shape(indices), describe_shape(grad_output));
  }
  check_fewer("indices", "elements for a gradient", indices.elements(), int64_t{1} << 31);
  NewTensor grad_features =
      new_contiguous(grad_output, grad_output.dtype, {grad_output.shape[0], count, grad_output.shape[entries.lead]});
  if (grad_features.view.elements() == 0) return std::move(grad_features.object);
  const TensorView grouped = contiguous(grad_output);
  GroupPointsParams params = make_params(grad_features.view, grouped, entries);
  const SortedEntries sorted(params, grad_output, entries);
  FASTCV_RUN(group_points_backward, params, grad_output);
  return std::move(grad_features.object);
}

}  // namespace

void bind_group_points(py::module_& module) {
  module.def("group_points", &group_points);
  module.def("group_points_backward", &group_points_backward);
}

}  // namespace fastcv

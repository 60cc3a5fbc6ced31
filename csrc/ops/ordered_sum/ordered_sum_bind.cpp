#include <pybind11/stl.h>

#include "core/dispatch.h"
#include "ops/ordered_sum/ordered_sum.h"

namespace py = pybind11;

namespace fastcv {
namespace {

// The tensor as (A, B, C), where B is the axis that is kept.
struct SumView {
  TensorView input;
  int64_t a = 1, b = 1, c = 1;
};

// Whether the kept axis is the last in memory and all others are dense around it, as channels are in channels_last.
bool has_axis_last(const TensorView& input, int axis) {
  TensorView moved = input;
  for (int i = axis; i + 1 < input.rank; ++i) {
    moved.shape[i] = input.shape[i + 1];
    moved.strides[i] = input.strides[i + 1];
  }
  moved.shape[input.rank - 1] = input.shape[axis];
  moved.strides[input.rank - 1] = input.strides[axis];
  return moved.is_contiguous();
}

SumView view_for(const TensorView& input, std::optional<int64_t> axis) {
  if (!axis) return {contiguous(input), 1, 1, input.elements()};
  if (*axis < 0 || *axis >= input.rank) {
    refuse("axis", "be in [0, " + std::to_string(input.rank) + ")", std::to_string(*axis));
  }
  const int kept = static_cast<int>(*axis);
  SumView view;
  view.b = input.shape[kept];
  if (input.elements() == 0) return {input, 0, view.b, 0};
  for (int i = 0; i < input.rank; ++i) {
    if (i != kept) (i < kept ? view.a : view.c) *= input.shape[i];
  }
  if (!input.is_contiguous() && has_axis_last(input, kept)) {
    view.input = input;
    view.a *= view.c;
    view.c = 1;
    return view;
  }
  view.input = contiguous(input);
  if (view.b == 1) {
    view.c *= view.a;
    view.a = 1;
  }
  return view;
}

py::object ordered_sum(const TensorView& input, std::optional<int64_t> axis, bool mean) {
  check_floating({input, "input"});
  const SumView view = view_for(input, axis);
  NewTensor output = axis ? new_contiguous(input, input.dtype, {view.b}) : new_contiguous(input, input.dtype, {});
  OrderedSumParams params{};
  params.cut = cut_into_pieces(view.a, view.b, view.c);
  const int64_t pieces = params.cut.a_count * params.cut.c_count;
  const NewTensor workspace = new_contiguous(input, DType::kFloat64, {pieces, view.b});
  params.input = view.input.data;
  params.output = output.view.data;
  params.pieces = workspace.view.as<double>();
  params.dtype = input.dtype;
  params.a = view.a;
  params.b = view.b;
  params.c = view.c;
  params.divisor = mean ? static_cast<double>(view.a * view.c) : 1.0;
  if (view.b > 0) FASTCV_RUN(ordered_sum, params, input);
  return std::move(output.object);
}

}  // namespace

void bind_ordered_sum(py::module_& module) {
  module.def("ordered_sum", &ordered_sum);
}

}  // namespace fastcv

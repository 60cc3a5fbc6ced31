#include "core/dispatch.h"
#include "ops/nms/nms.h"

namespace py = pybind11;

namespace fastcv {
namespace {

// Checks a (B, N) companion of the boxes, or (N,) where there is no image axis, and writes its strides.
void check_per_box(Argument argument, Argument boxes, int64_t (&strides)[2]) {
  if (boxes.view.rank == 3) {
    check_shape(argument, {boxes.view.shape[0], boxes.view.shape[1]}, "(B, N)");
  } else {
    check_shape(argument, {boxes.view.shape[0]}, "(N,)");
  }
  check_same_device(argument, boxes);
  strides[0] = boxes.view.rank == 3 ? argument.view.strides[0] : 0;
  strides[1] = argument.view.strides[argument.view.rank - 1];
}

// Classes of any real dtype as integers, equal where the numbers are. Numbers with fractions become their bits; the two
// zeros are one class.
void make_integers(OptionalTensor& idxs) {
  if (idxs.dtype == DType::kInt64 || idxs.dtype == DType::kInt32) return;
  const py::object dtype = py::handle(idxs.object).attr("dtype");
  if (dtype.attr("is_complex").cast<bool>()) refuse_type("idxs", "be of a real dtype", describe_dtype(idxs));
  const bool has_fractions = dtype.attr("is_floating_point").cast<bool>();
  const TensorView numbers = converted(idxs, has_fractions && !idxs.is_description ? DType::kFloat64 : DType::kInt64);
  static_cast<TensorView&>(idxs) = numbers;
  if (!has_fractions || idxs.is_description) return;
  py::object bits = py::handle(numbers.object).attr("add")(0.0).attr("view")(torch_dtype(DType::kInt64));
  static_cast<TensorView&>(idxs) = view_of(bits.ptr());
  idxs.copy = std::move(bits);
}

// The classes may be replaced by integers that stand for them.
NmsParams make_params(const TensorView& boxes, const TensorView& scores, OptionalTensor& idxs, double threshold,
                      bool rotated = false) {
  NmsParams p{};
  p.rotated = rotated;
  check_floating({boxes, "boxes"});
  check_floating({scores, "scores"});
  check_per_box({scores, "scores"}, {boxes, "boxes"}, p.score_strides);
  if (idxs) {
    check_per_box({idxs, "idxs"}, {boxes, "boxes"}, p.class_strides);
    make_integers(idxs);  // the copy has other strides
    check_per_box({idxs, "idxs"}, {boxes, "boxes"}, p.class_strides);
    p.classes = idxs.data;
    p.class_dtype = idxs.dtype;
  }
  if (!(threshold >= 0 && threshold <= 1)) refuse("iou_threshold", "be in [0, 1]", py::str(py::float_(threshold)));
  const bool has_images = boxes.rank == 3;
  p.boxes = boxes.data;
  p.scores = scores.data;
  p.dtype = boxes.dtype;
  p.score_dtype = scores.dtype;
  p.images = has_images ? boxes.shape[0] : 1;
  p.boxes_per_image = boxes.shape[boxes.rank - 2];
  p.box_strides[0] = has_images ? boxes.strides[0] : 0;
  p.box_strides[1] = boxes.strides[boxes.rank - 2];
  p.box_strides[2] = boxes.strides[boxes.rank - 1];
  p.threshold = threshold;
  check_fewer("boxes", "rows per image", p.boxes_per_image, int64_t{1} << 31);
  if (!runs_on_cpu(boxes)) check_fewer("boxes", "images", p.images, 65536);
  return p;
}

// The kernels of CUDA get their boxes sorted, by torch, and a workspace. What is made here lives as long as this.
struct Sorted {
  Sorted(NmsParams& p, const TensorView& boxes, const TensorView& scores, const OptionalTensor& idxs) {
    if (runs_on_cpu(boxes) || boxes.is_description) return;
    // Ascending by the negative, NaN last. Sorts by bits know several NaN and two zeros: here is one of each.
    const py::handle user_scores(scores.object);
    const py::object negative = py::int_(0) - user_scores.attr("contiguous")();
    const py::object descending = negative.attr("masked_fill")(user_scores.attr("isnan")(), Py_NAN);
    order = sort(descending).attr("indices");
    p.order = view_of(order.ptr()).as<int64_t>();
    if (idxs) {
      const py::object sorted = sort(py::handle(idxs.object).attr("gather")(-1, order).attr("long")());
      classes = sorted.attr("values");
      places = sorted.attr("indices");
      p.sorted_classes = view_of(classes.ptr()).as<int64_t>();
      p.places = view_of(places.ptr()).as<int64_t>();
    }
    workspace = new_workspace(boxes, nms_workspace_bytes(p.images, p.boxes_per_image, p.dtype, p.rotated, p.threshold));
    p.workspace = workspace.view.data;
  }

  static py::object sort(const py::object& values) {
    return values.attr("sort")(py::arg("dim") = -1, py::arg("stable") = true);
  }

  py::object order, classes, places;
  NewTensor workspace;
};

py::object suppress(const TensorView& boxes, const TensorView& scores, OptionalTensor idxs, double threshold,
                    bool rotated = false) {
  check_shape({boxes, "boxes"}, {kAny, rotated ? 5 : 4}, rotated ? "(N, 5)" : "(N, 4)");
  NmsParams p = make_params(boxes, scores, idxs, threshold, rotated);
  NewTensor kept = new_contiguous(boxes, DType::kInt64, {p.boxes_per_image});
  if (boxes.is_description || p.boxes_per_image == 0) return std::move(kept.object);
  const Sorted sorted(p, boxes, scores, idxs);
  p.kept = kept.view.as<int64_t>();
  p.capacity = p.boxes_per_image;
  int64_t found = p.boxes_per_image;
  if (runs_on_cpu(boxes)) {
    p.count = &found;
    if (found == 1) *p.kept = 0;
    if (found > 1) FASTCV_RUN(nms, p, boxes);
  } else {
    const NewTensor count = new_contiguous(boxes, DType::kInt64, {1});
    p.count = count.view.as<int64_t>();
    p.fill = true;
    FASTCV_RUN(nms, p, boxes);
    found = count.object.attr("item")().cast<int64_t>();  // the one synchronisation
  }
  if (found < p.boxes_per_image) return kept.object.attr("narrow")(0, 0, found);
  return std::move(kept.object);
}

py::object nms(const TensorView& boxes, const TensorView& scores, double iou_threshold) {
  return suppress(boxes, scores, {}, iou_threshold);
}

py::object batched_nms(const TensorView& boxes, const TensorView& scores, const OptionalTensor& idxs,
                       double iou_threshold) {
  return suppress(boxes, scores, idxs, iou_threshold);
}

py::object nms_rotated(const TensorView& boxes, const TensorView& scores, double iou_threshold) {
  return suppress(boxes, scores, {}, iou_threshold, true);
}

py::object batched_nms_rotated(const TensorView& boxes, const TensorView& scores, const OptionalTensor& idxs,
                               double iou_threshold) {
  return suppress(boxes, scores, idxs, iou_threshold, true);
}

py::tuple batched_nms_padded(const TensorView& boxes, const TensorView& scores, OptionalTensor idxs,
                             double iou_threshold, int64_t max_output) {
  if (boxes.rank == 3) {
    check_shape({boxes, "boxes"}, {kAny, kAny, 4}, "(B, N, 4)");
  } else {
    check_shape({boxes, "boxes"}, {kAny, 4}, "(N, 4) or (B, N, 4)");
  }
  check_at_least("max_output", max_output, 0);
  NmsParams p = make_params(boxes, scores, idxs, iou_threshold);
  const bool has_images = boxes.rank == 3;
  NewTensor kept = has_images ? new_contiguous(boxes, DType::kInt64, {p.images, max_output})
                              : new_contiguous(boxes, DType::kInt64, {max_output});
  NewTensor count =
      has_images ? new_contiguous(boxes, DType::kInt64, {p.images}) : new_contiguous(boxes, DType::kInt64, {});
  const Sorted sorted(p, boxes, scores, idxs);
  p.kept = kept.view.as<int64_t>();
  p.count = count.view.as<int64_t>();
  p.capacity = max_output;
  p.fill = true;
  if (p.images > 0) FASTCV_RUN(nms, p, boxes);
  return py::make_tuple(kept.object, count.object);
}

}  // namespace

void bind_nms(py::module_& module) {
  module.def("nms", &nms);
  module.def("batched_nms", &batched_nms);
  module.def("batched_nms_padded", &batched_nms_padded);
  module.def("nms_rotated", &nms_rotated);
  module.def("batched_nms_rotated", &batched_nms_rotated);
}

}  // namespace fastcv

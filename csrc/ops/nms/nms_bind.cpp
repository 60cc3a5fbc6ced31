#include <string>

#include "core/dispatch.h"
#include "core/tensor.h"
#include "ops/nms/nms.h"

namespace py = pybind11;

namespace fastcv {
namespace {

// Checks a (B, N) companion of the boxes, or (N,) where there is no image axis, and writes its strides.
void check_per_box(Argument argument, const TensorView& boxes, int64_t (&strides)[2]) {
  const TensorView& view = argument.view;
  if (boxes.rank == 3) {
    check_shape(argument, {boxes.shape[0], boxes.shape[1]}, "(B, N)");
  } else {
    check_shape(argument, {boxes.shape[0]}, "(N,)");
  }
  check_same_device(argument, {boxes, "boxes"});
  strides[0] = boxes.rank == 3 ? view.strides[0] : 0;
  strides[1] = view.strides[view.rank - 1];
}

const int64_t* sorted_indices(const py::object& tensor, const char* name, const NmsParams& p, const TensorView& boxes) {
  if (tensor.is_none()) return nullptr;
  const TensorView view = view_of(tensor.ptr());
  check_dtype({view, name}, DType::kInt64);
  check_contiguous({view, name});
  check_same_device({view, name}, {boxes, "boxes"});
  if (view.elements() != p.images * p.boxes_per_image) throw py::value_error(std::string(name) + " must be (B, N)");
  return static_cast<const int64_t*>(view.data);
}

NmsParams make_params(const TensorView& kept, const TensorView& boxes, const TensorView& scores,
                      const py::object& classes, double threshold) {
  NmsParams p{};
  const bool has_images = boxes.rank == 3;
  if (has_images) {
    check_shape({boxes, "boxes"}, {kAny, kAny, 4}, "(B, N, 4)");
    check_shape({kept, "kept"}, {boxes.shape[0], kAny}, "(B, M)");
  } else {
    check_shape({boxes, "boxes"}, {kAny, 4}, "(N, 4)");
    check_shape({kept, "kept"}, {kAny}, "(M,)");
  }
  check_floating({boxes, "boxes"});
  check_floating({scores, "scores"});
  check_per_box({scores, "scores"}, boxes, p.score_strides);
  if (!classes.is_none()) {
    const TensorView view = view_of(classes.ptr());
    if (view.dtype != DType::kInt64 && view.dtype != DType::kInt32) {
      throw py::type_error(std::string("idxs must be int64 or int32, got ") + name_of(view.dtype));
    }
    check_per_box({view, "idxs"}, boxes, p.class_strides);
    p.classes = view.data;
    p.class_dtype = view.dtype;
  }
  check_dtype({kept, "kept"}, DType::kInt64);
  check_contiguous({kept, "kept"});
  check_same_device({kept, "kept"}, {boxes, "boxes"});
  if (!(threshold >= 0 && threshold <= 1)) {
    throw py::value_error("iou_threshold must be in [0, 1], got " + std::to_string(threshold));
  }
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
  p.kept = static_cast<int64_t*>(kept.data);
  p.capacity = kept.shape[kept.rank - 1];
  if (p.boxes_per_image >= int64_t{1} << 31) throw py::value_error("boxes must be fewer than 2^31 per image");
  return p;
}

// For boxes in the memory of the CPU and without an image axis: the kept indices, no more.
py::object nms(const TensorView& boxes, const TensorView& scores, const py::object& classes, double threshold) {
  if (!runs_on_cpu(boxes)) throw py::value_error("nms: on CUDA use nms_padded");
  check_shape({boxes, "boxes"}, {kAny, 4}, "(N, 4)");
  NewTensor kept = new_contiguous(boxes, DType::kInt64, {boxes.shape[0]});
  NmsParams p = make_params(kept.view, boxes, scores, classes, threshold);
  int64_t count = p.boxes_per_image;
  p.count = &count;
  if (count == 1) *p.kept = 0;
  if (count > 1) FASTCV_RUN(nms, p, boxes);
  if (count < p.boxes_per_image) return kept.object.attr("narrow")(0, 0, count);
  return std::move(kept.object);
}

void nms_padded(const TensorView& kept, const TensorView& count, const TensorView& boxes, const TensorView& scores,
                const py::object& classes, double threshold, const py::object& order, const py::object& places,
                const py::object& sorted_classes, const py::object& workspace) {
  NmsParams p = make_params(kept, boxes, scores, classes, threshold);
  check_dtype({count, "count"}, DType::kInt64);
  check_contiguous({count, "count"});
  check_same_device({count, "count"}, {boxes, "boxes"});
  if (count.elements() != p.images) throw py::value_error("count must have one element per image");
  p.count = static_cast<int64_t*>(count.data);
  p.fill = true;
  if (!runs_on_cpu(boxes)) {
    p.order = sorted_indices(order, "order", p, boxes);
    p.places = sorted_indices(places, "places", p, boxes);
    p.sorted_classes = sorted_indices(sorted_classes, "sorted_classes", p, boxes);
    const bool classes_sorted = !places.is_none() && !sorted_classes.is_none();
    if (order.is_none() || workspace.is_none() || (!classes.is_none() && !classes_sorted)) {
      throw py::value_error("nms_padded: on CUDA the order and a workspace must be given");
    }
    const TensorView memory = view_of(workspace.ptr());
    check_dtype({memory, "workspace"}, DType::kUInt8);
    check_contiguous({memory, "workspace"});
    check_same_device({memory, "workspace"}, {boxes, "boxes"});
    if (memory.elements() < nms_workspace_bytes(p.images * p.boxes_per_image, p.dtype)) {
      throw py::value_error("workspace is too small");
    }
    p.workspace = memory.data;
    if (p.images > 65535)
      throw py::value_error("boxes must be of at most 65535 images, got " + std::to_string(p.images));
  }
  if (p.images > 0) FASTCV_RUN(nms, p, boxes);
}

}  // namespace

void bind_nms(py::module_& module) {
  module.def("nms", &nms);
  module.def("nms_padded", &nms_padded);
}

}  // namespace fastcv

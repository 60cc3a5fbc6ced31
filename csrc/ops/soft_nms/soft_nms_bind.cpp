#include "core/dispatch.h"
#include "ops/soft_nms/soft_nms.h"

namespace py = pybind11;

namespace fastcv {
namespace {

SoftNmsParams make_params(const TensorView& boxes, const TensorView& scores, double iou_threshold, double sigma,
                          double min_score, bool gaussian) {
  check_shape({boxes, "boxes"}, {kAny, 4}, "(N, 4)");
  check_floating({boxes, "boxes"});
  check_shape({scores, "scores"}, {boxes.shape[0]}, "(N,)");
  check_same_dtype({scores, "scores"}, {boxes, "boxes"});
  check_same_device({scores, "scores"}, {boxes, "boxes"});
  if (!(iou_threshold >= 0 && iou_threshold <= 1)) {
    refuse("iou_threshold", "be in [0, 1]", py::str(py::float_(iou_threshold)));
  }
  if (!(sigma > 0)) refuse("sigma", "be positive", py::str(py::float_(sigma)));
  if (!(min_score >= 0)) refuse("min_score", "not be negative", py::str(py::float_(min_score)));
  check_fewer("boxes", "rows", boxes.shape[0], int64_t{1} << 31);
  SoftNmsParams p{};
  p.boxes = boxes.data;
  p.scores = scores.data;
  p.dtype = boxes.dtype;
  p.boxes_count = boxes.shape[0];
  p.box_strides[0] = boxes.strides[0];
  p.box_strides[1] = boxes.strides[1];
  p.score_stride = scores.strides[0];
  p.iou_threshold = iou_threshold;
  p.sigma = sigma;
  p.min_score = min_score;
  p.gaussian = gaussian;
  return p;
}

py::tuple soft_nms(const TensorView& boxes, const TensorView& scores, double iou_threshold, double sigma,
                   double min_score, bool gaussian) {
  SoftNmsParams p = make_params(boxes, scores, iou_threshold, sigma, min_score, gaussian);
  const NewTensor kept = new_contiguous(boxes, DType::kInt64, {p.boxes_count});
  const NewTensor kept_scores = new_contiguous(boxes, p.dtype, {p.boxes_count});
  if (boxes.is_description || p.boxes_count == 0) return py::make_tuple(kept.object, kept_scores.object);
  p.workspace_width = soft_nms_workspace_width(p.boxes_count);
  const NewTensor workspace = new_workspace(boxes, soft_nms_workspace_bytes(p.boxes_count, p.dtype));
  p.kept = kept.view.as<int64_t>();
  p.kept_scores = kept_scores.view.data;
  p.workspace = workspace.view.data;
  int64_t found = 0;
  if (runs_on_cpu(boxes)) {
    p.count = &found;
    FASTCV_RUN(soft_nms, p, boxes);
  } else {
    const NewTensor count = new_contiguous(boxes, DType::kInt64, {1});
    p.count = count.view.as<int64_t>();
    FASTCV_RUN(soft_nms, p, boxes);
    found = count.object.attr("item")().cast<int64_t>();  // the one synchronisation
  }
  return py::make_tuple(kept.object.attr("narrow")(0, 0, found), kept_scores.object.attr("narrow")(0, 0, found));
}

}  // namespace

void bind_soft_nms(py::module_& module) {
  module.def("soft_nms", &soft_nms);
}

}  // namespace fastcv

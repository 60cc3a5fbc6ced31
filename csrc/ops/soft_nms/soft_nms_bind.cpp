#include <string>

#include "core/dispatch.h"
#include "core/tensor.h"
#include "ops/soft_nms/soft_nms.h"

namespace py = pybind11;

namespace fastcv {
namespace {

void soft_nms(const TensorView& kept, const TensorView& kept_scores, const TensorView& count,
              const TensorView& workspace, const TensorView& boxes, const TensorView& scores, double iou_threshold,
              double sigma, double min_score, bool gaussian) {
  check_shape({boxes, "boxes"}, {kAny, 4}, "(N, 4)");
  check_floating({boxes, "boxes"});
  const int64_t boxes_count = boxes.shape[0];
  check_shape({scores, "scores"}, {boxes_count}, "(N,)");
  check_same_dtype({scores, "scores"}, {boxes, "boxes"});
  check_shape({kept, "kept"}, {boxes_count}, "(N,)");
  check_dtype({kept, "kept"}, DType::kInt64);
  check_shape({kept_scores, "kept_scores"}, {boxes_count}, "(N,)");
  check_same_dtype({kept_scores, "kept_scores"}, {boxes, "boxes"});
  check_shape({count, "count"}, {}, "()");
  check_dtype({count, "count"}, DType::kInt64);
  check_shape({workspace, "workspace"}, {7, kAny}, "(7, W)");
  check_dtype({workspace, "workspace"}, accumulate_dtype(boxes.dtype));
  if (workspace.shape[1] < boxes_count || workspace.shape[1] % kSoftNmsPadding != 0) {
    throw py::value_error("workspace is too narrow");
  }
  for (const Argument& argument :
       {Argument{kept, "kept"}, Argument{kept_scores, "kept_scores"}, Argument{workspace, "workspace"}}) {
    check_contiguous(argument);
    check_same_device(argument, {boxes, "boxes"});
  }
  check_same_device({scores, "scores"}, {boxes, "boxes"});
  check_same_device({count, "count"}, {boxes, "boxes"});
  if (!(iou_threshold >= 0 && iou_threshold <= 1)) {
    throw py::value_error("iou_threshold must be in [0, 1], got " + std::to_string(iou_threshold));
  }
  if (!(sigma > 0)) throw py::value_error("sigma must be positive, got " + std::to_string(sigma));
  if (!(min_score >= 0)) throw py::value_error("min_score must not be negative, got " + std::to_string(min_score));
  if (boxes_count >= int64_t{1} << 31) throw py::value_error("boxes must be fewer than 2^31");

  SoftNmsParams p{};
  p.boxes = boxes.data;
  p.scores = scores.data;
  p.kept = static_cast<int64_t*>(kept.data);
  p.kept_scores = kept_scores.data;
  p.count = static_cast<int64_t*>(count.data);
  p.workspace = workspace.data;
  p.workspace_width = workspace.shape[1];
  p.dtype = boxes.dtype;
  p.boxes_count = boxes_count;
  p.box_strides[0] = boxes.strides[0];
  p.box_strides[1] = boxes.strides[1];
  p.score_stride = scores.strides[0];
  p.iou_threshold = iou_threshold;
  p.sigma = sigma;
  p.min_score = min_score;
  p.gaussian = gaussian;
  FASTCV_RUN(soft_nms, p, boxes);
}

}  // namespace

void bind_soft_nms(py::module_& module) {
  module.def("soft_nms", &soft_nms);
}

}  // namespace fastcv

#include "core/dispatch.h"
#include "ops/match_boxes/match_boxes.h"

namespace py = pybind11;

namespace fastcv {
namespace {

py::object match_boxes(const TensorView& gt, const TensorView& candidates, double high_threshold, double low_threshold,
                       bool allow_low_quality) {
  check_shape({gt, "gt"}, {kAny, 4}, "(N, 4)");
  check_floating({gt, "gt"});
  check_shape({candidates, "candidates"}, {kAny, 4}, "(M, 4)");
  check_floating({candidates, "candidates"});
  check_same_device({candidates, "candidates"}, {gt, "gt"});
  if (!(low_threshold <= high_threshold)) {
    const std::string low = py::str(py::float_(low_threshold)), high = py::str(py::float_(high_threshold));
    refuse("low_threshold", "not be greater than high_threshold", low + " and " + high);
  }
  check_fewer("gt", "boxes", gt.shape[0], int64_t{1} << 31);
  const DType dtype = promoted(gt.dtype, candidates.dtype);
  const TensorView gt_boxes = converted(gt, dtype), candidate_boxes = converted(candidates, dtype);
  NewTensor matches = new_contiguous(candidates, DType::kInt64, {candidates.shape[0]});
  NewTensor workspace;
  if (allow_low_quality && !runs_on_cpu(gt)) workspace = new_workspace(gt, match_boxes_workspace_bytes(gt.shape[0]));
  MatchBoxesParams params{};
  params.gt = gt_boxes.data;
  params.candidates = candidate_boxes.data;
  params.matches = matches.view.as<int64_t>();
  params.gt_best = workspace.view.data;
  params.dtype = dtype;
  params.gts = gt.shape[0];
  params.count = candidates.shape[0];
  params.high_threshold = high_threshold;
  params.low_threshold = low_threshold;
  params.allow_low_quality = allow_low_quality;
  if (params.count > 0) FASTCV_RUN(match_boxes, params, candidates);
  return std::move(matches.object);
}

}  // namespace

void bind_match_boxes(py::module_& module) {
  module.def("match_boxes", &match_boxes);
}

}  // namespace fastcv

#include "core/dispatch.h"
#include "core/tensor.h"
#include "ops/match_boxes/match_boxes.h"

namespace py = pybind11;

namespace fastcv {
namespace {

void match_boxes(const TensorView& matches, const TensorView& gt, const TensorView& candidates,
                 const TensorView& workspace, double high_threshold, double low_threshold, bool allow_low_quality) {
  check_shape({gt, "gt"}, {kAny, 4}, "(N, 4)");
  check_floating({gt, "gt"});
  check_contiguous({gt, "gt"});
  check_shape({candidates, "candidates"}, {kAny, 4}, "(M, 4)");
  check_same_dtype({candidates, "candidates"}, {gt, "gt"});
  check_same_device({candidates, "candidates"}, {gt, "gt"});
  check_contiguous({candidates, "candidates"});
  check_shape({matches, "matches"}, {candidates.shape[0]}, "(M,)");
  check_dtype({matches, "matches"}, DType::kInt64);
  check_same_device({matches, "matches"}, {gt, "gt"});
  check_contiguous({matches, "matches"});
  if (allow_low_quality) {  // otherwise any tensor stands in
    check_shape({workspace, "workspace"}, {gt.shape[0]}, "(N,)");
    check_dtype({workspace, "workspace"}, DType::kInt64);
    check_same_device({workspace, "workspace"}, {gt, "gt"});
    check_contiguous({workspace, "workspace"});
  }
  if (!(low_threshold <= high_threshold)) {
    throw py::value_error("low_threshold must not be greater than high_threshold, got " +
                          std::to_string(low_threshold) + " and " + std::to_string(high_threshold));
  }
  if (gt.shape[0] > 0x7fffffff) {
    throw py::value_error("gt must have fewer than 2^31 boxes, got " + std::to_string(gt.shape[0]));
  }
  if (candidates.shape[0] == 0) return;
  MatchBoxesParams params{};
  params.gt = gt.data;
  params.candidates = candidates.data;
  params.matches = static_cast<int64_t*>(matches.data);
  params.gt_best = workspace.data;
  params.dtype = gt.dtype;
  params.gts = gt.shape[0];
  params.count = candidates.shape[0];
  params.high_threshold = high_threshold;
  params.low_threshold = low_threshold;
  params.allow_low_quality = allow_low_quality;
  FASTCV_RUN(match_boxes, params, candidates);
}

}  // namespace

void bind_match_boxes(py::module_& module) {
  module.def("match_boxes", &match_boxes);
}

}  // namespace fastcv

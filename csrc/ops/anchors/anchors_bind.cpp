#include <pybind11/stl.h>

#include <vector>

#include "core/dispatch.h"
#include "core/tensor.h"
#include "ops/anchors/anchors.h"

namespace py = pybind11;

namespace fastcv {
namespace {

constexpr int64_t kLargest = 0x7fffffff;
constexpr size_t kNumbersPerLevel = 5;

// `levels` holds height, width, stride along y and x, and the number of cells of each level.
AnchorPyramid make_pyramid(const std::vector<int64_t>& levels, const TensorView& cells) {
  check_shape({cells, "cell_anchors"}, {kAny, 4}, "(S, 4)");
  check_floating({cells, "cell_anchors"});
  check_contiguous({cells, "cell_anchors"});
  if (levels.size() % kNumbersPerLevel != 0 || levels.size() > kNumbersPerLevel * kMaxAnchorLevels) {
    throw py::value_error("feature_sizes must have at most 16 levels of five numbers, got " +
                          std::to_string(levels.size()) + " numbers");
  }
  AnchorPyramid pyramid{};
  pyramid.levels = static_cast<int>(levels.size() / kNumbersPerLevel);
  int64_t first_cell = 0;
  for (int l = 0; l < pyramid.levels; ++l) {
    const int64_t* numbers = levels.data() + kNumbersPerLevel * l;
    const int64_t height = numbers[0], width = numbers[1], count = numbers[4];
    for (size_t i = 0; i < kNumbersPerLevel; ++i) {
      if (numbers[i] < 0 || numbers[i] > kLargest) {
        throw py::value_error("feature_sizes, strides and cell counts must be from 0 to 2^31 - 1, got " +
                              std::to_string(numbers[i]));
      }
    }
    // Each factor has 31 bits, so a product of two fits; the third is checked by division.
    const int64_t places = height * width;
    if (places > 0 && count > (kLargest - pyramid.anchors) / places) {
      throw py::value_error("feature_sizes must give fewer than 2^31 anchors");
    }
    pyramid.level[l] = {pyramid.anchors, height, width, numbers[2], numbers[3], first_cell, count};
    pyramid.anchors += places * count;
    first_cell += count;
  }
  if (first_cell != cells.shape[0]) {
    throw py::value_error("cell_anchors must have one row per cell, " + std::to_string(first_cell) + ", got " +
                          std::to_string(cells.shape[0]));
  }
  return pyramid;
}

void anchor_grid(const TensorView& anchors, const TensorView& cells, const std::vector<int64_t>& levels) {
  AnchorGridParams params{};
  params.pyramid = make_pyramid(levels, cells);
  if (anchors.rank == 3) {
    check_shape({anchors, "anchors"}, {kAny, params.pyramid.anchors, 4}, "(I, A, 4)");
  } else {
    check_shape({anchors, "anchors"}, {params.pyramid.anchors, 4}, "(A, 4)");
  }
  check_same_dtype({anchors, "anchors"}, {cells, "cell_anchors"});
  check_same_device({anchors, "anchors"}, {cells, "cell_anchors"});
  check_contiguous({anchors, "anchors"});
  params.cells = cells.data;
  params.anchors = anchors.data;
  params.images = anchors.rank == 3 ? anchors.shape[0] : 1;
  params.dtype = cells.dtype;
  if (anchors.elements() == 0) return;
  FASTCV_RUN(anchor_grid, params, anchors);
}

void decode_anchors(const TensorView& decoded, const TensorView& deltas, const TensorView& indices,
                    const TensorView& cells, const std::vector<int64_t>& levels, double wx, double wy, double ww,
                    double wh, double clip, bool clips, double image_height, double image_width) {
  DecodeAnchorsParams params{};
  params.pyramid = make_pyramid(levels, cells);
  check_shape({deltas, "deltas"}, {kAny, 4}, "(K, 4)");
  check_same_dtype({deltas, "deltas"}, {cells, "cell_anchors"});
  check_same_device({deltas, "deltas"}, {cells, "cell_anchors"});
  check_contiguous({deltas, "deltas"});
  check_shape({indices, "indices"}, {deltas.shape[0]}, "(K,)");
  check_dtype({indices, "indices"}, DType::kInt64);
  check_same_device({indices, "indices"}, {cells, "cell_anchors"});
  check_contiguous({indices, "indices"});
  check_shape({decoded, "decoded"}, {deltas.shape[0], 4}, "(K, 4)");
  check_same_dtype({decoded, "decoded"}, {deltas, "deltas"});
  check_same_device({decoded, "decoded"}, {deltas, "deltas"});
  check_contiguous({decoded, "decoded"});
  params.cells = cells.data;
  params.deltas = deltas.data;
  params.indices = static_cast<const int64_t*>(indices.data);
  params.decoded = decoded.data;
  params.dtype = deltas.dtype;
  params.count = deltas.shape[0];
  params.coding = {{wx, wy, ww, wh}, clip};
  params.clips = clips;
  params.image_height = image_height;
  params.image_width = image_width;
  if (params.count == 0) return;
  FASTCV_RUN(decode_anchors, params, deltas);
}

}  // namespace

void bind_anchors(py::module_& module) {
  module.def("anchor_grid", &anchor_grid);
  module.def("decode_anchors", &decode_anchors);
}

}  // namespace fastcv

#include <pybind11/stl.h>

#include <optional>

#include "core/dispatch.h"
#include "ops/anchors/anchors.h"

namespace py = pybind11;

namespace fastcv {
namespace {

constexpr int64_t kLargest = 0x7fffffff;

std::string entry(const char* list, int level) {
  return std::string(list) + "[" + std::to_string(level) + "]";
}

// Two numbers of a level, vertical and horizontal.
void check_pair(const char* list, int level, const Ints& numbers) {
  const int64_t y = numbers[2 * level], x = numbers[2 * level + 1];
  if (y >= 0 && y <= kLargest && x >= 0 && x <= kLargest) return;
  refuse(entry(list, level), "be from 0 to 2147483647", "(" + std::to_string(y) + ", " + std::to_string(x) + ")");
}

// The anchors of one place of each level, checked.
void check_cells(const TensorList& cells) {
  const Argument first{cells.views[0], "cell_anchors[0]"};
  for (int l = 0; l < cells.count; ++l) {
    const std::string name = entry("cell_anchors", l);
    const Argument argument{cells.views[l], name.c_str()};
    check_shape(argument, {kAny, 4}, "(S, 4)");
    check_floating(argument);
    check_same_dtype(argument, first);
    check_same_device(argument, first);
  }
}

// `sizes` and `strides` hold two numbers per level.
AnchorPyramid make_pyramid(const TensorList& cells, const Ints& sizes, const Ints& strides) {
  const int levels = cells.count;
  if (levels < 1) refuse("cell_anchors", "hold 1 to 16 tensors", std::to_string(levels));
  if (sizes.count != 2 * levels) {
    refuse("feature_sizes", "hold two numbers per level, " + std::to_string(2 * levels), std::to_string(sizes.count));
  }
  if (strides.count != 2 * levels) {
    refuse("strides", "hold two numbers per level, " + std::to_string(2 * levels), std::to_string(strides.count));
  }
  check_cells(cells);
  AnchorPyramid pyramid{};
  pyramid.levels = levels;
  int64_t first_cell = 0;
  for (int l = 0; l < levels; ++l) {
    check_pair("feature_sizes", l, sizes);
    check_pair("strides", l, strides);
    const int64_t height = sizes[2 * l], width = sizes[2 * l + 1], count = cells.views[l].shape[0];
    // Each factor has 31 bits, so a product of two fits; the third is checked by division.
    const int64_t places = height * width;
    if (places > 0 && count > (kLargest - pyramid.anchors) / places) {
      refuse("feature_sizes", "give fewer than 2147483648 anchors",
             "more at level " + std::to_string(l) + ", (" + std::to_string(height) + ", " + std::to_string(width) +
                 ") with " + std::to_string(count) + " anchors per place");
    }
    pyramid.level[l] = {pyramid.anchors, height, width, strides[2 * l], strides[2 * l + 1], first_cell, count};
    pyramid.anchors += places * count;
    first_cell += count;
  }
  return pyramid;
}

// The cells of all levels in one tensor.
TensorView joined(const TensorList& cells) {
  if (cells.count == 1 || cells.views[0].is_description) return contiguous(cells.views[0]);
  py::tuple tensors(cells.count);
  for (int l = 0; l < cells.count; ++l) tensors[l] = py::handle(cells.views[l].object);
  py::object all = py::module_::import("torch").attr("cat")(tensors);
  TensorView view = view_of(all.ptr());
  view.copy = std::move(all);
  return contiguous(view);
}

py::object anchor_grid(const TensorList& cell_anchors, const Ints& feature_sizes, const Ints& strides,
                       std::optional<int64_t> images) {
  AnchorGridParams params{};
  params.pyramid = make_pyramid(cell_anchors, feature_sizes, strides);
  params.images = images.value_or(1);
  check_at_least("images", params.images, 0);
  const TensorView& first = cell_anchors.views[0];
  const int64_t anchors = params.pyramid.anchors;
  NewTensor grid = images ? new_contiguous(first, first.dtype, {*images, anchors, 4})
                          : new_contiguous(first, first.dtype, {anchors, 4});
  const TensorView cells = joined(cell_anchors);
  params.cells = cells.data;
  params.anchors = grid.view.data;
  params.dtype = first.dtype;
  if (grid.view.elements() > 0) FASTCV_RUN(anchor_grid, params, first);
  return std::move(grid.object);
}

// `deltas` (K, 4) or (B, K, 4), `indices` without the last axis; `image_size` is empty or (height, width).
py::object decode_anchors(const TensorView& deltas, const TensorView& indices, const TensorList& cell_anchors,
                          const Ints& feature_sizes, const Ints& strides, double weight_x, double weight_y,
                          double weight_w, double weight_h, double clip, const Ints& image_size) {
  DecodeAnchorsParams params{};
  params.pyramid = make_pyramid(cell_anchors, feature_sizes, strides);
  const Argument first{cell_anchors.views[0], "cell_anchors[0]"};
  if (deltas.rank == 3) {
    check_shape({deltas, "deltas"}, {kAny, kAny, 4}, "(B, K, 4)");
    check_shape({indices, "indices"}, {deltas.shape[0], deltas.shape[1]}, "(B, K)");
  } else {
    check_shape({deltas, "deltas"}, {kAny, 4}, "(K, 4) or (B, K, 4)");
    check_shape({indices, "indices"}, {deltas.shape[0]}, "(K,)");
  }
  check_same_dtype({deltas, "deltas"}, first);
  check_same_device({deltas, "deltas"}, first);
  check_dtype({indices, "indices"}, DType::kInt64);
  check_same_device({indices, "indices"}, first);
  if (image_size.count != 0 && image_size.count != 2) {
    refuse("image_size", "hold two numbers or none", std::to_string(image_size.count));
  }
  NewTensor decoded = new_like(deltas);
  const TensorView moves = contiguous(deltas), places = contiguous(indices), cells = joined(cell_anchors);
  params.cells = cells.data;
  params.deltas = moves.data;
  params.indices = places.as<int64_t>();
  params.decoded = decoded.view.data;
  params.dtype = deltas.dtype;
  params.count = deltas.elements() / 4;
  params.coding = {{weight_x, weight_y, weight_w, weight_h}, clip};
  params.clips = image_size.count == 2;
  params.image_height = static_cast<double>(image_size[0]);
  params.image_width = static_cast<double>(image_size[1]);
  if (params.count > 0) FASTCV_RUN(decode_anchors, params, deltas);
  return std::move(decoded.object);
}

}  // namespace

void bind_anchors(py::module_& module) {
  module.def("anchor_grid", &anchor_grid);
  module.def("decode_anchors", &decode_anchors);
}

}  // namespace fastcv

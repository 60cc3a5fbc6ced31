#include "core/dispatch.h"
#include "ops/decode_yolo/decode_yolo.h"

namespace py = pybind11;

namespace fastcv {
namespace {

// What both versions share; `image_size` is height and width in pixels.
DecodeYoloParams make_params(const TensorView& output, const Ints& image_size, double threshold, int64_t capacity) {
  DecodeYoloParams p{};
  if (image_size.count != 2) refuse("image_size", "be two ints (height, width)", std::to_string(image_size.count));
  check_at_least("image_size[0]", image_size[0], 1);
  check_at_least("image_size[1]", image_size[1], 1);
  if (!(threshold >= 0)) refuse("score_threshold", "be at least 0", py::str(py::float_(threshold)));
  check_at_least("max_output", capacity, 0);
  p.output = output.data;
  p.dtype = output.dtype;
  p.images = output.shape[0];
  p.image_stride = output.strides[0];
  p.threshold = threshold;
  p.capacity = capacity;
  return p;
}

py::tuple run(DecodeYoloParams& p, const TensorView& output) {
  const int64_t numbers = multiply_sizes(multiply_sizes(p.height * p.width, p.anchors), p.classes);
  check_fewer("output", "scores per image", numbers, int64_t{1} << 31);
  const DType dtype = accumulate_dtype(output.dtype);
  const NewTensor boxes = new_contiguous(output, dtype, {p.images, p.capacity, 4});
  const NewTensor scores = new_contiguous(output, dtype, {p.images, p.capacity});
  const NewTensor labels = new_contiguous(output, DType::kInt64, {p.images, p.capacity});
  const NewTensor count = new_contiguous(output, DType::kInt64, {p.images});
  p.boxes = boxes.view.data;
  p.scores = scores.view.data;
  p.labels = labels.view.as<int64_t>();
  p.count = count.view.as<int64_t>();
  if (p.images > 0) FASTCV_RUN(decode_yolo, p, output);
  return py::make_tuple(boxes.object, scores.object, labels.object, count.object);
}

py::tuple decode_yolo(const TensorView& output, const Floats& anchors, const Ints& image_size, double score_threshold,
                      int64_t max_output, bool softmax, double scale_xy) {
  check_shape({output, "output"}, {kAny, kAny, kAny, kAny}, "(N, A (5 + K), H, W)");
  check_floating({output, "output"});
  const int count = anchors.count / 2;
  if (count < 1 || count > DecodeYoloParams::kMostAnchors || anchors.count % 2 != 0) {
    refuse("anchors", "hold 1 to 32 pairs (width, height)", std::to_string(anchors.count) + " numbers");
  }
  DecodeYoloParams p = make_params(output, image_size, score_threshold, max_output);
  if (output.shape[1] % count != 0 || output.shape[1] / count <= 5) {
    refuse("output", "have A (5 + K) channels for A = " + std::to_string(count) + " anchors and K classes",
           std::to_string(output.shape[1]));
  }
  for (int i = 0; i < anchors.count; ++i) p.sizes[i] = anchors[i];
  const int64_t numbers = output.shape[1] / count, step = output.strides[1];
  p.height = output.shape[2];
  p.width = output.shape[3];
  p.anchors = count;
  p.classes = numbers - 5;
  p.box = {0, output.strides[2], output.strides[3], numbers * step, step};
  p.confidence = p.kind = p.box;
  p.confidence.first = 4 * step;
  p.kind.first = 5 * step;
  p.step_x = p.width > 0 ? static_cast<double>(image_size[1]) / static_cast<double>(p.width) : 0;
  p.step_y = p.height > 0 ? static_cast<double>(image_size[0]) / static_cast<double>(p.height) : 0;
  p.scale = scale_xy;
  p.logistic = true;
  p.softmax = softmax;
  return run(p, output);
}

py::tuple decode_yolo_v1(const TensorView& output, int64_t side, int64_t boxes, const Ints& image_size,
                         double score_threshold, int64_t max_output, bool softmax, bool square) {
  check_shape({output, "output"}, {kAny, kAny}, "(N, S S (K + 5 B))");
  check_floating({output, "output"});
  check_at_least("side", side, 1);
  check_at_least("boxes", boxes, 1);
  if (boxes > DecodeYoloParams::kMostAnchors) refuse("boxes", "be at most 32", std::to_string(boxes));
  DecodeYoloParams p = make_params(output, image_size, score_threshold, max_output);
  const int64_t cells = multiply_sizes(side, side), classes = output.shape[1] / cells - 5 * boxes;
  if (output.shape[1] % cells != 0 || classes < 1) {
    refuse("output",
           "have S S (K + 5 B) numbers per image for S = " + std::to_string(side) + ", B = " + std::to_string(boxes) +
               " and K classes",
           std::to_string(output.shape[1]));
  }
  for (int64_t b = 0; b < boxes; ++b) {
    p.sizes[2 * b] = static_cast<double>(image_size[1]);
    p.sizes[2 * b + 1] = static_cast<double>(image_size[0]);
  }
  const int64_t step = output.strides[1];
  p.height = p.width = side;
  p.anchors = boxes;
  p.classes = classes;
  p.kind = {0, side * classes * step, classes * step, 0, step};
  p.confidence = {cells * classes * step, side * boxes * step, boxes * step, step, 0};
  p.box = {cells * (classes + boxes) * step, side * boxes * 4 * step, boxes * 4 * step, 4 * step, step};
  p.step_x = static_cast<double>(image_size[1]) / static_cast<double>(side);
  p.step_y = static_cast<double>(image_size[0]) / static_cast<double>(side);
  p.softmax = softmax;
  p.square = square;
  return run(p, output);
}

}  // namespace

void bind_decode_yolo(py::module_& module) {
  module.def("decode_yolo", &decode_yolo);
  module.def("decode_yolo_v1", &decode_yolo_v1);
}

}  // namespace fastcv

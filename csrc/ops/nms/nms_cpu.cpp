// Non-maximum suppression on the CPU.
//
// Scores are radix-sorted once, and the order is split by class with a second, stable radix sort. Then each class by
// itself: a box is tested against those kept before it, and kept when none suppresses it. Few boxes are tested against
// a plain list of the kept, many against the cells of a grid (nms_grid_cpu.h) that can matter; either way 16 float32 at
// a time with AVX-512. Images or classes are shared out to the threads; which boxes are kept depends on neither.
//
// Napkin maths, 20 000 boxes in 800 x 1333: all pairs are 2e8, of which torchvision tests the half whose first box is
// kept, one by one. Here a box tests about 100 places in 10 runs: 20 000 x (10 runs x 15 ns + 100 ns) = 5 ms, of which
// the arithmetic is a tenth; the sort takes 0.3 ms. Measured: 200 ns per box at 10 000 boxes of constant density, which
// fit the second-level cache, 250 ns at 100 000, 470 ns at a million, where every run is waited for.
#include "core/memory.h"
#include "core/parallel.h"
#include "core/radix_sort_cpu.h"
#include "ops/nms/kept_boxes_cpu.h"
#include "ops/nms/nms_rotated_cpu.h"
#include "ops/nms/nms_suppress_cpu.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int64_t kClassesAtOnce = 4;
constexpr double kWorthThreads = 2e6;  // nanoseconds; for less, waking threads that share a busy machine costs more

template <class T>
struct Image {
  using A = Accumulate<T>;
  const T* boxes;
  int64_t stride, coordinate_stride;
  const uint32_t* order;  // box of each rank
  bool rotated;

  Box<A> at_rank(uint32_t rank) const { return read_box(boxes + order[rank] * stride, coordinate_stride); }
};

// The ranks of one class, ascending.
struct Members {
  const uint32_t* ranks;  // or null: all of them
  int64_t count;

  uint32_t operator[](int64_t i) const { return ranks != nullptr ? ranks[i] : static_cast<uint32_t>(i); }
};

// Upright boxes, for suppress_boxes.
template <class A>
struct UprightBoxes {
  using Grid = NmsGrid<A>;
  using Block = KeptBlock<A>;
  static constexpr int64_t kListBoxes = 640;
  Box<A>* boxes;
  A threshold;
  double grid_threshold;

  A area(int64_t i) const { return box_area(boxes[i]); }
  bool is_active(int64_t i) const { return FASTCV_VARIANT::is_active(boxes[i], area(i)); }
  const Box<A>& outline(int64_t i) const { return boxes[i]; }
  NoSides sides(int64_t) const { return {}; }
  Candidate<A> candidate(int64_t i) const { return {boxes[i], area(i), threshold}; }
  void keep(int64_t i, Block& block, int place) const { block.set(place, boxes[i]); }
};

template <class T>
void suppress_upright(const Image<T>& image, const Members& members, double threshold, uint8_t* keep) {
  using A = Accumulate<T>;
  const Scratch memory(bytes_of<Box<A>>(members.count));
  const UprightBoxes<A> boxes{memory.as<Box<A>>(), round_down<A>(threshold), threshold};
  for (int64_t i = 0; i < members.count; ++i) boxes.boxes[i] = image.at_rank(members[i]);
  suppress_boxes(boxes, members, keep);
}

template <class T>
void suppress(const Image<T>& image, const Members& members, double threshold, uint8_t* keep) {
  if (image.rotated) {
    suppress_rotated(image, members, threshold, keep);
  } else {
    suppress_upright(image, members, threshold, keep);
  }
}

// About how long a class of so many boxes takes.
double nanoseconds_of(int64_t boxes) {
  return static_cast<double>(boxes) *
         (boxes <= UprightBoxes<float>::kListBoxes ? 30 + static_cast<double>(boxes) / 8 : 250);
}

// values[i] = i ordered by key(i), equal keys by index. The values lie in `values` or in `spare`: returns which.
template <class Key, class KeyOf>
uint32_t* sort_by(int64_t count, uint32_t* values, uint32_t* spare, const KeyOf& key_of) {
  const Scratch key_memory(bytes_of<Key>(2, count));
  Key* keys = key_memory.as<Key>();
  Key* spare_keys = keys + count;
  for (int64_t i = 0; i < count; ++i) {
    keys[i] = key_of(i);
    values[i] = static_cast<uint32_t>(i);
  }
  radix_sort(count, keys, values, spare_keys, spare);
  return values;
}

uint32_t* sort_by_score(const NmsParams& p, int64_t image, uint32_t* values, uint32_t* spare) {
  uint32_t* sorted = values;
  dispatch_floating(p.score_dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    const S* scores = static_cast<const S*>(p.scores) + image * p.score_strides[0];
    sorted = sort_by<decltype(descending_key(Accumulate<S>()))>(p.boxes_per_image, values, spare, [&](int64_t i) {
      return descending_key(to_float(scores[i * p.score_strides[1]]));
    });
  });
  return sorted;
}

// The class of a box; classes are only ever compared.
uint64_t class_of(const NmsParams& p, int64_t image, int64_t box) {
  const int64_t offset = image * p.class_strides[0] + box * p.class_strides[1];
  if (p.class_dtype == DType::kInt32) return static_cast<uint32_t>(static_cast<const int32_t*>(p.classes)[offset]);
  return static_cast<uint64_t>(static_cast<const int64_t*>(p.classes)[offset]);
}

template <class T>
void suppress_classes(const NmsParams& p, int64_t index, const Image<T>& image, uint8_t* keep) {
  const int64_t count = p.boxes_per_image;
  const Scratch rank_memory(bytes_of<uint32_t>(2, count)), bound_memory(bytes_of<uint32_t>(count + 1));
  uint32_t* const bounds = bound_memory.as<uint32_t>();
  const uint32_t* const ranks = sort_by<uint64_t>(count, rank_memory.as<uint32_t>(), rank_memory.as<uint32_t>() + count,
                                                  [&](int64_t rank) { return class_of(p, index, image.order[rank]); });
  int64_t classes = 0;
  uint64_t previous = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t here = class_of(p, index, image.order[ranks[i]]);
    if (i == 0 || here != previous) bounds[classes++] = static_cast<uint32_t>(i);
    previous = here;
  }
  bounds[classes] = static_cast<uint32_t>(count);
  double work = 0;
  for (int64_t c = 0; c < classes; ++c) work += nanoseconds_of(bounds[c + 1] - bounds[c]);
  parallel_for(classes, work < kWorthThreads ? classes : kClassesAtOnce, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      suppress(image, Members{ranks + bounds[c], bounds[c + 1] - bounds[c]}, p.threshold, keep);
    }
  });
}

template <class T>
void suppress_image(const NmsParams& p, int64_t index) {
  const int64_t count = p.boxes_per_image;
  const Scratch order_memory(bytes_of<uint32_t>(2, count)), keep_memory(bytes_of<uint8_t>(count));
  uint8_t* const keep = keep_memory.as<uint8_t>();
  const uint32_t* const order =
      sort_by_score(p, index, order_memory.as<uint32_t>(), order_memory.as<uint32_t>() + count);
  const Image<T> image{static_cast<const T*>(p.boxes) + index * p.box_strides[0], p.box_strides[1], p.box_strides[2],
                       order, p.rotated};
  if (p.classes == nullptr) {
    suppress(image, Members{nullptr, count}, p.threshold, keep);
  } else {
    suppress_classes(p, index, image, keep);
  }
  int64_t* const kept = p.kept + index * p.capacity;
  int64_t n = 0;
  for (int64_t rank = 0; rank < count && n < p.capacity; ++rank) {
    if (keep[rank] != 0) kept[n++] = order[rank];
  }
  p.count[index] = n;
  for (; p.fill && n < p.capacity; ++n) kept[n] = -1;
}

}  // namespace

void nms_cpu(const NmsParams& p) {
  dispatch_floating(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    // With images enough for all threads they go to the threads, else the classes of each do.
    const int64_t at_once = p.images >= max_threads() ? 1 : p.images;
    parallel_for(p.images, at_once, [&](int64_t begin, int64_t end) {
      for (int64_t image = begin; image < end; ++image) suppress_image<T>(p, image);
    });
  });
}

}  // namespace fastcv::FASTCV_VARIANT

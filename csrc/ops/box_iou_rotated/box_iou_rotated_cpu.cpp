// Overlaps of rotated boxes on the CPU.
//
// Every box is prepared once. The result is cut into pieces of rows by kTile columns, whose boxes lie as arrays in the
// second-level cache; a piece walks its rows with vectors over the columns. Where the circles around no box of a vector
// reach the row's, zeros are written at once.
//
// Napkin maths, 1000 x 1000 in float32 with 16 lanes: 62 500 vectors of 8 operations for the circles (0.15 ms); where
// boxes are somewhat crowded, half the vectors hold one that is near: 31 000 x (250 operations and 7 divisions, 250
// cycles) = 2.6 ms. With all boxes on top of each other twice that: nothing depends on how they lie.
#include "core/memory.h"
#include "core/parallel.h"
#include "core/simd.h"
#include "ops/box_iou_rotated/box_iou_rotated.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int64_t kTile = 2048;  // a multiple of all vectors
constexpr int64_t kPiecePairs = int64_t{1} << 15;
constexpr int64_t kPrepareAtOnce = 1024;

// Boxes as arrays: cx of all, cy of all ... Up to whole vectors, with boxes that overlap nothing.
template <class S>
struct RotatedArrays {
  S* numbers;
  int64_t stride;

  S* array(int which, int64_t i) const { return numbers + which * stride + i; }
  void set(int64_t i, const RotatedBox<S>& box) const {
    const S values[kRotatedNumbers] = {box.x,      box.y,    box.half_width, box.half_height,
                                       box.cosine, box.sine, box.area,       box.radius};
    for (int k = 0; k < kRotatedNumbers; ++k) *array(k, i) = values[k];
  }
  RotatedBox<Vector<S>> at(int64_t i) const {
    return {load(array(0, i)), load(array(1, i)), load(array(2, i)), load(array(3, i)),
            load(array(4, i)), load(array(5, i)), load(array(6, i)), load(array(7, i))};
  }
};

template <class S>
RotatedBox<Vector<S>> broadcast_box(const RotatedBox<S>& b) {
  return {broadcast(b.x),      broadcast(b.y),    broadcast(b.half_width), broadcast(b.half_height),
          broadcast(b.cosine), broadcast(b.sine), broadcast(b.area),       broadcast(b.radius)};
}

// `count` of them, rounded to float32.
inline void store_narrow(float* target, Vector<float> value, int64_t count) {
  if (count >= kLanes<float>) return store(target, value);
  for (int64_t i = 0; i < count; ++i) target[i] = value[i];
}
inline void store_narrow(float* target, Vector<double> value, int64_t count) {
  typedef float Narrow __attribute__((vector_size(kVectorBytes / 2)));
  const Narrow narrow = __builtin_convertvector(value, Narrow);
  if (count >= kLanes<double>) {
    __builtin_memcpy(target, &narrow, sizeof(narrow));
  } else {
    for (int64_t i = 0; i < count; ++i) target[i] = narrow[i];
  }
}

// The overlaps of one box with columns [begin, end).
template <class S>
void fill_row(const RotatedBox<S>& box, const RotatedArrays<S>& columns, int64_t begin, int64_t end, float* target) {
  const RotatedBox<Vector<S>> row = broadcast_box(box);
  for (int64_t j = begin; j < end; j += kLanes<S>) {
    RotatedBox<Vector<S>> others{};
    others.x = load(columns.array(0, j));
    others.y = load(columns.array(1, j));
    others.radius = load(columns.array(7, j));
    Vector<S> overlap{};
    if (any_above(circles_overlap(row, others), Vector<S>{})) overlap = rotated_iou<S>(row, columns.at(j));
    store_narrow(target + j, overlap, end - j);
  }
}

template <class T>
void overlaps(const BoxIouRotatedParams& p) {
  using S = Accumulate<T>;
  const int64_t padded = round_up(p.columns, kLanes<S>);
  const Scratch row_memory(bytes_of<RotatedBox<S>>(p.rows)), column_memory(bytes_of<S>(kRotatedNumbers, padded));
  RotatedBox<S>* const rows = row_memory.as<RotatedBox<S>>();
  const RotatedArrays<S> columns{column_memory.as<S>(), padded};
  parallel_for(p.rows + p.columns, kPrepareAtOnce, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (i < p.rows) {
        rows[i] = prepare_rotated_box(static_cast<const T*>(p.boxes1) + 5 * i, 1);
      } else {
        columns.set(i - p.rows, prepare_rotated_box(static_cast<const T*>(p.boxes2) + 5 * (i - p.rows), 1));
      }
    }
  });
  RotatedBox<S> nothing{};
  nothing.radius = static_cast<S>(__builtin_nan(""));
  for (int64_t j = p.columns; j < padded; ++j) columns.set(j, nothing);

  advise_huge_pages(p.overlap, static_cast<size_t>(p.rows * p.columns) * sizeof(float));
  const int64_t tiles = ceil_div(p.columns, kTile), widest = least(p.columns, kTile);
  const int64_t piece_rows = greatest(least(kPiecePairs / widest, p.rows), 1);
  const int64_t row_blocks = ceil_div(p.rows, piece_rows);
  parallel_for(tiles * row_blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t first = piece / row_blocks * kTile, row0 = piece % row_blocks * piece_rows;
      const int64_t last = least(first + kTile, p.columns), last_row = least(row0 + piece_rows, p.rows);
      for (int64_t i = row0; i < last_row; ++i) fill_row(rows[i], columns, first, last, p.overlap + i * p.columns);
    }
  });
}

}  // namespace

void box_iou_rotated_cpu(const BoxIouRotatedParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { overlaps<typename decltype(tag)::type>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

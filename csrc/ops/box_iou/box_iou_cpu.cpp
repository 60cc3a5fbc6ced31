// Overlap matrices on the CPU.
//
// The result is cut into pieces of rows by kTile columns. A piece first lays out its columns' boxes as arrays (x1, y1,
// ..., area), 20 to 32 kB that stay in the first-level cache, then walks its rows with vectors over the columns,
// writing each run of 4 kB once.
//
// Napkin maths, 1000 x 1000 in float32 with 16 lanes: 62 500 vectors of 12 operations and one division (10 cycles or
// more of its unit, beside which the others fit): 0.6 M cycles or 0.2 ms, and 4 MB written. So the divider is the floor
// while the result stays in cache, and memory where it does not (50 x 200 000 writes 40 MB, whose pages come fresh: see
// advise_huge_pages).
#include "core/memory.h"
#include "core/parallel.h"
#include "core/simd.h"
#include "ops/box_iou/box_iou.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int64_t kPiecePairs = int64_t{1} << 17;

template <class S>
constexpr int64_t kTile = 4096 / static_cast<int64_t>(sizeof(S));

// Boxes as arrays. Whole vectors can be read; lanes beyond the last box are empty boxes.
template <class S, int64_t kCapacity>
struct BoxArrays {
  alignas(64) S x1[kCapacity];
  alignas(64) S y1[kCapacity];
  alignas(64) S x2[kCapacity];
  alignas(64) S y2[kCapacity];
  alignas(64) S area[kCapacity];
  alignas(64) S center_x[kCapacity];
  alignas(64) S center_y[kCapacity];
  alignas(64) S angle[kCapacity];

  template <OverlapKind kKind>
  void fill(const S* boxes, int64_t count) {
    for (int64_t i = 0; i < count; ++i) set<kKind>(i, prepare_box<kKind>(boxes + 4 * i));
    for (int64_t i = count; i % kLanes<S> != 0; ++i) set<kKind>(i, OverlapBox<S>{});
  }

  template <OverlapKind kKind>
  OverlapBox<Vector<S>> at(int64_t i) const {
    OverlapBox<Vector<S>> result{};
    result.box = {load(x1 + i), load(y1 + i), load(x2 + i), load(y2 + i)};
    result.area = load(area + i);
    if constexpr (kHasCenters<kKind>) {
      result.center_x = load(center_x + i);
      result.center_y = load(center_y + i);
    }
    if constexpr (kKind == OverlapKind::kComplete) result.angle = load(angle + i);
    return result;
  }

 private:
  template <OverlapKind kKind>
  void set(int64_t i, const OverlapBox<S>& value) {
    x1[i] = value.box.x1;
    y1[i] = value.box.y1;
    x2[i] = value.box.x2;
    y2[i] = value.box.y2;
    area[i] = value.area;
    if constexpr (kHasCenters<kKind>) {
      center_x[i] = value.center_x;
      center_y[i] = value.center_y;
    }
    if constexpr (kKind == OverlapKind::kComplete) angle[i] = value.angle;
  }
};

template <class S>
OverlapBox<Vector<S>> broadcast_box(const OverlapBox<S>& b) {
  return {{broadcast(b.box.x1), broadcast(b.box.y1), broadcast(b.box.x2), broadcast(b.box.y2)},
          broadcast(b.area),
          broadcast(b.center_x),
          broadcast(b.center_y),
          broadcast(b.angle)};
}

// Integers were promoted to float64; their overlaps are rounded once.
template <class S, class Out>
inline void store_as(Out* target, Vector<S> value) {
  if constexpr (sizeof(Out) == sizeof(S)) {
    store(target, value);
  } else {
    typedef float Narrow __attribute__((vector_size(kVectorBytes / 2)));
    const Narrow narrow = __builtin_convertvector(value, Narrow);
    __builtin_memcpy(target, &narrow, sizeof(narrow));
  }
}

template <class S>
OverlapEpsilons<S> epsilons(const BoxIouParams& p) {
  return {S(0), static_cast<S>(p.epsilon), static_cast<S>(p.epsilon)};
}

template <class S, class Out, OverlapKind kKind>
void forward(const BoxIouParams& p) {
  constexpr int64_t kWidth = kTile<S>;
  const OverlapEpsilons<S> epsilon = epsilons<S>(p);
  Out* overlap = static_cast<Out*>(p.overlap);
  advise_huge_pages(overlap, static_cast<size_t>(p.batch * p.rows * p.columns) * sizeof(Out));
  const int64_t tiles = ceil_div(p.columns, kWidth);
  const int64_t widest = least(p.columns, kWidth);
  const int64_t rows = least(kPiecePairs / widest, p.rows);
  const int64_t row_blocks = ceil_div(p.rows, rows);
  parallel_for(p.batch * tiles * row_blocks, kPiecePairs / (rows * widest), [&](int64_t begin, int64_t end) {
    BoxArrays<S, kWidth> columns;
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t n = piece / (tiles * row_blocks);
      const int64_t column0 = piece / row_blocks % tiles * kWidth, row0 = piece % row_blocks * rows;
      const int64_t count = least(p.columns - column0, kWidth);
      const int64_t last_row = least(row0 + rows, p.rows);
      columns.template fill<kKind>(static_cast<const S*>(p.boxes2) + (n * p.columns + column0) * 4, count);
      const int64_t whole = count / kLanes<S> * kLanes<S>;
      for (int64_t i = row0; i < last_row; ++i) {
        const S* box = static_cast<const S*>(p.boxes1) + (n * p.rows + i) * 4;
        const OverlapBox<Vector<S>> row = broadcast_box(prepare_box<kKind>(box));
        const auto overlap_at = [&](int64_t j) {
          return overlap_value<kKind, true>(row, columns.template at<kKind>(j), epsilon);
        };
        Out* target = overlap + (n * p.rows + i) * p.columns + column0;
        for (int64_t j = 0; j < whole; j += kLanes<S>) store_as<S>(target + j, overlap_at(j));
        if (whole < count) {
          const Vector<S> value = overlap_at(whole);
          for (int64_t j = whole; j < count; ++j) target[j] = static_cast<Out>(value[j - whole]);
        }
      }
    }
  });
}

// ---- backward ----

template <class S>
struct GradientArrays {
  alignas(64) S values[6][kColumnChunk];

  void clear(int64_t count) {
    for (auto& array : values) __builtin_memset(array, 0, static_cast<size_t>(count) * sizeof(S));
  }
  void add(int64_t i, int which, Vector<S> value) { store(values[which] + i, load(values[which] + i) + value); }
};

template <class S>
inline S sum_of_lanes(Vector<S> value) {
  S sum = 0;
  for (int i = 0; i < kLanes<S>; ++i) sum += value[i];
  return sum;
}

template <class S>
inline OverlapGradient<S> sum_of_lanes(const OverlapGradient<Vector<S>>& g) {
  return {sum_of_lanes<S>(g.x1), sum_of_lanes<S>(g.y1),   sum_of_lanes<S>(g.x2),
          sum_of_lanes<S>(g.y2), sum_of_lanes<S>(g.area), sum_of_lanes<S>(g.angle)};
}

// Up to a vector of gradients from memory of any stride; zero beyond `count`.
template <class S>
inline Vector<S> load_strided(const S* source, int64_t stride, int64_t count) {
  if (stride == 1 && count >= kLanes<S>) return load(source);
  Vector<S> result{};
  for (int i = 0; i < kLanes<S> && i < count; ++i) result[i] = source[i * stride];
  return result;
}

// Lanes beyond `count` have no box: what they give is not to be counted, NaN least of all.
template <class S>
inline void drop_lanes(OverlapGradient<Vector<S>>& g, int64_t count) {
  for (int i = static_cast<int>(count); i < kLanes<S>; ++i) {
    g.x1[i] = g.y1[i] = g.x2[i] = g.y2[i] = g.area[i] = g.angle[i] = S(0);
  }
}

// The gradients of kRowChunk x kColumnChunk pairs, summed along both axes into their pieces of the workspace.
template <class S, OverlapKind kKind>
void add_piece(const BoxIouParams& p, int64_t n, int64_t row0, int64_t column0, S* row_pieces, S* column_pieces) {
  const OverlapEpsilons<S> epsilon = epsilons<S>(p);
  const int64_t count = least(p.columns - column0, kColumnChunk);
  const int64_t rows = least(p.rows - row0, kRowChunk);
  const S* boxes1 = static_cast<const S*>(p.boxes1) + (n * p.rows + row0) * 4;
  const S* boxes2 = static_cast<const S*>(p.boxes2) + (n * p.columns + column0) * 4;
  const S* grad =
      static_cast<const S*>(p.overlap) + n * p.grad_strides[0] + row0 * p.grad_strides[1] + column0 * p.grad_strides[2];
  BoxArrays<S, kColumnChunk> columns;
  columns.template fill<kKind>(boxes2, count);
  GradientArrays<S> sums;
  sums.clear(round_up(count, kLanes<S>));
  for (int64_t i = 0; i < rows; ++i) {
    const OverlapBox<S> row = prepare_box<kKind>(boxes1 + 4 * i);
    const OverlapBox<Vector<S>> row_vector = broadcast_box(row);
    OverlapGradient<Vector<S>> row_sum{};
    for (int64_t j = 0; j < count; j += kLanes<S>) {
      OverlapGradient<Vector<S>> at_row, at_column;
      const Vector<S> arrived =
          load_strided(grad + i * p.grad_strides[1] + j * p.grad_strides[2], p.grad_strides[2], count - j);
      overlap_gradient<kKind, true>(row_vector, columns.template at<kKind>(j), epsilon, arrived, at_row, at_column);
      sums.add(j, 0, at_column.x1);
      sums.add(j, 1, at_column.y1);
      sums.add(j, 2, at_column.x2);
      sums.add(j, 3, at_column.y2);
      sums.add(j, 4, at_column.area);
      if constexpr (kKind == OverlapKind::kComplete) sums.add(j, 5, at_column.angle);
      if (count - j < kLanes<S>) drop_lanes<S>(at_row, count - j);
      add_gradient(row_sum, at_row);
    }
    corner_gradient<kKind>(row.box, sum_of_lanes<S>(row_sum), row_pieces + 4 * i);
  }
  for (int64_t j = 0; j < count; ++j) {
    const OverlapGradient<S> sum{sums.values[0][j], sums.values[1][j], sums.values[2][j],
                                 sums.values[3][j], sums.values[4][j], sums.values[5][j]};
    corner_gradient<kKind>(prepare_box<OverlapKind::kIou>(boxes2 + 4 * j).box, sum, column_pieces + 4 * j);
  }
}

// (B, pieces, count) -> (B, count), in the order of the pieces.
template <class S>
void sum_pieces(const S* pieces, int64_t batch, int64_t number, int64_t count, S* result) {
  if (result == nullptr) return;
  parallel_for(batch * count, 16384, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const S* source = pieces + i / count * number * count + i % count;
      S sum = 0;
      for (int64_t k = 0; k < number; ++k) sum += source[k * count];
      result[i] = sum;
    }
  });
}

template <class S, OverlapKind kKind>
void backward(const BoxIouParams& p) {
  const int64_t row_chunks = ceil_div(p.rows, kRowChunk);
  const int64_t column_chunks = ceil_div(p.columns, kColumnChunk);
  S* row_pieces = static_cast<S*>(p.workspace);
  S* column_pieces = row_pieces + p.batch * column_chunks * p.rows * 4;
  const int64_t chunks = row_chunks * column_chunks;
  parallel_for(p.batch * chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t n = piece / chunks, row_chunk = piece / column_chunks % row_chunks;
      const int64_t column_chunk = piece % column_chunks;
      const int64_t row0 = row_chunk * kRowChunk, column0 = column_chunk * kColumnChunk;
      add_piece<S, kKind>(p, n, row0, column0, row_pieces + ((n * column_chunks + column_chunk) * p.rows + row0) * 4,
                          column_pieces + ((n * row_chunks + row_chunk) * p.columns + column0) * 4);
    }
  });
  sum_pieces(row_pieces, p.batch, column_chunks, p.rows * 4, static_cast<S*>(p.grad_boxes1));
  sum_pieces(column_pieces, p.batch, row_chunks, p.columns * 4, static_cast<S*>(p.grad_boxes2));
}

}  // namespace

void box_iou_forward_cpu(const BoxIouParams& params) {
  dispatch_overlap(params.kind, [&](auto tag) {
    constexpr OverlapKind kKind = decltype(tag)::value;
    if (params.dtype == DType::kFloat32) {
      forward<float, float, kKind>(params);
    } else if (params.narrow) {
      forward<double, float, kKind>(params);
    } else {
      forward<double, double, kKind>(params);
    }
  });
}

void box_iou_backward_cpu(const BoxIouParams& params) {
  dispatch_overlap(params.kind, [&](auto tag) {
    constexpr OverlapKind kKind = decltype(tag)::value;
    if (params.dtype == DType::kFloat32) {
      backward<float, kKind>(params);
    } else {
      backward<double, kKind>(params);
    }
  });
}

}  // namespace fastcv::FASTCV_VARIANT

// Matching on the CPU.
//
// Candidates are taken kTile at a time, coordinates deinterleaved into vectors, and compared with one gt after another.
// A detector's candidates are sorted by place, so a tile has tight bounds: a gt outside of them has overlap exactly
// zero with all of it, which changes neither a maximum that starts at zero nor its index, and is skipped. That holds
// for regular boxes, with an area that is positive and finite; no NaN can come of two of those either. Everything else
// takes the general path. Overlaps are never negative, so all maxima start at zero.
//
// For the low-quality rule a block of candidates also keeps its greatest overlap with each gt. Only where that equals
// the greatest of all blocks are the block's overlaps computed once more, to find the candidates that have it. A block
// has at least as many candidates as there are gts, so these maxima take O(M + N) memory.
//
// Napkin maths, 50 gts x 268 000 candidates, float32: 4.3 MB are read and 2.1 MB written (0.6 ms at 10 GB/s); 4200
// tiles x 50 bounds tests are 0.2 M comparisons of 16 lanes; of the pairs about one in twenty survives: 10 000 x 4
// vectors x 25 cycles (the division is half of them), 0.4 ms. Without skipping the pairs would take 7 ms.
#include "core/interleave_cpu.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "ops/match_boxes/match_boxes.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kTile = 64;
constexpr int64_t kBlock = 2048;

template <class A>
constexpr int kVectors = kTile / kLanes<A>;

template <class A>
bool is_regular(A area) {
  return area > A(0) && area - area == A(0);
}

// ---- lanes ----

template <int kStep, class V, int... kLane>
inline V swap_lanes(V v, Lanes<kLane...>) {
  return __builtin_shufflevector(v, v, (kLane ^ kStep)...);
}

// The greatest lane of a vector without NaN.
template <class A, int kStep = kLanes<A> / 2>
inline A greatest_lane(Vector<A> v) {
  if constexpr (kStep == 0) {
    return v[0];
  } else {
    return greatest_lane<A, kStep / 2>(greatest(v, swap_lanes<kStep>(v, typename MakeLanes<kLanes<A>>::type{})));
  }
}

template <class A>
bool any_lane(IntegerVector<A> mask) {
  bool any = false;
  for (int i = 0; i < kLanes<A>; ++i) any |= mask[i] != 0;
  return any;
}

// ---- ground truth ----

// Coordinates and areas as separate arrays, padded to whole vectors with boxes that touch nothing.
template <class A>
struct GroundTruth {
  int64_t count, padded;
  A *x1, *y1, *x2, *y2, *area;

  static size_t bytes(int64_t count) { return bytes_of<A>(5, count + kLanes<A>); }

  template <class T>
  GroundTruth(const T* boxes, int64_t count, A* memory) : count(count), padded(round_up(count, kLanes<A>)) {
    x1 = memory, y1 = x1 + padded, x2 = y1 + padded, y2 = x2 + padded, area = y2 + padded;
    for (int64_t j = 0; j < padded; ++j) {
      const bool inside = j < count;
      x1[j] = inside ? to_float(boxes[4 * j]) : A(1);
      y1[j] = inside ? to_float(boxes[4 * j + 1]) : A(1);
      x2[j] = inside ? to_float(boxes[4 * j + 2]) : A(1);
      y2[j] = inside ? to_float(boxes[4 * j + 3]) : A(1);
      area[j] = inside ? box_area(Box<A>{x1[j], y1[j], x2[j], y2[j]}) : A(1);
    }
  }

  Box<Vector<A>> box(int64_t j) const {
    return {broadcast(x1[j]), broadcast(y1[j]), broadcast(x2[j]), broadcast(y2[j])};
  }
};

// ---- tiles of candidates ----

template <class A>
struct Tile {
  Box<Vector<A>> box[kVectors<A>];
  Vector<A> area[kVectors<A>];

  // Reads min(available, kTile) boxes; the last one stands in for the missing.
  template <class T>
  void load_from(const T* boxes, int64_t available) {
    T padded[4 * kTile];
    if (available < kTile) {
      for (int i = 0; i < 4 * kTile; ++i) {
        const int64_t row = i / 4 < available ? i / 4 : available - 1;
        padded[i] = boxes[4 * row + i % 4];
      }
      boxes = padded;
    }
    for (int v = 0; v < kVectors<A>; ++v) {
      load_quadruples<A>(boxes + 4 * v * kLanes<A>, &box[v].x1, &box[v].y1, &box[v].x2, &box[v].y2);
      area[v] = box_area(box[v]);
    }
  }

  // Whether all boxes are regular, and then the box around them.
  bool bounds(Box<A>* around) const {
    Vector<A> left = -box[0].x1, top = -box[0].y1, right = box[0].x2, bottom = box[0].y2;
    IntegerVector<A> regular = ~IntegerVector<A>{};
    for (int v = 0; v < kVectors<A>; ++v) {
      regular &= (area[v] > Vector<A>{}) & (area[v] - area[v] == Vector<A>{});
      left = greatest(left, -box[v].x1);
      top = greatest(top, -box[v].y1);
      right = greatest(right, box[v].x2);
      bottom = greatest(bottom, box[v].y2);
    }
    if (any_lane<A>(~regular)) return false;
    *around = {-greatest_lane<A>(left), -greatest_lane<A>(top), greatest_lane<A>(right), greatest_lane<A>(bottom)};
    return true;
  }
};

// The running maximum of each candidate of a tile, and the gt that has it.
template <class A>
struct TileBest {
  Vector<A> value[kVectors<A>];
  IntegerVector<A> index[kVectors<A>];
};

// Compares a tile with gt j; returns its greatest overlap with it, NaN when there is one.
template <bool kRegular, bool kWantGreatest, class A>
inline A compare(const Tile<A>& tile, const GroundTruth<A>& gt, int64_t j, TileBest<A>* best) {
  const Box<Vector<A>> box = gt.box(j);
  const Vector<A> area = broadcast(gt.area[j]);
  const IntegerVector<A> index = static_cast<Integer<A>>(j) - IntegerVector<A>{};
  Vector<A> most{};
  IntegerVector<A> unordered{};
  for (int v = 0; v < kVectors<A>; ++v) {
    const Vector<A> iou = box_iou(box, area, tile.box[v], tile.area[v]);
    IntegerVector<A> take = iou > best->value[v];
    if constexpr (!kRegular) {
      take |= (iou != iou) & (best->value[v] == best->value[v]);
      unordered |= iou != iou;
    }
    best->value[v] = take ? iou : best->value[v];
    best->index[v] = take ? index : best->index[v];
    if constexpr (kWantGreatest) most = greatest(iou, most);
  }
  if constexpr (!kWantGreatest) return A(0);
  if constexpr (!kRegular) {
    if (any_lane<A>(unordered)) return static_cast<A>(__builtin_nanf(""));
  }
  return greatest_lane<A>(most);
}

// a when it is greater or NaN; a NaN in b stays.
template <class A>
A greater_or_nan(A a, A b) {
  return a > b || a != a ? a : b;
}

// The gts that may overlap something inside `around`, and those that are not regular, in order.
template <class A>
int64_t list_near(const GroundTruth<A>& gt, const Box<A>& around, int32_t* list) {
  const Box<Vector<A>> b{broadcast(around.x1), broadcast(around.y1), broadcast(around.x2), broadcast(around.y2)};
  int64_t listed = 0;
  for (int64_t j0 = 0; j0 < gt.padded; j0 += kLanes<A>) {
    const Vector<A> area = load(gt.area + j0);
    const IntegerVector<A> regular = (area > Vector<A>{}) & (area - area == Vector<A>{});
    const IntegerVector<A> near =
        (load(gt.x2 + j0) > b.x1) & (load(gt.x1 + j0) < b.x2) & (load(gt.y2 + j0) > b.y1) & (load(gt.y1 + j0) < b.y2);
    const IntegerVector<A> chosen = near | ~regular;
    const int64_t end = least(gt.count - j0, kLanes<A>);
    for (int64_t i = 0; i < end; ++i) {
      list[listed] = static_cast<int32_t>(j0 + i);
      listed += chosen[i] != 0;
    }
  }
  return listed;
}

// First pass over the candidates [begin, end). `gt_best`, where wanted, gets the block's greatest overlap per gt.
template <bool kLowQuality, class T, class A>
void match_block(const MatchBoxesParams& p, const GroundTruth<A>& gt, int64_t begin, int64_t end, A* gt_best) {
  const T* candidates = static_cast<const T*>(p.candidates);
  const A high = static_cast<A>(p.high_threshold), low = static_cast<A>(p.low_threshold);
  const Scratch list_memory(bytes_of<int32_t>(gt.padded + 1));
  int32_t* list = list_memory.as<int32_t>();
  if (kLowQuality) {
    for (int64_t j = 0; j < gt.count; ++j) gt_best[j] = A(0);
  }
  for (int64_t i0 = begin; i0 < end; i0 += kTile) {
    Tile<A> tile;
    tile.load_from(candidates + 4 * i0, end - i0);
    TileBest<A> best{};
    Box<A> around;
    if (tile.bounds(&around)) {
      const int64_t listed = list_near(gt, around, list);
      for (int64_t l = 0; l < listed; ++l) {
        const int64_t j = list[l];
        const A greatest = is_regular(gt.area[j]) ? compare<true, kLowQuality>(tile, gt, j, &best)
                                                  : compare<false, kLowQuality>(tile, gt, j, &best);
        if (kLowQuality) gt_best[j] = greater_or_nan(greatest, gt_best[j]);
      }
    } else {
      for (int64_t j = 0; j < gt.count; ++j) {
        const A greatest = compare<false, kLowQuality>(tile, gt, j, &best);
        if (kLowQuality) gt_best[j] = greater_or_nan(greatest, gt_best[j]);
      }
    }
    const int64_t count = least(end - i0, kTile);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t argmax = best.index[i / kLanes<A>][i % kLanes<A>];
      const int64_t verdict = match_verdict(best.value[i / kLanes<A>][i % kLanes<A>], high, low);
      p.matches[i0 + i] = kLowQuality ? encode_match(argmax, verdict) : verdict == 0 ? argmax : verdict;
    }
  }
}

// Second pass: gives the candidates of the block that overlap gt j by `wanted` their argmax back.
template <class T, class A>
void restore_best(const MatchBoxesParams& p, const GroundTruth<A>& gt, int64_t j, A wanted, int64_t begin,
                  int64_t end) {
  const Box<Vector<A>> box = gt.box(j);
  const Vector<A> area = broadcast(gt.area[j]);
  for (int64_t i0 = begin; i0 < end; i0 += kTile) {
    Tile<A> tile;
    tile.load_from(static_cast<const T*>(p.candidates) + 4 * i0, end - i0);
    for (int v = 0; v < kVectors<A>; ++v) {
      const IntegerVector<A> equal = box_iou(box, area, tile.box[v], tile.area[v]) == broadcast(wanted);
      if (!any_lane<A>(equal)) continue;
      for (int lane = 0; lane < kLanes<A>; ++lane) {
        const int64_t i = i0 + v * kLanes<A> + lane;
        if (equal[lane] && i < end) p.matches[i] = argmax_of(p.matches[i]);
      }
    }
  }
}

template <class T>
void match(const MatchBoxesParams& p) {
  using A = Accumulate<T>;
  if (p.gts == 0) {
    for (int64_t i = 0; i < p.count; ++i) p.matches[i] = kMatchBelow;
    return;
  }
  const Scratch gt_memory(GroundTruth<A>::bytes(p.gts));
  const GroundTruth<A> gt(static_cast<const T*>(p.gt), p.gts, gt_memory.as<A>());
  if (!p.allow_low_quality) {
    parallel_for(p.count, kBlock,
                 [&](int64_t begin, int64_t end) { match_block<false, T, A>(p, gt, begin, end, nullptr); });
    return;
  }
  const int64_t block = p.gts > kBlock ? round_up(p.gts, kTile) : kBlock;
  const int64_t blocks = ceil_div(p.count, block);
  const Scratch best_memory(bytes_of<A>(blocks + 1, p.gts));
  A* block_best = best_memory.as<A>();
  parallel_for(p.count, block, [&](int64_t begin, int64_t end) {
    match_block<true, T, A>(p, gt, begin, end, block_best + begin / block * p.gts);
  });
  A* gt_best = block_best + blocks * p.gts;
  for (int64_t j = 0; j < p.gts; ++j) {
    gt_best[j] = A(0);
    for (int64_t b = 0; b < blocks; ++b) gt_best[j] = greater_or_nan(block_best[b * p.gts + j], gt_best[j]);
  }
  parallel_for(p.count, block, [&](int64_t begin, int64_t end) {
    const A* own_best = block_best + begin / block * p.gts;
    for (int64_t j = 0; j < p.gts; ++j) {
      if (own_best[j] == gt_best[j]) restore_best<T, A>(p, gt, j, gt_best[j], begin, end);
    }
    for (int64_t i = begin; i < end; ++i) p.matches[i] = decode_match(p.matches[i]);
  });
}

}  // namespace

void match_boxes_cpu(const MatchBoxesParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { match<typename decltype(tag)::type>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

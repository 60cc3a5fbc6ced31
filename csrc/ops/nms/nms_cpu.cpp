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
#include "ops/nms/nms_grid_cpu.h"
#include "ops/nms/nms_rotated_cpu.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int64_t kListBoxes = 640;  // up to here the plain list is quicker than the grid
constexpr int64_t kClassesAtOnce = 4;
constexpr int64_t kBoxesAhead = 8;  // so many boxes have their cells and blocks fetched before the first is tested
constexpr int kRunsAhead = 256;
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

template <class T>
void suppress_with_list(const Image<T>& image, const Members& members, double threshold, uint8_t* keep) {
  using A = Accumulate<T>;
  using Block = KeptBlock<A>;
  const Scratch memory(bytes_of<Block>(members.count / Block::kSize + 1));
  Block* const blocks = memory.as<Block>();
  const A limit = round_down<A>(threshold);
  int64_t places = 0;
  for (int64_t i = 0; i < members.count; ++i) {
    const uint32_t rank = members[i];
    const Box<A> box = image.at_rank(rank);
    const A area = box_area(box);
    keep[rank] = 1;
    if (!is_active(box, area)) continue;
    const int64_t used = ceil_div(places, Block::kSize);
    if (Candidate<A>(box, area, limit).is_suppressed(blocks, blocks + used)) {
      keep[rank] = 0;
      continue;
    }
    if (places % Block::kSize == 0) __builtin_memset(blocks + used, 0, sizeof(Block));
    blocks[places / Block::kSize].set(static_cast<int>(places % Block::kSize), box);
    ++places;
  }
}

// The boxes kept so far, in the cells of a grid.
template <class A>
struct KeptCells {
  using Block = KeptBlock<A>;
  const NmsGrid<A>& grid;
  Cell* cells;
  Block* blocks;

  void add(const Box<A>& box) const {
    const uint32_t place = cells[grid.cell_of(box)].next++;
    blocks[place / Block::kSize].set(static_cast<int>(place % Block::kSize), box);
  }

  // Whether a kept box of these cells suppresses the candidate.
  bool suppress(const Candidate<A>& candidate, int64_t first, int64_t last) const {
    const uint32_t begin = cells[first].start, end = cells[last].next;
    return candidate.is_suppressed(blocks + begin / Block::kSize, blocks + ceil_div(end, Block::kSize));
  }
};

// The runs of cells that matter to the next few boxes: their memory is fetched before the first box is tested.
template <class A>
struct RunsAhead {
  struct Run {
    uint32_t first, last;  // cells
  };
  Run runs[kRunsAhead];
  int before[kBoxesAhead + 1];  // those of boxes before this one
  bool all;                     // false where there are too many to note

  void fetch(const KeptCells<A>& kept, const Box<A>* boxes, int64_t count) {
    int used = 0;
    before[0] = 0;
    for (int64_t b = 0; b < count; ++b) {
      if (is_active(boxes[b], box_area(boxes[b]))) {
        kept.grid.any_run(boxes[b], [&](int64_t first, int64_t last) {
          if (used == kRunsAhead) return true;
          runs[used++] = {static_cast<uint32_t>(first), static_cast<uint32_t>(last)};
          __builtin_prefetch(kept.cells + first);
          __builtin_prefetch(kept.cells + last);
          return false;
        });
      }
      before[b + 1] = used;
    }
    all = used < kRunsAhead;
    constexpr uint32_t kSize = KeptBlock<A>::kSize;
    for (int r = 0; r < used; ++r) {
      const uint32_t begin = kept.cells[runs[r].first].start, end = kept.cells[runs[r].last].next;
      for (uint32_t block = begin / kSize; block * kSize < end; ++block) kept.blocks[block].prefetch();
    }
  }
};

template <class T>
void suppress_with_grid(const Image<T>& image, const Members& members, double threshold, uint8_t* keep) {
  using A = Accumulate<T>;
  using Block = KeptBlock<A>;
  const int64_t count = members.count;
  const Scratch box_memory(bytes_of<Box<A>>(count));
  Box<A>* const boxes = box_memory.as<Box<A>>();
  NmsGrid<A> grid;
  int64_t active = 0;
  for (int64_t i = 0; i < count; ++i) {
    boxes[i] = image.at_rank(members[i]);
    const A area = box_area(boxes[i]);
    if (!is_active(boxes[i], area)) continue;
    grid.measure(boxes[i], area);
    ++active;
  }
  const int64_t cells = grid.lay_out(threshold), blocks = active / Block::kSize + 1;
  const Scratch cell_memory(bytes_of<Cell>(cells)), block_memory(bytes_of<Block>(blocks));
  const KeptCells<A> kept{grid, cell_memory.as<Cell>(), block_memory.as<Block>()};
  open_cells(grid, boxes, count, kept.cells, cells, [&](int64_t i) { return is_active(boxes[i], box_area(boxes[i])); });
  __builtin_memset(kept.blocks, 0, blocks * sizeof(Block));

  const A limit = round_down<A>(threshold);
  RunsAhead<A> ahead;
  for (int64_t batch = 0; batch < count; batch += kBoxesAhead) {
    const int64_t boxes_here = least(count - batch, kBoxesAhead);
    ahead.fetch(kept, boxes + batch, boxes_here);
    for (int64_t b = 0; b < boxes_here; ++b) {
      const Box<A>& box = boxes[batch + b];
      const uint32_t rank = members[batch + b];
      const A area = box_area(box);
      keep[rank] = 1;
      if (!is_active(box, area)) continue;
      const Candidate<A> candidate(box, area, limit);
      bool suppressed = false;
      if (ahead.all) {
        for (int r = ahead.before[b]; r < ahead.before[b + 1] && !suppressed; ++r) {
          suppressed = kept.suppress(candidate, ahead.runs[r].first, ahead.runs[r].last);
        }
      } else {
        suppressed =
            grid.any_run(box, [&](int64_t first, int64_t last) { return kept.suppress(candidate, first, last); });
      }
      if (suppressed) {
        keep[rank] = 0;
      } else {
        kept.add(box);
      }
    }
  }
}

template <class T>
void suppress(const Image<T>& image, const Members& members, double threshold, uint8_t* keep) {
  if (image.rotated) {
    suppress_rotated(image, members, threshold, keep);
  } else if (members.count <= kListBoxes) {
    suppress_with_list(image, members, threshold, keep);
  } else {
    suppress_with_grid(image, members, threshold, keep);
  }
}

// About how long a class of so many boxes takes.
double nanoseconds_of(int64_t boxes) {
  return static_cast<double>(boxes) * (boxes <= kListBoxes ? 30 + static_cast<double>(boxes) / 8 : 250);
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

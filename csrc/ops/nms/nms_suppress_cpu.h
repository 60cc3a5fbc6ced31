// Greedy suppression of the boxes of one class, upright or rotated. CPU translation units only.
//
// A box is tested against those kept before it, and kept when none suppresses it: few against a plain list of the kept,
// many against the cells of a grid that can matter. What differs between the kinds of boxes is a type, here Boxes:
//
//   Grid, Block            NmsGrid<...> and a block of kept boxes, whose places that hold no box suppress nothing
//   kListBoxes             up to so many boxes the plain list is quicker than the grid
//   is_active(i)           whether box i can suppress or be suppressed
//   outline(i), area(i)    its upright outline, in the number type of the grid, and its area
//   sides(i)               RotatedSides or NoSides
//   candidate(i)           what can be asked, for any runs of blocks, is_suppressed(first, last), and then, if that was
//                          false for all, is_suppressed_at_last()
//   keep(i, block, place)  writes it to a place of a block
//   grid_threshold         that of the grid
#pragma once

#include "core/memory.h"
#include "ops/nms/nms_grid_cpu.h"

namespace fastcv::FASTCV_VARIANT {

constexpr int64_t kBoxesAhead = 8;  // so many boxes have their cells and blocks fetched before the first is tested
constexpr int kRunsAhead = 256;

// Every cell owns as many places as boxes have their centre in it, from `start` on; those kept fill them from the
// front, and `next` is the first free one.
struct Cell {
  uint32_t start, next;
};

// The boxes kept so far, in the cells of a grid.
template <class Boxes>
struct KeptCells {
  using Block = typename Boxes::Block;
  const Boxes& all;
  const typename Boxes::Grid& grid;
  Cell* cells;
  Block* blocks;

  Cell& cell_of(int64_t i) const { return cells[grid.cell_of(all.outline(i), all.area(i))]; }

  // Gives every cell its places, all of them free.
  void open(int64_t count, int64_t cell_count) const {
    __builtin_memset(cells, 0, cell_count * sizeof(Cell));
    for (int64_t i = 0; i < count; ++i) {
      if (all.is_active(i)) ++cell_of(i).next;
    }
    uint32_t places = 0;
    for (int64_t cell = 0; cell < cell_count; ++cell) {
      const uint32_t here = cells[cell].next;
      cells[cell] = {places, places};
      places += here;
    }
  }

  void add(int64_t i) const {
    const uint32_t place = cell_of(i).next++;
    all.keep(i, blocks[place / Block::kSize], static_cast<int>(place % Block::kSize));
  }

  // Whether a kept box of these cells suppresses the candidate.
  template <class Candidate>
  bool suppress(Candidate& candidate, int64_t first, int64_t last) const {
    const uint32_t begin = cells[first].start, end = cells[last].next;
    return candidate.is_suppressed(blocks + begin / Block::kSize, blocks + ceil_div(end, Block::kSize));
  }
};

// The runs of cells that matter to the next few boxes: their memory is fetched before the first box is tested.
struct RunsAhead {
  struct Run {
    uint32_t first, last;  // cells
  };
  Run runs[kRunsAhead];
  int before[kBoxesAhead + 1];  // those of boxes before this one
  bool all;                     // false where there are too many to note

  template <class Boxes>
  void fetch(const KeptCells<Boxes>& kept, int64_t begin, int64_t end) {
    int used = 0;
    before[0] = 0;
    for (int64_t i = begin; i < end; ++i) {
      if (kept.all.is_active(i)) {
        kept.grid.any_run(kept.all.outline(i), kept.all.area(i), kept.all.sides(i), [&](int64_t first, int64_t last) {
          if (used == kRunsAhead) return true;
          runs[used++] = {static_cast<uint32_t>(first), static_cast<uint32_t>(last)};
          __builtin_prefetch(kept.cells + first);
          __builtin_prefetch(kept.cells + last);
          return false;
        });
      }
      before[i - begin + 1] = used;
    }
    all = used < kRunsAhead;
    constexpr uint32_t kSize = Boxes::Block::kSize;
    for (int r = 0; r < used; ++r) {
      const uint32_t first = kept.cells[runs[r].first].start, last = kept.cells[runs[r].last].next;
      for (uint32_t block = first / kSize; block * kSize < last; ++block) kept.blocks[block].prefetch();
    }
  }
};

template <class Boxes, class Members>
void suppress_with_list(const Boxes& boxes, const Members& members, uint8_t* keep) {
  using Block = typename Boxes::Block;
  const Scratch memory(bytes_of<Block>(members.count / Block::kSize + 1));
  Block* const blocks = memory.as<Block>();
  int64_t places = 0;
  for (int64_t i = 0; i < members.count; ++i) {
    const uint32_t rank = members[i];
    keep[rank] = 1;
    if (!boxes.is_active(i)) continue;
    const int64_t used = ceil_div(places, Block::kSize);
    auto candidate = boxes.candidate(i);
    if (candidate.is_suppressed(blocks, blocks + used) || candidate.is_suppressed_at_last()) {
      keep[rank] = 0;
      continue;
    }
    if (places % Block::kSize == 0) blocks[used].clear();
    boxes.keep(i, blocks[places / Block::kSize], static_cast<int>(places % Block::kSize));
    ++places;
  }
}

template <class Boxes, class Members>
void suppress_with_grid(const Boxes& boxes, const Members& members, uint8_t* keep) {
  using Block = typename Boxes::Block;
  const int64_t count = members.count;
  typename Boxes::Grid grid;
  int64_t active = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (!boxes.is_active(i)) continue;
    grid.measure(boxes.outline(i), boxes.area(i));
    ++active;
  }
  const int64_t cells = grid.lay_out(boxes.grid_threshold), blocks = active / Block::kSize + 1;
  const Scratch cell_memory(bytes_of<Cell>(cells)), block_memory(bytes_of<Block>(blocks));
  const KeptCells<Boxes> kept{boxes, grid, cell_memory.as<Cell>(), block_memory.as<Block>()};
  kept.open(count, cells);
  for (int64_t block = 0; block < blocks; ++block) kept.blocks[block].clear();

  RunsAhead ahead;
  for (int64_t batch = 0; batch < count; batch += kBoxesAhead) {
    const int64_t end = least(batch + kBoxesAhead, count);
    ahead.fetch(kept, batch, end);
    for (int64_t i = batch; i < end; ++i) {
      const uint32_t rank = members[i];
      keep[rank] = 1;
      if (!boxes.is_active(i)) continue;
      auto candidate = boxes.candidate(i);
      bool suppressed = false;
      if (ahead.all) {
        for (int r = ahead.before[i - batch]; r < ahead.before[i - batch + 1] && !suppressed; ++r) {
          suppressed = kept.suppress(candidate, ahead.runs[r].first, ahead.runs[r].last);
        }
      } else {
        suppressed = grid.any_run(boxes.outline(i), boxes.area(i), boxes.sides(i),
                                  [&](int64_t first, int64_t last) { return kept.suppress(candidate, first, last); });
      }
      if (suppressed || candidate.is_suppressed_at_last()) {
        keep[rank] = 0;
      } else {
        kept.add(i);
      }
    }
  }
}

template <class Boxes, class Members>
void suppress_boxes(const Boxes& boxes, const Members& members, uint8_t* keep) {
  if (members.count <= Boxes::kListBoxes) {
    suppress_with_list(boxes, members, keep);
  } else {
    suppress_with_grid(boxes, members, keep);
  }
}

}  // namespace fastcv::FASTCV_VARIANT

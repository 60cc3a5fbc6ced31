// Suppression of rotated boxes on the CPU. CPU translation units only.
//
// As for upright boxes, few are tested against a plain list of the kept and many against the cells of a grid that can
// matter. The grid gets the squares around the boxes' circles, in double precision. Any two squares that meet may
// matter, because a box can cover any part of its square. Vectors whose circles are apart, or whose areas are too unlike,
// cost a few operations.
//
// Napkin maths, 10 000 boxes of 4 to 104 pixels in 1333 x 800, 3000 kept: a box meets the squares of 50 kept ones, in 20
// runs of 1 to 3 vectors, 10 of which need the overlaps: 10 000 x 10 x 80 ns = 8 ms.
#pragma once

#include "core/memory.h"
#include "core/simd.h"
#include "ops/nms/nms_grid_cpu.h"

namespace fastcv::FASTCV_VARIANT {

constexpr int64_t kRotatedListBoxes = 256;  // up to here the plain list is quicker than the grid

// 64 bytes of each number of boxes kept. Free places are NaN: boxes that overlap nothing.
template <class A>
struct RotatedBlock {
  static constexpr int kSize = 64 / static_cast<int>(sizeof(A));
  A numbers[kRotatedNumbers][kSize];

  void set(int64_t place, const RotatedBox<A>& box) {
    const A values[kRotatedNumbers] = {box.x,      box.y,    box.half_width, box.half_height,
                                       box.cosine, box.sine, box.area,       box.radius};
    for (int k = 0; k < kRotatedNumbers; ++k) numbers[k][place] = values[k];
  }
  RotatedBox<Vector<A>> at(int i) const {
    return {load(numbers[0] + i), load(numbers[1] + i), load(numbers[2] + i), load(numbers[3] + i),
            load(numbers[4] + i), load(numbers[5] + i), load(numbers[6] + i), load(numbers[7] + i)};
  }
};

// The places [begin, end) of the kept boxes, and one under test.
template <class A>
struct RotatedCandidate {
  using Block = RotatedBlock<A>;
  RotatedBox<Vector<A>> box;
  Vector<A> threshold;

  RotatedCandidate(const RotatedBox<A>& b, A threshold)
      : box{broadcast(b.x),      broadcast(b.y),    broadcast(b.half_width), broadcast(b.half_height),
            broadcast(b.cosine), broadcast(b.sine), broadcast(b.area),       broadcast(b.radius)},
        threshold(broadcast(threshold)) {}

  bool is_suppressed(const Block* blocks, int64_t begin, int64_t end) const {
    const Block* const last = blocks + ceil_div(end, Block::kSize);
    for (const Block* block = blocks + begin / Block::kSize; block < last; ++block) {
      for (int i = 0; i < Block::kSize; i += kLanes<A>) {
        RotatedBox<Vector<A>> kept{};
        kept.x = load(block->numbers[0] + i);
        kept.y = load(block->numbers[1] + i);
        kept.area = load(block->numbers[6] + i);
        kept.radius = load(block->numbers[7] + i);
        const Vector<A> likeness = most_iou(kept, box) - threshold;
        if (any_above(least(circles_overlap(kept, box), likeness), Vector<A>{}) &&
            any_above(rotated_iou<A>(block->at(i), box), threshold)) {
          return true;
        }
      }
    }
    return false;
  }
};

template <class Image, class Members>
void suppress_rotated(const Image& image, const Members& members, double threshold, uint8_t* keep) {
  using A = typename Image::A;
  using Block = RotatedBlock<A>;
  const int64_t count = members.count;
  const bool many = count > kRotatedListBoxes;
  const Scratch box_memory(bytes_of<RotatedBox<A>>(count)), square_memory(bytes_of<Box<double>>(many ? count : 0));
  RotatedBox<A>* const boxes = box_memory.as<RotatedBox<A>>();
  Box<double>* const squares = square_memory.as<Box<double>>();
  NmsGrid<double> grid;
  int64_t active = 0;
  for (int64_t i = 0; i < count; ++i) {
    boxes[i] = prepare_rotated_box(image.boxes + image.order[members[i]] * image.stride, image.coordinate_stride);
    if (many) {
      const double x = boxes[i].x, y = boxes[i].y, radius = boxes[i].radius;
      squares[i] = {x - radius, y - radius, x + radius, y + radius};
      if (is_active(boxes[i])) grid.measure(squares[i], 1.0);
    }
    active += is_active(boxes[i]);
  }
  const int64_t cell_count = many ? grid.lay_out(0.0) : 0, block_count = active / Block::kSize + 1;
  const Scratch cell_memory(bytes_of<Cell>(cell_count)), block_memory(bytes_of<Block>(block_count));
  Cell* const cells = cell_memory.as<Cell>();
  Block* const blocks = block_memory.as<Block>();
  if (many) open_cells(grid, squares, count, cells, cell_count, [&](int64_t i) { return is_active(boxes[i]); });
  __builtin_memset(static_cast<void*>(blocks), 0xff, block_count * sizeof(Block));

  const A limit = round_down<A>(threshold);
  int64_t places = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t rank = members[i];
    keep[rank] = 1;
    if (!is_active(boxes[i])) continue;
    const RotatedCandidate<A> candidate(boxes[i], limit);
    const bool suppressed =
        many ? grid.any_run(squares[i],
                            [&](int64_t first, int64_t last) {
                              return candidate.is_suppressed(blocks, cells[first].start, cells[last].next);
                            })
             : candidate.is_suppressed(blocks, 0, places);
    if (suppressed) {
      keep[rank] = 0;
      continue;
    }
    const int64_t place = many ? cells[grid.cell_of(squares[i])].next++ : places++;
    blocks[place / Block::kSize].set(place % Block::kSize, boxes[i]);
  }
}

}  // namespace fastcv::FASTCV_VARIANT

// Non-maximum suppression on CUDA, with O(N) memory and no synchronisation.
//
// The boxes come sorted: by descending score (a box's rank) and, where there are classes, stably by class (a box's
// place; without classes, place and rank are one). Four kinds of launches, one after the other:
//
//   prepare   one thread per place: the box and its area next to each other in memory, and its group, which is the
//             place where its class begins
//   groups    (with classes only) blocks of their own for groups of up to kGroupLimit boxes: one launch for all
//   tile      for groups longer than that: launch t strikes all later boxes with the survivors of tile t, and the block
//             whose share is tile t + 1 resolves that one at once, for it has now met everything before it. So N /
//             kTile launches, their number known without looking at the data, and the work of each spread over all
//             blocks
//   finish    one block per image: compacts the survivors in order of rank
//
// A tile is resolved 32 boxes at a time: each lane of one warp notes which of the 32 would suppress its box, a few
// votes settle who survives, and all threads strike the rest of the tile with the survivors.
//
// Napkin maths, 20 000 boxes of one class, 8 000 kept: 8e7 pairs of 20 operations are 40 us of an H200, but 625 steps
// of 32 boxes in order take a microsecond each, so the chain of decisions is the limit, not the arithmetic.
#include "core/cuda/block_rank.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "ops/nms/nms.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kBlockSize = 256;
constexpr int kTile = 512;
constexpr int kGroupShare = 64;  // places whose groups one block looks after
constexpr int kGroupLimit = 4096;
constexpr int kFinishBlock = 1024;

// A box as the kernels keep it: some numbers, that of the next box next to each.
template <class A>
struct UprightBox {
  using Number = A;
  static constexpr int kNumbers = kUprightNumbers;
  A number[kNumbers];  // x1, y1, x2, y2, area

  template <class T>
  static __device__ UprightBox read(const T* row, int64_t stride) {
    const Box<A> box = read_box(row, stride);
    return {{box.x1, box.y1, box.x2, box.y2, box_area(box)}};
  }
  __device__ Box<A> box() const { return {number[0], number[1], number[2], number[3]}; }
};

template <class A>
struct TurnedBox {
  using Number = A;
  static constexpr int kNumbers = kRotatedNumbers;
  A number[kNumbers];

  template <class T>
  static __device__ TurnedBox read(const T* row, int64_t stride) {
    const RotatedBox<A> box = prepare_rotated_box(row, stride);
    return {{box.x, box.y, box.half_width, box.half_height, box.cosine, box.sine, box.area, box.radius}};
  }
  __device__ RotatedBox<A> box() const {
    return {number[0], number[1], number[2], number[3], number[4], number[5], number[6], number[7]};
  }
};

// Whether a suppresses b. The division waits until a product says that it may matter; see kept_boxes_cpu.h.
template <class A>
__device__ bool suppresses(const UprightBox<A>& a, const UprightBox<A>& b, A threshold) {
  const A intersection = box_intersection(a.box(), b.box());
  const A both = a.number[4] + b.number[4] - intersection;
  return intersection > A(0) && intersection >= threshold * both && intersection / both > threshold;
}
template <class A>
__device__ bool suppresses(const TurnedBox<A>& a, const TurnedBox<A>& b, A threshold) {
  return circles_overlap(a.box(), b.box()) > A(0) && rotated_iou<A>(a.box(), b.box()) > threshold;
}

// Number k of box i lies at numbers[k * stride + i].
template <class B>
FASTCV_HD B load_box(const typename B::Number* numbers, int64_t stride, int64_t i) {
  B box;
  for (int k = 0; k < B::kNumbers; ++k) box.number[k] = numbers[k * stride + i];
  return box;
}
template <class B>
FASTCV_HD void store_box(const B& box, typename B::Number* numbers, int64_t stride, int64_t i) {
  for (int k = 0; k < B::kNumbers; ++k) numbers[k * stride + i] = box.number[k];
}

// The boxes of one image, or of all images one after the other, in order of place; `dropped` is in order of rank.
template <class B>
struct Places {
  using A = typename B::Number;
  A* numbers;
  int64_t stride;  // how many boxes all images have
  int* group;
  int* dropped;
  const int64_t* rank;  // null: place and rank are one
  int count;            // of one image
  A threshold;          // rounded down

  __device__ Places of_image(unsigned image) const {
    const int64_t offset = static_cast<int64_t>(image) * count;
    return {
        numbers + offset, stride, group + offset, dropped + offset, rank != nullptr ? rank + offset : nullptr, count,
        threshold};
  }
  __device__ int& dropped_at(int place) const {
    return dropped[rank != nullptr ? static_cast<int>(rank[place]) : place];
  }
  __device__ B box(int place) const { return load_box<B>(numbers, stride, place); }

  // Whether the group that begins at `group` is left to the tile launches.
  __device__ bool is_long(int begin) const {
    return rank == nullptr || (count - begin > kGroupLimit && group[begin + kGroupLimit] == begin);
  }
};

// A tile in shared memory.
template <class B>
struct Tile {
  typename B::Number* numbers;
  int* group;
  int* dropped;
  unsigned* survivors;  // one word

  __device__ B box(int i) const { return load_box<B>(numbers, kTile, i); }

  __device__ void load(const Places<B>& places, int begin, int count) const {
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kBlockSize) {
      store_box(places.box(begin + i), numbers, kTile, i);
      group[i] = places.group[begin + i];
      dropped[i] = places.dropped_at(begin + i);
    }
    block_sync();
  }
};

#define FASTCV_NMS_TILE(B, tile)                                       \
  FASTCV_SHARED(typename B::Number, tile_numbers, B::kNumbers* kTile); \
  FASTCV_SHARED(int, tile_group, kTile);                               \
  FASTCV_SHARED(int, tile_dropped, kTile);                             \
  FASTCV_SHARED(unsigned, tile_survivors, 1);                          \
  const Tile<B> tile {                                                 \
    tile_numbers, tile_group, tile_dropped, tile_survivors             \
  }

// Decides all boxes of the tile that nothing before it has dropped.
template <class B>
__device__ void resolve(const Tile<B>& tile, int count, typename B::Number threshold) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int base = 0; base < count; base += static_cast<int>(kWarpSize)) {
    if (thread < static_cast<int>(kWarpSize)) {
      const int mine = base + thread;
      const bool exists = mine < count;
      const B box = exists ? tile.box(mine) : B{};
      const int group = exists ? tile.group[mine] : -1;
      const bool open = exists && tile.dropped[mine] == 0;
      unsigned suppressors = 0;
      for (int i = 0; i < static_cast<int>(kWarpSize) && base + i < count; ++i) {
        const bool counts = i < thread && open && tile.group[base + i] == group && tile.dropped[base + i] == 0;
        if (counts && suppresses(tile.box(base + i), box, threshold)) suppressors |= 1u << i;
      }
      // A box is dropped as soon as one of its suppressors is kept, and kept when all of them are dropped. The first
      // undecided box has no undecided suppressor, so each round decides some.
      unsigned undecided = warp_ballot(kFullMask, open), kept = 0;
      const unsigned self = 1u << thread;
      while (undecided != 0) {
        const bool falls = (suppressors & kept) != 0;
        const bool stays = !falls && (suppressors & undecided) == 0;
        const unsigned falling = warp_ballot(kFullMask, (undecided & self) != 0 && falls);
        const unsigned staying = warp_ballot(kFullMask, (undecided & self) != 0 && stays);
        undecided &= ~(falling | staying);
        kept |= staying;
      }
      if (exists) tile.dropped[mine] = (kept & self) != 0 ? 0 : 1;
      if (thread == 0) *tile.survivors = kept;
    }
    block_sync();
    const unsigned kept = *tile.survivors;
    for (int i = base + static_cast<int>(kWarpSize) + thread; i < count; i += kBlockSize) {
      if (tile.dropped[i] != 0) continue;
      const B box = tile.box(i);
      for (unsigned left = kept; left != 0; left &= left - 1) {
        const int j = base + first_lane(left);
        if (tile.group[j] == tile.group[i] && suppresses(tile.box(j), box, threshold)) {
          tile.dropped[i] = 1;
          break;
        }
      }
    }
    block_sync();
  }
}

// Drops the places of [begin, end) that a survivor of the tile suppresses. Only its last group reaches beyond a tile.
template <class B>
__device__ void strike(const Tile<B>& tile, int count, const Places<B>& places, int begin, int end) {
  const int group = tile.group[count - 1];
  for (int place = begin + static_cast<int>(threadIdx.x); place < end; place += kBlockSize) {
    int& dropped = places.dropped_at(place);
    if (places.group[place] != group || dropped != 0) continue;
    const B box = places.box(place);
    for (int i = 0; i < count; ++i) {
      if (tile.dropped[i] != 0 || tile.group[i] != group) continue;
      if (suppresses(tile.box(i), box, places.threshold)) {
        dropped = 1;
        break;
      }
    }
  }
}

template <class B>
__device__ void store(const Tile<B>& tile, const Places<B>& places, int begin, int count) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kBlockSize) {
    places.dropped_at(begin + i) = tile.dropped[i];
  }
}

// The first place of [begin, end) whose group is another, in sorted groups.
__device__ inline int end_of_group(const int* groups, int group, int begin, int end) {
  while (begin < end) {
    const int middle = begin + (end - begin) / 2;
    if (groups[middle] <= group) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin;
}

template <class T, class B>
__global__ void __launch_bounds__(kBlockSize, 2) nms_prepare_kernel(const NmsParams p, const Places<B> all) {
  const auto places = all.of_image(blockIdx.y);
  const int64_t image = blockIdx.y;
  const int64_t place = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  if (place >= places.count) return;
  const int64_t rank = places.rank != nullptr ? places.rank[place] : place;
  const int64_t index = p.order[image * places.count + rank];
  const T* row = static_cast<const T*>(p.boxes) + image * p.box_strides[0] + index * p.box_strides[1];
  store_box(B::read(row, p.box_strides[2]), places.numbers, places.stride, place);
  places.dropped[place] = 0;
  int group = 0;
  if (p.sorted_classes != nullptr) {
    const int64_t* classes = p.sorted_classes + image * places.count;
    const int64_t mine = classes[place];
    int end = static_cast<int>(place);  // the first place of the class lies in [group, end]
    while (group < end) {
      const int middle = group + (end - group) / 2;
      if (classes[middle] < mine) {
        group = middle + 1;
      } else {
        end = middle;
      }
    }
  }
  places.group[place] = group;
}

// A block decides all short groups that begin among its kGroupShare places. They follow each other, so they are one
// range, walked tile by tile.
template <class B>
__global__ void __launch_bounds__(kBlockSize, 2) nms_groups_kernel(const Places<B> all) {
  FASTCV_NMS_TILE(B, tile);
  const Places<B> places = all.of_image(blockIdx.y);
  const int share = static_cast<int>(blockIdx.x) * kGroupShare;
  const int share_end = places.count - share < kGroupShare ? places.count : share + kGroupShare;
  const int first = places.group[share], last = places.group[share_end - 1];
  if (last < share) return;  // nothing begins here
  const int begin = first == share ? share : end_of_group(places.group, first, share, share_end);
  int end = last;
  if (!places.is_long(last)) {
    const int most = places.count - last < kGroupLimit ? places.count : last + kGroupLimit;
    end = end_of_group(places.group, last, share_end, most);
  }
  for (int at = begin; at < end; at += kTile) {
    const int count = least(end - at, kTile);
    tile.load(places, at, count);
    resolve(tile, count, places.threshold);
    store(tile, places, at, count);
    strike(tile, count, places, at + count, end);
    block_sync();  // before the tile is overwritten, and before what was struck is read
  }
}

// Launch `tile_index`, -1 for the first: see above.
template <class B>
__global__ void __launch_bounds__(kBlockSize, 2) nms_tile_kernel(const Places<B> all, int tile_index) {
  FASTCV_NMS_TILE(B, tile);
  const Places<B> places = all.of_image(blockIdx.y);
  const int before = tile_index * kTile;
  const int begin = before + kTile + static_cast<int>(blockIdx.x) * kTile;
  const int count = least(places.count - begin, kTile);
  if (tile_index >= 0) {
    const int group = places.group[before + kTile - 1];
    if (places.group[begin] == group && places.is_long(group)) {
      tile.load(places, before, kTile);
      strike(tile, kTile, places, begin, begin + count);
      block_sync();
    }
  }
  if (blockIdx.x != 0) return;
  bool needed = false;  // short groups are decided already
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kBlockSize) {
    needed = needed || places.is_long(places.group[begin + i]);
  }
  if (!block_any(needed)) return;
  tile.load(places, begin, count);
  resolve(tile, count, places.threshold);
  store(tile, places, begin, count);
}

__global__ void __launch_bounds__(kFinishBlock, 1) nms_finish_kernel(const NmsParams p, const int* dropped) {
  const int64_t image = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  int64_t* const kept = p.kept + image * p.capacity;
  int64_t written = 0;
  for (int64_t base = 0; base < p.boxes_per_image && written < p.capacity; base += kFinishBlock) {
    const int64_t rank = base + thread;
    const bool stays = rank < p.boxes_per_image && dropped[image * p.boxes_per_image + rank] == 0;
    int staying;
    const int64_t place = written + block_rank<kFinishBlock>(stays, staying);
    if (stays && place < p.capacity) kept[place] = p.order[image * p.boxes_per_image + rank];
    written += staying;
  }
  if (written > p.capacity) written = p.capacity;
  for (int64_t place = written + thread; place < p.capacity; place += kFinishBlock) kept[place] = -1;
  if (thread == 0) p.count[image] = written;
}

template <class T, class B>
void run(const NmsParams& p, Stream stream) {
  using A = Accumulate<T>;
  const int64_t total = p.images * p.boxes_per_image;
  A* const numbers = static_cast<A*>(p.workspace);
  int* const group = reinterpret_cast<int*>(numbers + B::kNumbers * total);
  const int count = static_cast<int>(p.boxes_per_image);
  const Places<B> places{numbers, total, group, group + total, p.places, count, round_down<A>(p.threshold)};
  launch(nms_prepare_kernel<T, B>, {{grid_size(count, kBlockSize), p.images}, {kBlockSize}}, stream, p, places);
  if (p.places != nullptr) {
    launch(nms_groups_kernel<B>, {{grid_size(count, kGroupShare), p.images}, {kBlockSize}}, stream, places);
  }
  if (p.places == nullptr || count > kGroupLimit) {
    const int tiles = static_cast<int>(grid_size(count, kTile));
    for (int tile = -1; tile < tiles - 1; ++tile) {
      launch(nms_tile_kernel<B>, {{tiles - 1 - tile, p.images}, {kBlockSize}}, stream, places, tile);
    }
  }
  launch(nms_finish_kernel, {{p.images}, {kFinishBlock}}, stream, p, static_cast<const int*>(group + total));
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void nms_cuda(const NmsParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (params.rotated) {
      run<T, TurnedBox<Accumulate<T>>>(params, stream);
    } else {
      run<T, UprightBox<Accumulate<T>>>(params, stream);
    }
  });
}

}  // namespace fastcv

// Non-maximum suppression on CUDA, with O(N) memory and no synchronisation.
//
// The boxes come sorted: by descending score (a box's rank) and, where there are classes, stably by class (a box's
// place; without classes, place and rank are one). Five kinds of launches, one after the other:
//
//   prepare   one thread per place: the box and its area next to each other in memory, and its group, which is the
//             place where its class begins
//   groups    (with classes only) blocks of their own for groups of up to kGroupLimit boxes: one launch for all
//   masks     for groups longer than that: in all tiles of kTile boxes at once, who suppresses whom, as bits
//   tile      launch t decides tile t, which has by now met everything before it, and strikes all later boxes with its
//             survivors: N / kTile launches, their number known without looking at the data. Every block decides the
//             tile for itself, which takes less time than to wait for one that does, and strikes its own share
//   space     (for many upright boxes, in place of tile) the same, but where boxes are sparse survivors look for what they
//             strike near them (nms_space.cuh); five launches put the boxes into buckets before and see how sparse they are
//   finish    one block per image: compacts the survivors in order of rank
//
// Napkin maths for an H200, 20 000 boxes of one class, 8 000 kept, float32. Masks: 5e6 pairs of 20 instructions, 5 us on
// 132 multiprocessors. A tile launch: 1.5 us to start, 1 us to read 32 KB of masks out of L2, 16 words to decide at 300
// cycles, 1 us to collect 200 survivors, and 128 x 200 pairs of 20 instructions for each of two blocks on a
// multiprocessor, 4.5 us: 11 us, 40 times. The chain of decisions is the limit, not the arithmetic.
//
// A million boxes, 1000 of them per 800 x 1333 pixels, sides up to 204: one of 300 survivors of a tile meets some 230
// boxes in 60 cells, so each of the 512 warps of a launch waits for memory some 12 times, 1000 cycles each: 7 us, with
// launch and decision 13 us, 1953 times: 25 ms, 25 ns a box as for 100 000. By tiles a million would be 3900 blocks a
// launch, 15 rounds of 8 us: 0.23 s. Filling the buckets moves 60 bytes a box: 0.02 ms. 20 000 boxes in one image meet
// 4600 each, which looked for would take 80 us a launch: those are dense.
#include "core/cuda/block_rank.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "ops/nms/nms_space.cuh"
#include "ops/nms/nms_tile.cuh"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kTile = static_cast<int>(kNmsTile);
constexpr int kGroupTile = 256;  // boxes that a block decides at once where groups are short
constexpr int kGroupShare = 64;  // places whose groups one block looks after
constexpr int kShare = kBlockSize / 2;
constexpr int kFinishBlock = 1024;
constexpr int kMostShares = 528;  // blocks that strike, then one share after the other
constexpr int kSpaceBlocks = 64;  // of a launch that looks for neighbours

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
  places.struck[place] = 0;
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

// The bits of the boxes of a tile that nothing before it has struck, and that `counts` names.
template <int kSize, class Counts>
__device__ void open_boxes(const int* struck, int count, const Counts& counts, unsigned* open) {
  for (int i = static_cast<int>(threadIdx.x); i < kSize; i += kBlockSize) {
    const unsigned bits = warp_ballot(kFullMask, i < count && struck[i] == 0 && counts(i));
    if (lane_id() == 0) open[i / 32] = bits;
  }
}

// A block decides all short groups that begin among its kGroupShare places. They follow each other, so they are one
// range, walked tile by tile.
template <class B>
__global__ void __launch_bounds__(kBlockSize, 2) nms_groups_kernel(const Places<B> all) {
  using A = typename B::Number;
  using After = Survivors<B, kGroupTile>;
  FASTCV_SHARED(A, numbers, B::kNumbers * kGroupTile);
  FASTCV_SHARED(int, groups, kGroupTile);
  FASTCV_SHARED(unsigned, masks, kGroupTile / 32 * kGroupTile);
  FASTCV_SHARED(typename After::Four, survivors, After::kBytes / static_cast<int>(sizeof(typename After::Four)));
  FASTCV_SHARED(unsigned, open, kGroupTile / 32);
  FASTCV_SHARED(unsigned, kept, kGroupTile / 32);
  const Places<B> places = all.of_image(blockIdx.y);
  const int thread = static_cast<int>(threadIdx.x);
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
  for (int at = begin; at < end; at += kGroupTile) {
    const int count = least(end - at, kGroupTile);
    for (int i = thread; i < count; i += kBlockSize) {
      store_box(places.box(at + i), numbers, kGroupTile, i);
      groups[i] = places.group[at + i];
    }
    open_boxes<kGroupTile>(places.struck + at, count, [](int) { return true; }, open);
    block_sync();
    for (int item = thread; item < kGroupTile / 32 * kGroupTile; item += kBlockSize) {
      const int word = item / kGroupTile, i = item % kGroupTile;
      const Word<B> before{numbers + 32 * word, kGroupTile, groups + 32 * word};
      const bool exists = i < count && i > 32 * word;
      masks[item] = !exists ? 0u
                            : suppressors<B>(before, least(i - 32 * word, 32), load_box<B>(numbers, kGroupTile, i),
                                             groups[i], places.threshold);
    }
    block_sync();
    if (thread < static_cast<int>(kWarpSize)) resolve<kGroupTile>(masks, open, kept);
    block_sync();
    for (int i = thread; i < count; i += kBlockSize) places.dropped_at(at + i) = is_kept(kept, i) ? 0 : 1;
    if (at + count < end) {  // only the tile's last group reaches beyond it
      const int group = groups[count - 1];
      const auto box = [&](int i) { return load_box<B>(numbers, kGroupTile, i); };
      const After after{survivors};
      const int found = after.collect(kept, greatest(group - at, 0), box);
      block_sync();
      strike(after, found, places, at + count, end, group);
    }
    block_sync();  // before the tile is overwritten, and before what was struck is read
  }
}

using Unit = Pack<unsigned, 4>;

// Where a tile of the launches below begins, how many boxes it has, and whether a long group has any of them: such a
// group has the tile's first box or its last.
template <class B>
struct TileOf {
  int begin, count;
  bool needed;

  __device__ TileOf(const Places<B>& places, int tile)
      : begin(tile * kTile), count(least(places.count - begin, kTile)), needed(false) {
    needed = places.is_long(places.group[begin]) || places.is_long(places.group[begin + count - 1]);
  }
};

// A block makes one word of the masks of all boxes of a tile.
template <class B>
__global__ void __launch_bounds__(kBlockSize, 2) nms_masks_kernel(const Places<B> all) {
  FASTCV_SHARED(typename B::Number, numbers, B::kNumbers * 32);
  FASTCV_SHARED(int, groups, 32);
  const Places<B> places = all.of_image(blockIdx.y);
  const int tile = static_cast<int>(blockIdx.x) / (kTile / 32), word = static_cast<int>(blockIdx.x) % (kTile / 32);
  const TileOf<B> of(places, tile);
  if (!of.needed) return;
  const int first = of.begin + 32 * word;
  if (threadIdx.x < 32 && first + static_cast<int>(threadIdx.x) < of.begin + of.count) {
    store_box(places.box(first + static_cast<int>(threadIdx.x)), numbers, 32, threadIdx.x);
    groups[threadIdx.x] = places.group[first + static_cast<int>(threadIdx.x)];
  }
  block_sync();
  const Word<B> before{numbers, 32, groups};
  unsigned* const masks = places.masks + static_cast<int64_t>(blockIdx.x) * kTile;
  for (int i = static_cast<int>(threadIdx.x); i < kTile; i += kBlockSize) {
    unsigned bits = 0;
    if (i < of.count && i > 32 * word) {
      const int group = places.group[of.begin + i];
      bits = suppressors<B>(before, least(i - 32 * word, 32), places.box(of.begin + i), group, places.threshold);
    }
    masks[i] = bits;
  }
}

// Decides a tile. `memory` has room for its masks; the first block notes the verdicts.
template <class B>
__device__ __forceinline__ void decide_tile(const Places<B>& places, const TileOf<B>& of, int tile, Unit* memory,
                                            unsigned* open, unsigned* kept) {
  constexpr int kMaskUnits = kTile / 32 * kTile / 4;
  const int thread = static_cast<int>(threadIdx.x);
  const unsigned* masks = places.masks + static_cast<int64_t>(tile) * (kTile / 32 * kTile);
  for (int unit = thread; unit < kMaskUnits; unit += kBlockSize) memory[unit] = load_pack<4>(masks + 4 * unit);
  const auto is_long = [&](int i) { return places.is_long(places.group[of.begin + i]); };
  open_boxes<kTile>(places.struck + of.begin, of.count, is_long, open);
  block_sync();
  if (thread < static_cast<int>(kWarpSize)) resolve<kTile>(reinterpret_cast<const unsigned*>(memory), open, kept);
  block_sync();
  if (blockIdx.x == 0) {
    for (int i = thread; i < of.count; i += kBlockSize) {
      if (is_long(i)) places.dropped_at(of.begin + i) = is_kept(kept, i) ? 0 : 1;
    }
  }
}

// Launch `tile`: see above. A block's share are kShare places behind the tile.
template <class B>
__global__ void __launch_bounds__(kBlockSize, 2) nms_tile_kernel(const Places<B> all, int tile) {
  using After = Survivors<B, kTile>;
  constexpr int kBytes = greatest(kTile / 32 * kTile * 4, After::kBytes);
  FASTCV_SHARED(Unit, memory, kBytes / 16);  // the masks, and when those have been used the survivors
  FASTCV_SHARED(unsigned, open, kTile / 32);
  FASTCV_SHARED(unsigned, kept, kTile / 32);
  const Places<B> places = all.of_image(blockIdx.y);
  const TileOf<B> of(places, tile);
  const int begin = of.begin + kTile + static_cast<int>(blockIdx.x) * kShare;
  const int end = least(places.count, begin + kShare);
  const int group = places.group[of.begin + of.count - 1];
  const bool strikes = begin < end && places.group[begin] == group && places.is_long(group);
  if (!of.needed || (blockIdx.x != 0 && !strikes)) return;
  decide_tile(places, of, tile, memory, open, kept);
  if (!strikes) return;
  const After after{reinterpret_cast<typename After::Four*>(memory)};
  const auto box = [&](int i) { return places.box(of.begin + i); };
  const int found = after.collect(kept, greatest(group - of.begin, 0), box);
  block_sync();
  strike(after, found, places, begin, end, group);
}

// The same for many boxes. Where they are sparse, the tile's survivors are shared out among the warps of kSpaceBlocks
// blocks and look for their neighbours; where they are dense, a block strikes one share after the other.
template <class A>
__global__ void __launch_bounds__(kBlockSize, 2)
    nms_space_kernel(const Places<UprightBox<A>> all, const Space<A> everywhere, int tile) {
  using After = Survivors<UprightBox<A>, kTile>;
  constexpr int kBytes = greatest(kTile / 32 * kTile * 4, After::kBytes);
  FASTCV_SHARED(Unit, memory, kBytes / 16);
  FASTCV_SHARED(unsigned, open, kTile / 32);
  FASTCV_SHARED(unsigned, kept, kTile / 32);
  const auto places = all.of_image(blockIdx.y);
  const auto space = everywhere.of_image(blockIdx.y);
  const TileOf<UprightBox<A>> of(places, tile);
  const int end = of.begin + of.count, group = places.group[end - 1];
  const bool sparse = space.is_sparse();
  const int64_t begin = end + static_cast<int64_t>(blockIdx.x) * kShare;
  const bool has_share = sparse ? end < places.count && blockIdx.x < kSpaceBlocks : begin < places.count;
  const bool strikes = has_share && places.group[sparse ? end : begin] == group && places.is_long(group);
  if (!of.needed || (blockIdx.x != 0 && !strikes)) return;
  decide_tile(places, of, tile, memory, open, kept);
  if (!strikes) return;
  const int first = greatest(group - of.begin, 0);
  if (sparse) {
    const Striker<A> striker{places, space, end, group};
    const int warps = least(static_cast<int>(gridDim.x), kSpaceBlocks) * (kBlockSize / static_cast<int>(kWarpSize));
    const int warp = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) / static_cast<int>(kWarpSize);
    for (int survivor = warp;; survivor += warps) {
      const int i = nth_kept<kTile>(kept, first, survivor);
      if (i < 0) return;
      striker.strike_around(places.box(of.begin + i));
    }
  }
  const After after{reinterpret_cast<typename After::Four*>(memory)};
  const int found = after.collect(kept, first, [&](int i) { return places.box(of.begin + i); });
  block_sync();
  const int64_t step = static_cast<int64_t>(gridDim.x) * kShare;
  for (int64_t at = begin; at < places.count && places.group[at] == group; at += step) {
    strike(after, found, places, static_cast<int>(at), static_cast<int>(least(at + kShare, places.count)), group);
  }
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

// What the tiles' survivors strike: all that is behind, or what is near.
template <class B>
void strike_tiles(const NmsParams& p, const Places<B>& places, int* memory, Stream stream) {
  const int count = places.count, tiles = static_cast<int>(grid_size(count, kTile));
  if constexpr (B::kNumbers == kUprightNumbers) {
    if (nms_has_space(count, p.threshold, false)) {
      using A = typename B::Number;
      const int64_t buckets = nms_space_buckets(count), ends = p.images * (buckets + 1);
      int* const items = memory + 2 * ends;
      int* const numbers = items + p.images * count;
      const Space<A> space{memory, memory + ends, items, numbers, numbers + p.images, buckets, count};
      const LaunchShape of_buckets{{grid_size(buckets + 1, kSpaceBlock), p.images}, {kSpaceBlock}};
      const LaunchShape of_boxes{{grid_size(count, kSpaceBlock), p.images}, {kSpaceBlock}};
      launch(space_empty_kernel<A>, of_buckets, stream, space);
      launch(space_fill_kernel<A, false>, of_boxes, stream, places, space);
      launch(space_begin_kernel<A>, of_buckets, stream, space);
      launch(space_fill_kernel<A, true>, of_boxes, stream, places, space);
      launch(space_sample_kernel<A>, {{p.images}, {kSpaceSamples}}, stream, places, space);
      for (int tile = 0; tile < tiles; ++tile) {
        const int64_t blocks = least(grid_size(greatest(count - (tile + 1) * kTile, 1), kShare), kMostShares);
        launch(nms_space_kernel<A>, {{blocks, p.images}, {kBlockSize}}, stream, places, space, tile);
      }
      return;
    }
  }
  for (int tile = 0; tile < tiles; ++tile) {
    const int64_t shares = grid_size(greatest(count - (tile + 1) * kTile, 1), kShare);
    launch(nms_tile_kernel<B>, {{shares, p.images}, {kBlockSize}}, stream, places, tile);
  }
}

template <class T, class B>
void run(const NmsParams& p, Stream stream) {
  using A = Accumulate<T>;
  const int64_t total = p.images * p.boxes_per_image;
  const int count = static_cast<int>(p.boxes_per_image);
  A* const numbers = static_cast<A*>(p.workspace);
  int* const group = reinterpret_cast<int*>(numbers + B::kNumbers * total);
  int *const struck = group + total, *const dropped = struck + total;
  const int64_t of_boxes = reinterpret_cast<char*>(dropped + total) - static_cast<char*>(p.workspace);
  unsigned* const masks =
      reinterpret_cast<unsigned*>(static_cast<char*>(p.workspace) + ceil_div<int64_t>(of_boxes, 16) * 16);
  const Places<B> places{numbers, total, group, struck, dropped, masks, p.places, count, round_down<A>(p.threshold)};
  launch(nms_prepare_kernel<T, B>, {{grid_size(count, kBlockSize), p.images}, {kBlockSize}}, stream, p, places);
  if (p.places != nullptr) {
    launch(nms_groups_kernel<B>, {{grid_size(count, kGroupShare), p.images}, {kBlockSize}}, stream, places);
  }
  if (p.places == nullptr || count > kGroupLimit) {
    const int tiles = static_cast<int>(grid_size(count, kTile));
    launch(nms_masks_kernel<B>, {{static_cast<int64_t>(tiles) * (kTile / 32), p.images}, {kBlockSize}}, stream, places);
    strike_tiles(p, places, reinterpret_cast<int*>(masks + p.images * nms_mask_words(count)), stream);
  }
  launch(nms_finish_kernel, {{p.images}, {kFinishBlock}}, stream, p, static_cast<const int*>(dropped));
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

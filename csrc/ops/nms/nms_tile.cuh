// A tile of boxes, one after the other in order of place: who suppresses whom as bits, who survives, and the survivors
// side by side for the boxes behind the tile.
//
// masks[word * kSize + i], bit j: box 32 * word + j of the tile comes before box i, has its group, and suppresses it. All
// of them are found in parallel. What remains in order is to decide 32 boxes after the other with a few operations on
// bits.
#pragma once

#include "core/cuda/pack.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "ops/nms/nms_boxes.cuh"

namespace fastcv::FASTCV_VARIANT {

constexpr int kBlockSize = 256;

// 32 boxes in shared memory and their groups, number k of box j at numbers[k * stride + j].
template <class B>
struct Word {
  const typename B::Number* numbers;
  int stride;
  const int* group;
};

// The bits of the first `count` boxes of the word that suppress a box of that group.
template <class B>
__device__ unsigned suppressors(const Word<B>& word, int count, const B& box, int group, typename B::Number threshold) {
  unsigned bits = 0;
  for (int j = 0; j < count; ++j) {
    if (word.group[j] != group) continue;
    if (suppresses(load_box<B>(word.numbers, word.stride, j), box, threshold)) bits |= 1u << j;
  }
  return bits;
}

// Decides the boxes of a tile: bit i % 32 of kept[i / 32]. Of `open` those bits are set whose box nothing before the
// tile dropped. For one warp.
template <int kSize>
__device__ void resolve(const unsigned* masks, const unsigned* open, unsigned* kept) {
  const unsigned self = 1u << lane_id();
  for (int word = 0; word < kSize / 32; ++word) {
    const int mine = 32 * word + static_cast<int>(lane_id());
    unsigned met = 0;
    for (int before = 0; before < word; ++before) met |= masks[before * kSize + mine] & kept[before];
    const unsigned rivals = masks[word * kSize + mine];
    // A box is dropped as soon as one of its suppressors is kept, and kept when all of them are dropped. The first
    // undecided box has no undecided suppressor, so each round decides some.
    unsigned undecided = warp_ballot(kFullMask, (open[word] & self) != 0 && met == 0), survivors = 0;
    while (undecided != 0) {
      const bool falls = (rivals & survivors) != 0;
      const bool stays = !falls && (rivals & undecided) == 0;
      const unsigned falling = warp_ballot(kFullMask, (undecided & self) != 0 && falls);
      const unsigned staying = warp_ballot(kFullMask, (undecided & self) != 0 && stays);
      undecided &= ~(falling | staying);
      survivors |= staying;
    }
    if (lane_id() == 0) kept[word] = survivors;
    warp_sync(kFullMask);
  }
}

__device__ inline bool is_kept(const unsigned* kept, int i) {
  return (kept[i / 32] >> (i % 32) & 1u) != 0;
}

// The bits of a word from box `first` of the tile on.
__device__ inline unsigned kept_from(const unsigned* kept, int word, int first) {
  const int skipped = first - 32 * word;
  return skipped >= 32 ? 0u : skipped > 0 ? kept[word] & (kFullMask << skipped) : kept[word];
}

// The survivor of that number from box `first` on; -1: there are not so many.
template <int kSize>
__device__ inline int nth_kept(const unsigned* kept, int first, int number) {
  for (int word = 0; word < kSize / 32; ++word) {
    unsigned bits = kept_from(kept, word, first);
    const int count = count_lanes(bits);
    if (number < count) {
      for (; number > 0; --number) bits &= bits - 1;
      return 32 * word + first_lane(bits);
    }
    number -= count;
  }
  return -1;
}

// Boxes side by side in shared memory, four numbers of a box in one load.
template <class B, int kSize>
struct Survivors {
  using A = typename B::Number;
  using Four = Pack<A, 4>;
  static constexpr int kFours = B::kNumbers / 4, kRest = B::kNumbers % 4;
  static constexpr int kBytes = kSize * B::kNumbers * static_cast<int>(sizeof(A));
  Four* memory;

  __device__ A* rest() const { return reinterpret_cast<A*>(memory + kFours * kSize); }

  __device__ void put(int at, const B& box) const {
    for (int f = 0; f < kFours; ++f) {
      for (int k = 0; k < 4; ++k) memory[f * kSize + at].value[k] = box.number[4 * f + k];
    }
    for (int k = 0; k < kRest; ++k) rest()[k * kSize + at] = box.number[4 * kFours + k];
  }
  __device__ B get(int at) const {
    B box;
#pragma unroll
    for (int f = 0; f < kFours; ++f) {
      const Four four = memory[f * kSize + at];
#pragma unroll
      for (int k = 0; k < 4; ++k) box.number[4 * f + k] = four.value[k];
    }
#pragma unroll
    for (int k = 0; k < kRest; ++k) box.number[4 * kFours + k] = rest()[k * kSize + at];
    return box;
  }

  // Takes the survivors of a tile from box `first` on, box(i) for each, and returns their number.
  template <class BoxAt>
  __device__ int collect(const unsigned* kept, int first, const BoxAt& box) const {
    int all = 0;
    for (int word = 0; word < kSize / 32; ++word) {
      const unsigned bits = kept_from(kept, word, first);
      for (int i = static_cast<int>(threadIdx.x); i < kSize; i += kBlockSize) {
        if (i / 32 != word || (bits >> (i % 32) & 1u) == 0) continue;
        put(all + count_lanes(bits & ((1u << (i % 32)) - 1)), box(i));
      }
      all += count_lanes(bits);
    }
    return all;
  }
};

// Strikes the places of [begin, end) that are of that group and that one of the survivors suppresses. Two threads look
// at a place, each at every other survivor.
template <class B, int kSize>
__device__ void strike(const Survivors<B, kSize>& survivors, int count, const Places<B>& places, int begin, int end,
                       int group) {
  const int side = static_cast<int>(threadIdx.x) % 2;
  for (int base = begin; base < end; base += kBlockSize / 2) {
    const int place = base + static_cast<int>(threadIdx.x) / 2;
    bool hit = false;
    if (place < end && places.group[place] == group && places.struck[place] == 0) {
      const B box = places.box(place);
      for (int i = side; i < count && !hit; i += 2) hit = suppresses(survivors.get(i), box, places.threshold);
    }
    hit = warp_shuffle_xor(kFullMask, static_cast<int>(hit), 1) != 0 || hit;
    if (hit && side == 0) places.struck[place] = 1;
  }
}

}  // namespace fastcv::FASTCV_VARIANT

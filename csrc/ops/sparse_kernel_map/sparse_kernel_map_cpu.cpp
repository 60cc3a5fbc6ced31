// The kernel map on the CPU. See sparse_kernel_map.h for the meaning, sparse_words_cpu.h for how sites are kept.
//
// Every entry of a map is written by the one pair of sites it stands for, so threads share nothing and the result does
// not depend on them.
//
// Napkin maths, 35 000 surface sites, 3 x 3 x 3: a map of 3.8 MB is written twice (0.4 ms at 20 GB/s). The sites make
// some 12 000 words; a submanifold map compares each with 13 others (5 ns each: 0.8 ms) and visits 9 existing pairs per
// site, half of them by symmetry (160 000 at 3 ns: 0.5 ms).
#include "ops/sparse_kernel_map/sparse_outputs_cpu.h"
#include "ops/sparse_kernel_map/sparse_words_cpu.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

// Walks the pairs of one piece of words with the words at (dz, dy), for kernel elements kx in [0, kx_end).
template <class Emit>
void match_rows(const SparseMapParams& p, const Sites& sites, int64_t begin, int64_t end, int32_t kz, int32_t ky,
                int32_t kx_end, const Emit& emit) {
  const SparseAxis &axis_z = p.axes[0], &axis_y = p.axes[1], &axis_x = p.axes[2];
  const int64_t dz = static_cast<int64_t>(kz) * axis_z.dilation - axis_z.padding;
  const int64_t dy = static_cast<int64_t>(ky) * axis_y.dilation - axis_y.padding;
  const int64_t delta = dz * (int64_t{1} << (axis_z.in_shift - 6)) + dy * (int64_t{1} << (axis_y.in_shift - 6));
  const int64_t blocks = int64_t{1} << (axis_y.in_shift - 6);
  const int64_t last_shift =
      ((static_cast<int64_t>(kx_end - 1) * axis_x.dilation - static_cast<int64_t>(axis_x.padding)) >> 6) + 1;
  int64_t cursor = -1;
  for (int64_t w = begin; w < end; ++w) {
    const Word& word = sites.words[w];
    const int64_t z = word.z + dz, y = word.y + dy;
    if (z < 0 || z >= axis_z.in_size || y < 0 || y >= axis_y.in_size) continue;
    const int64_t row = static_cast<int64_t>(word.key) - word.block + delta;  // the key of block 0 over there
    const int64_t first_block = word.block + ((-static_cast<int64_t>(axis_x.padding)) >> 6);
    const int64_t first = row + (first_block > 0 ? first_block : 0), last = row + word.block + last_shift;
    if (cursor < 0) {
      int64_t low = 0, high = sites.count;
      while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (static_cast<int64_t>(sites.words[middle].key) < first) {
          low = middle + 1;
        } else {
          high = middle;
        }
      }
      cursor = low;
    }
    while (cursor < sites.count && static_cast<int64_t>(sites.words[cursor].key) < first) ++cursor;
    if (cursor == sites.count) break;
    if (static_cast<int64_t>(sites.words[cursor].key) > last) continue;  // nothing near in that row
    int64_t local = cursor;
    for (int32_t kx = 0; kx < kx_end; ++kx) {
      const int64_t shift = static_cast<int64_t>(kx) * axis_x.dilation - axis_x.padding;
      const int64_t block = word.block + (shift >> 6);
      const int turn = static_cast<int>(shift & 63);
      // Sites at block * 64 + turn and on: the upper part of one word and the lower part of the next.
      while (local < sites.count && static_cast<int64_t>(sites.words[local].key) < row + block) ++local;
      if (local == sites.count) break;
      int64_t next = local;
      if (block >= 0 && block < blocks && static_cast<int64_t>(sites.words[local].key) == row + block) {
        const Word& other = sites.words[local];
        const uint64_t matches = word.bits & (other.bits >> turn);
        if (matches != 0) emit(kx, word, other, matches, turn);
        ++next;
      }
      if (turn == 0 || next == sites.count || block + 1 < 0 || block + 1 >= blocks) continue;
      if (block < 0) {
        // Block 0 of the row is where the cursor is, if it exists.
        if (block + 1 != 0 || static_cast<int64_t>(sites.words[next].key) != row) continue;
      }
      if (static_cast<int64_t>(sites.words[next].key) == row + block + 1) {
        const Word& other = sites.words[next];
        const uint64_t matches = word.bits & (other.bits << (64 - turn));
        if (matches != 0) emit(kx, word, other, matches, turn - 64);
      }
    }
  }
}

// Calls body(rank of the site in `word`, rank of the site in `other`) for each match.
template <class Body>
inline void for_matches(const Word& word, const Word& other, uint64_t matches, int turn, const Body& body) {
  for (; matches != 0; matches &= matches - 1) {
    const int position = __builtin_ctzll(matches);
    body(word.base + rank_in(word.bits, position), other.base + rank_in(other.bits, position + turn));
  }
}

void map_submanifold(const SparseMapParams& p, const Sites& sites) {
  const int64_t n = p.sites, volume = p.volume;
  const int32_t ky_count = p.axes[1].kernel, kx_count = p.axes[2].kernel;
  const bool mirrors = volume % 2 == 1;
  fill_missing(p.neighbours, volume * n);
  if (!mirrors) fill_missing(p.reverse, volume * n);
  const int32_t rows = p.axes[0].kernel * ky_count;
  parallel_for(sites.count, kWordGrain, [&](int64_t begin, int64_t end) {
    for (int32_t zy = 0; zy < (mirrors ? rows / 2 + 1 : rows); ++zy) {
      const int32_t kx_end = mirrors && zy == rows / 2 ? kx_count / 2 : kx_count;
      match_rows(p, sites, begin, end, zy / ky_count, zy % ky_count, kx_end,
                 [&](int32_t kx, const Word& word, const Word& other, uint64_t matches, int turn) {
                   const int64_t k = static_cast<int64_t>(zy) * kx_count + kx;
                   int32_t* const there = p.neighbours + k * n;
                   int32_t* const back = mirrors ? p.neighbours + (volume - 1 - k) * n : p.reverse + k * n;
                   for_matches(word, other, matches, turn, [&](int32_t output, int32_t input) {
                     output = sites.row(output);
                     input = sites.row(input);
                     there[output] = input;
                     back[input] = output;
                   });
                 });
    }
  });
  if (!mirrors || n == 0) return;  // without sites the maps may be null
  int32_t* const centre = p.neighbours + volume / 2 * n;
  for (int64_t i = 0; i < n; ++i) centre[i] = static_cast<int32_t>(i);
  if (p.reverse == nullptr) return;
  advise_huge_pages(p.reverse, sizeof(int32_t) * static_cast<size_t>(volume * n));
  parallel_for(volume, 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      memcpy(p.reverse + k * n, p.neighbours + (volume - 1 - k) * n, sizeof(int32_t) * static_cast<size_t>(n));
    }
  });
}

}  // namespace

void sparse_kernel_map_cpu(const SparseMapParams& p) {
  if (p.step == SparseMapStep::kSubmanifold) return map_submanifold(p, SortedSites(p));
  if (p.step == SparseMapStep::kFind) {
    OutputSites* const found = new OutputSites(p);
    *p.work = {found, [](void* state) { delete static_cast<OutputSites*>(state); }, found->count()};
    return;
  }
  static_cast<const OutputSites*>(p.work->state)->link(p);
}

}  // namespace fastcv::FASTCV_VARIANT

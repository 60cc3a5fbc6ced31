// Active sites as words: 64 neighbours along x are the bits of one word, and words are kept in ascending order of their
// key. Finding the sites that lie at an offset from others is then a walk along two sorted lists, and a few bit
// operations per pair of words, with no hash and no memory for what is empty. Those of a submanifold map are found so.
//
// Napkin maths, 35 000 surface sites, 3 x 3 x 3: a map of 3.8 MB is written twice (0.4 ms at 20 GB/s). The sites make
// some 12 000 words; a submanifold map compares each with 13 others (5 ns each: 0.8 ms) and visits 9 existing pairs per
// site, half of them by symmetry (160 000 at 3 ns: 0.5 ms).
#pragma once

#include <cstring>

#include "core/errors.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "core/radix_sort_cpu.h"
#include "ops/sparse_kernel_map/sparse_kernel_map.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

struct Word {
  uint64_t key;   // of a site, without its lowest six bits
  uint64_t bits;  // bit i: the site at x = 64 * block + i is active
  int32_t base;   // how many sites come before, in ascending order
  int32_t batch, z, y;
  int32_t block;
};

inline int rank_in(uint64_t bits, int position) {
  return __builtin_popcountll(bits & ((uint64_t{1} << position) - 1));
}

// The input sites: `order` gives the row of each site in ascending order, null when that is the order of the rows.
struct Sites {
  const Word* words = nullptr;
  int64_t count = 0;
  const uint32_t* order = nullptr;
  int32_t row(int32_t rank) const { return order != nullptr ? static_cast<int32_t>(order[rank]) : rank; }
};

constexpr int64_t kReadGrain = 8192;
constexpr int64_t kWordGrain = 512;
constexpr int64_t kFillGrain = int64_t{1} << 18;  // elements

inline void fill_missing(int32_t* map, int64_t count) {
  advise_huge_pages(map, sizeof(int32_t) * static_cast<size_t>(count));
  parallel_for(count, kFillGrain, [&](int64_t begin, int64_t end) {
    memset(map + begin, 0xff, sizeof(int32_t) * static_cast<size_t>(end - begin));
  });
}

// What a piece of the input was found to be.
struct ReadReport {
  int64_t outside;  // a row, or -1
  bool ascending;
};

// Writes the key of each row, and returns whether they strictly ascend. Throws for sites outside.
inline bool read_keys(const SparseMapParams& p, uint64_t* keys) {
  const int64_t pieces = (p.sites + kReadGrain - 1) / kReadGrain;
  const Scratch reports_memory(bytes_of<ReadReport>(pieces));
  ReadReport* const reports = reports_memory.as<ReadReport>();
  parallel_for(p.sites, kReadGrain, [&](int64_t begin, int64_t end) {
    ReadReport report{-1, true};
    const int32_t* site = p.indices + 4 * begin;
    uint64_t previous = begin == 0 ? 0 : input_key(p, site[-4], site[-3], site[-2], site[-1]);
    for (int64_t i = begin; i < end; ++i, site += 4) {
      const uint64_t key = input_key(p, site[0], site[1], site[2], site[3]);
      if (!is_inside(p, site) && report.outside < 0) report.outside = i;
      report.ascending = report.ascending && (i == 0 || previous < key);
      keys[i] = previous = key;
    }
    reports[begin / kReadGrain] = report;
  });
  bool ascending = true;
  for (int64_t piece = 0; piece < pieces; ++piece) {
    const int64_t row = reports[piece].outside;
    if (row >= 0) throw_outside(p, p.indices + 4 * row, row);
    ascending = ascending && reports[piece].ascending;
  }
  return ascending;
}

inline void check_distinct(const SparseMapParams& p, const uint64_t* keys, const uint32_t* order) {
  for (int64_t i = 1; i < p.sites; ++i) {
    if (keys[i] != keys[i - 1]) continue;
    const int32_t* site = p.indices + 4 * static_cast<int64_t>(order[i]);
    throw_value_error("indices must have each site once, got (%d, %d, %d, %d) in rows %u and %u", site[0], site[1],
                      site[2], site[3], order[i - 1], order[i]);
  }
}

// Gathers ascending keys into words; returns how many.
inline int64_t gather_words(const SparseMapParams& p, const uint64_t* keys, const uint32_t* order, Word* words) {
  int64_t count = 0;
  for (int64_t i = 0; i < p.sites; ++i) {
    const uint64_t bit = uint64_t{1} << (keys[i] & 63);
    if (count > 0 && words[count - 1].key == keys[i] >> 6) {
      words[count - 1].bits |= bit;
      continue;
    }
    const int32_t* site = p.indices + 4 * (order != nullptr ? static_cast<int64_t>(order[i]) : i);
    words[count++] = {keys[i] >> 6, bit, static_cast<int32_t>(i), site[0], site[1], site[2], site[3] >> 6};
  }
  return count;
}

// The input sites, sorted, with the memory they lie in.
class SortedSites : public Sites {
 public:
  explicit SortedSites(const SparseMapParams& p)
      : words_memory_(bytes_of<Word>(p.sites)),
        keys_memory_(bytes_of<uint64_t>(p.sites)),
        ascending_(read_keys(p, keys_memory_.as<uint64_t>())),
        spare_memory_(ascending_ ? 0 : bytes_of<uint64_t>(p.sites)),
        order_memory_(ascending_ ? 0 : bytes_of<uint32_t>(2, p.sites)) {
    uint64_t* keys = keys_memory_.as<uint64_t>();
    if (!ascending_) {
      uint64_t* spare_keys = spare_memory_.as<uint64_t>();
      uint32_t* sorted = order_memory_.as<uint32_t>();
      uint32_t* spare_order = sorted + p.sites;
      for (int64_t i = 0; i < p.sites; ++i) sorted[i] = static_cast<uint32_t>(i);
      radix_sort(p.sites, keys, sorted, spare_keys, spare_order);
      check_distinct(p, keys, sorted);
      order = sorted;
    }
    words = words_memory_.as<Word>();
    count = gather_words(p, keys, order, words_memory_.as<Word>());
  }

 private:
  const Scratch words_memory_, keys_memory_;
  const bool ascending_;
  const Scratch spare_memory_, order_memory_;
};

// ---- the submanifold map ----

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
  if (!mirrors && p.reverse != nullptr) fill_missing(p.reverse, volume * n);
  const int32_t rows = p.axes[0].kernel * ky_count;
  parallel_for(sites.count, kWordGrain, [&](int64_t begin, int64_t end) {
    for (int32_t zy = 0; zy < (mirrors ? rows / 2 + 1 : rows); ++zy) {
      const int32_t kx_end = mirrors && zy == rows / 2 ? kx_count / 2 : kx_count;
      match_rows(p, sites, begin, end, zy / ky_count, zy % ky_count, kx_end,
                 [&](int32_t kx, const Word& word, const Word& other, uint64_t matches, int turn) {
                   const int64_t k = static_cast<int64_t>(zy) * kx_count + kx;
                   int32_t* const there = p.neighbours + k * n;
                   int32_t* const back = mirrors                ? p.neighbours + (volume - 1 - k) * n
                                         : p.reverse != nullptr ? p.reverse + k * n
                                                                : nullptr;
                   for_matches(word, other, matches, turn, [&](int32_t output, int32_t input) {
                     output = sites.row(output);
                     input = sites.row(input);
                     there[output] = input;
                     if (back != nullptr) back[input] = output;
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
}  // namespace fastcv::FASTCV_VARIANT

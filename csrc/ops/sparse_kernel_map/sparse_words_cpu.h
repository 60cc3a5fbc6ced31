// Active sites as words: 64 neighbours along x are the bits of one word, and words are kept in ascending order of their
// key. Finding the sites that lie at an offset from others is then a walk along two sorted lists, and a few bit
// operations per pair of words, with no hash and no memory for what is empty.
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
      : words_memory_(static_cast<size_t>(p.sites) * sizeof(Word)),
        keys_memory_(static_cast<size_t>(p.sites) * sizeof(uint64_t)),
        ascending_(read_keys(p, keys_memory_.as<uint64_t>())),
        spare_memory_(ascending_ ? 0 : static_cast<size_t>(p.sites) * sizeof(uint64_t)),
        order_memory_(ascending_ ? 0 : static_cast<size_t>(p.sites) * 2 * sizeof(uint32_t)) {
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

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

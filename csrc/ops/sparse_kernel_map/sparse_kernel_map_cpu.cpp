// The kernel map on the CPU. See sparse_kernel_map.h for the meaning, sparse_words_cpu.h for how sites are kept and for
// the submanifold map. Here is the map of all other convolutions: every input site spreads to the output sites that it
// feeds.
//
// Along z and y all sites of a word feed the same output rows; along x what they feed is again words, for strides that
// are powers of two by a few bit operations on all sites of the word at once. These candidates for words of output
// sites are sorted and merged; then every site is followed through the kernel, to outputs that are known to be there.
//
// Every entry of a map is written by the one pair of sites it stands for, so threads share nothing and the result does
// not depend on them.
//
// Napkin maths, 35 000 surface sites in 9 300 words, 3 x 3 x 3, stride 2: 21 000 candidates (20 ns each to list, sort
// and merge: 0.4 ms), 118 000 links of 8 bytes (10 cycles each: 0.4 ms) in maps of 5.9 MB that are filled before (0.5
// ms).
#include "ops/sparse_kernel_map/sparse_spread_cpu.h"
#include "ops/sparse_kernel_map/sparse_words_cpu.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

// The output sites: parallel arrays of words in ascending order.
struct OutputWords {
  uint64_t* key;
  uint64_t* bits;
  int32_t* base;
  int64_t count;
};

// What a piece of words needs to spread.
struct PieceMemory {
  AxisLinks links_z, links_y;
  const Scratch memory;
  Step* const steps;  // room for those of a word

  PieceMemory(const SparseMapParams& p, const Spread& spread)
      : links_z(p.axes[0], p.transposed),
        links_y(p.axes[1], p.transposed),
        memory(bytes_of<Step>(spread.room())),
        steps(memory.as<Step>()) {}
};

// Returns for how many candidates there has to be room, and sets where those of each piece begin.
int64_t bound_candidates(const SparseMapParams& p, const Sites& sites, const Spread& spread, int64_t* piece_offsets) {
  parallel_for(sites.count, kWordGrain, [&](int64_t begin, int64_t end) {
    PieceMemory piece(p, spread);
    int64_t total = 0;
    for (int64_t w = begin; w < end; ++w) {
      const Word& word = sites.words[w];
      piece.links_z.move_to(word.z);
      piece.links_y.move_to(word.y);
      total += piece.links_z.count * piece.links_y.count * spread.bound_blocks(word, piece.steps);
    }
    piece_offsets[begin / kWordGrain] = total;
  });
  int64_t sum = 0, piece = 0;
  for (; piece * kWordGrain < sites.count; ++piece) {
    const int64_t here = piece_offsets[piece];
    piece_offsets[piece] = sum;
    sum += here;
  }
  piece_offsets[piece] = sum;
  if (sum >= int64_t{1} << 32) throw_value_error("indices must feed fewer output sites, got 2^32 candidates or more");
  return sum;
}

// What a piece leaves of its room is filled with candidates of no site.
void list_candidates(const SparseMapParams& p, const Sites& sites, const Spread& spread, const int64_t* piece_offsets,
                     uint64_t* keys, uint64_t* bits, uint32_t* order) {
  parallel_for(sites.count, kWordGrain, [&](int64_t begin, int64_t end) {
    PieceMemory piece(p, spread);
    const AxisLinks &links_z = piece.links_z, &links_y = piece.links_y;
    int64_t at = piece_offsets[begin / kWordGrain];
    uint64_t key = 0;
    for (int64_t w = begin; w < end; ++w) {
      const Word& word = sites.words[w];
      piece.links_z.move_to(word.z);
      piece.links_y.move_to(word.y);
      spread.for_blocks(word, piece.steps, [&](int32_t block, uint64_t block_bits) {
        for (int64_t z = 0; z < links_z.count; ++z) {
          for (int64_t y = 0; y < links_y.count; ++y, ++at) {
            const uint64_t row = output_key(p, word.batch, links_z.links[z].output, links_y.links[y].output, 0) / 64;
            keys[at] = key = row + static_cast<uint64_t>(block);
            bits[at] = block_bits;
            order[at] = static_cast<uint32_t>(at);
          }
        }
      });
    }
    for (; at < piece_offsets[begin / kWordGrain + 1]; ++at) {
      keys[at] = key;
      bits[at] = 0;
      order[at] = static_cast<uint32_t>(at);
    }
  });
}

// Makes one word of all candidates of the same key, in place. Returns the number of sites.
int64_t merge_candidates(int64_t candidates, const uint32_t* order, const uint64_t* bits, OutputWords& words) {
  int64_t outputs = 0, count = 0;
  for (int64_t i = 0; i < candidates;) {
    const uint64_t key = words.key[i];
    uint64_t merged = 0;
    for (; i < candidates && words.key[i] == key; ++i) merged |= bits[order[i]];
    if (merged == 0) continue;
    words.key[count] = key;
    words.bits[count] = merged;
    words.base[count] = static_cast<int32_t>(outputs);
    ++count;
    outputs += __builtin_popcountll(merged);
    if (outputs >= int64_t{1} << 31) throw_value_error("indices must feed fewer than 2^31 output sites, got more");
  }
  words.count = count;
  return outputs;
}

void write_out_indices(const SparseMapParams& p, const OutputWords& words, int32_t* out_indices) {
  parallel_for(words.count, kWordGrain, [&](int64_t begin, int64_t end) {
    for (int64_t w = begin; w < end; ++w) {
      int32_t site[4];
      decode_output(p, words.key[w] * 64, site);
      int32_t* target = out_indices + 4 * static_cast<int64_t>(words.base[w]);
      for (uint64_t left = words.bits[w]; left != 0; left &= left - 1, target += 4) {
        target[0] = site[0];
        target[1] = site[1];
        target[2] = site[2];
        target[3] = site[3] + __builtin_ctzll(left);
      }
    }
  });
}

int64_t lower_bound(const OutputWords& words, uint64_t key) {
  int64_t low = 0, high = words.count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (words.key[middle] < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// A kernel row that a word feeds something through, and the output word where it does.
struct KernelRow {
  uint64_t key;   // of block 0 of the output row
  int64_t index;  // of the kernel row
  int64_t cursor;
  uint64_t bits;
  int32_t base;
  int32_t* neighbours;
  int32_t* reverse;  // or null
};

struct LinkTargets {
  const KernelRow* rows;
  int64_t row_count;
  int64_t outputs, inputs;
  int32_t block;
};

// Follows the steps to a block through kRows kernel rows, or as many as there are. Writes both maps, or neighbours alone.
template <int kRows, bool kBoth>
inline void link_block(const Sites& sites, const Step* steps, int32_t count, const LinkTargets& targets) {
  const int64_t row_count = kRows > 0 ? kRows : targets.row_count;
  for (int32_t i = 0; i < count; ++i) {
    const Step& step = steps[i];
    if (step.block != targets.block) continue;
    const int32_t input = sites.row(step.input);
    const int64_t neighbour = step.kx * targets.outputs, back = step.kx * targets.inputs + input;
#pragma GCC unroll 4
    for (int64_t r = 0; r < row_count; ++r) {
      const KernelRow& row = targets.rows[r];
      const int32_t output = row.base + __builtin_popcountll(row.bits & step.below);
      row.neighbours[neighbour + output] = input;
      if constexpr (kBoth) row.reverse[back] = output;
    }
  }
}

// The least block of the steps above this one.
inline int32_t next_block(const Step* steps, int32_t count, int32_t block) {
  int32_t next = INT32_MAX;
  for (int32_t i = 0; i < count; ++i) {
    if (steps[i].block > block && steps[i].block < next) next = steps[i].block;
  }
  return next;
}

// Follows the sites of a piece of words. Within a kernel row, words in ascending order feed words in ascending order,
// so that a cursor per kernel row is all the search there is.
template <bool kBoth>
void link_piece(const SparseMapParams& p, const Sites& sites, int64_t begin, int64_t end, const Spread& spread,
                const OutputWords& words) {
  const int64_t kx_count = p.axes[2].kernel, ky_count = p.axes[1].kernel;
  const int64_t row_count = p.axes[0].kernel * ky_count;
  const Scratch cursors_memory(bytes_of<int64_t>(row_count)), rows_memory(bytes_of<KernelRow>(row_count));
  int64_t* const cursors = cursors_memory.as<int64_t>();
  KernelRow* const rows = rows_memory.as<KernelRow>();
  PieceMemory piece(p, spread);
  const AxisLinks &links_z = piece.links_z, &links_y = piece.links_y;
  Step* const steps = piece.steps;
  for (int64_t row = 0; row < row_count; ++row) cursors[row] = -1;
  for (int64_t w = begin; w < end; ++w) {
    const Word& word = sites.words[w];
    const int32_t count = spread.list_steps(word, steps);
    if (count == 0) continue;
    int32_t first_block = steps[0].block, last_block = steps[0].block;
    for (int32_t i = 1; i < count; ++i) {
      first_block = steps[i].block < first_block ? steps[i].block : first_block;
      last_block = steps[i].block > last_block ? steps[i].block : last_block;
    }
    piece.links_z.move_to(word.z);
    piece.links_y.move_to(word.y);
    int64_t fed = 0;
    for (int64_t z = 0; z < links_z.count; ++z) {
      for (int64_t y = 0; y < links_y.count; ++y, ++fed) {
        KernelRow& row = rows[fed];
        row.index = links_z.links[z].k * ky_count + links_y.links[y].k;
        row.key = output_key(p, word.batch, links_z.links[z].output, links_y.links[y].output, 0) / 64;
        const uint64_t key = row.key + static_cast<uint64_t>(first_block);
        row.cursor = cursors[row.index] < 0 ? lower_bound(words, key) : cursors[row.index];
        while (words.key[row.cursor] < key) ++row.cursor;
        cursors[row.index] = row.cursor;
        row.neighbours = p.neighbours + row.index * kx_count * p.outputs;
        row.reverse = kBoth ? p.reverse + row.index * kx_count * p.sites : nullptr;
      }
    }
    for (int32_t block = first_block;;) {
      for (int64_t r = 0; r < fed; ++r) {
        KernelRow& row = rows[r];
        while (words.key[row.cursor] < row.key + static_cast<uint64_t>(block)) ++row.cursor;
        row.bits = words.bits[row.cursor];
        row.base = words.base[row.cursor];
      }
      const LinkTargets targets{rows, fed, p.outputs, p.sites, block};
      switch (fed) {  // with the number known, there is no loop whose end cannot be predicted
        case 1:
          link_block<1, kBoth>(sites, steps, count, targets);
          break;
        case 2:
          link_block<2, kBoth>(sites, steps, count, targets);
          break;
        case 4:
          link_block<4, kBoth>(sites, steps, count, targets);
          break;
        default:
          link_block<0, kBoth>(sites, steps, count, targets);
      }
      if (block == last_block) break;
      block = next_block(steps, count, block);
    }
  }
}

// Finds the output sites of a convolution, and keeps them until there is memory for the maps.
class OutputSites {
 public:
  explicit OutputSites(const SparseMapParams& p)
      : sites_(p),
        spread_(p),
        offsets_memory_(bytes_of<int64_t>(sites_.count / kWordGrain + 2)),
        candidates_(bound_candidates(p, sites_, spread_, offsets_memory_.as<int64_t>())),
        room_(candidates_ + 1),
        keys_memory_(bytes_of<uint64_t>(room_)),
        spare_memory_(bytes_of<uint64_t>(room_)),
        bits_memory_(bytes_of<uint64_t>(room_)),
        order_memory_(bytes_of<uint32_t>(2, room_)) {
    uint64_t* keys = keys_memory_.as<uint64_t>();
    uint64_t* spare_keys = spare_memory_.as<uint64_t>();
    uint64_t* const bits = bits_memory_.as<uint64_t>();
    uint32_t* order = order_memory_.as<uint32_t>();
    uint32_t* spare_order = order + room_;
    list_candidates(p, sites_, spread_, offsets_memory_.as<int64_t>(), keys, bits, order);
    radix_sort(candidates_, keys, order, spare_keys, spare_order);
    words_ = {keys, spare_keys, reinterpret_cast<int32_t*>(spare_order), 0};
    count_ = merge_candidates(candidates_, order, bits, words_);
  }

  int64_t count() const { return count_; }

  void link(const SparseMapParams& p) const {
    write_out_indices(p, words_, p.out_indices);
    fill_missing(p.neighbours, p.volume * count_);
    if (p.reverse == nullptr) {
      parallel_for(sites_.count, kWordGrain,
                   [&](int64_t begin, int64_t end) { link_piece<false>(p, sites_, begin, end, spread_, words_); });
      return;
    }
    // A piece of sorted sites owns its columns of `reverse`, and fills them while they are near.
    const bool owns_columns = sites_.order == nullptr;
    if (owns_columns) {
      advise_huge_pages(p.reverse, sizeof(int32_t) * static_cast<size_t>(p.volume * p.sites));
    } else {
      fill_missing(p.reverse, p.volume * p.sites);
    }
    parallel_for(sites_.count, kWordGrain, [&](int64_t begin, int64_t end) {
      if (owns_columns) {
        const int64_t first = sites_.words[begin].base;
        const int64_t last = end < sites_.count ? sites_.words[end].base : p.sites;
        for (int64_t k = 0; k < p.volume; ++k) {
          memset(p.reverse + k * p.sites + first, 0xff, sizeof(int32_t) * static_cast<size_t>(last - first));
        }
      }
      link_piece<true>(p, sites_, begin, end, spread_, words_);
    });
  }

 private:
  const SortedSites sites_;
  const Spread spread_;
  const Scratch offsets_memory_;
  const int64_t candidates_;
  const int64_t room_;
  const Scratch keys_memory_, spare_memory_, bits_memory_, order_memory_;
  OutputWords words_;
  int64_t count_;
};

// The map seen from the input.
void reverse_map(const SparseMapParams& p) {
  advise_huge_pages(p.reverse, bytes_of<int32_t>(p.volume, p.sites));
  bool any_beyond = false;
  parallel_for(p.volume, 1, [&](int64_t begin, int64_t end) {
    // One place more, for outputs without neighbour: what depends on the contents is no branch, but where to write.
    const Scratch memory(bytes_of<int32_t>(p.sites + 1));
    int32_t* const line = memory.as<int32_t>();
    const uint32_t nowhere = static_cast<uint32_t>(p.sites);
    bool beyond = false;
    for (int64_t k = begin; k < end; ++k) {
      const int32_t* const neighbours = p.neighbours + k * p.outputs;
      memset(line, 0xff, bytes_of<int32_t>(p.sites + 1));
      int32_t largest = -1;
      for (int64_t m = 0; m < p.outputs; ++m) largest = neighbours[m] > largest ? neighbours[m] : largest;
      beyond |= largest >= p.sites;
#pragma GCC unroll 8
      for (int64_t m = 0; m < p.outputs; ++m) {
        const uint32_t n = static_cast<uint32_t>(neighbours[m]);
        line[n < nowhere ? n : nowhere] = static_cast<int32_t>(m);
      }
      if (p.sites > 0) memcpy(p.reverse + k * p.sites, line, bytes_of<int32_t>(p.sites));
    }
    if (beyond) __atomic_store_n(&any_beyond, true, __ATOMIC_RELAXED);
  });
  if (any_beyond) throw_value_error("neighbours must be below inputs, %lld", static_cast<long long>(p.sites));
}

}  // namespace

void sparse_kernel_map_cpu(const SparseMapParams& p) {
  if (p.step == SparseMapStep::kSubmanifold) return map_submanifold(p, SortedSites(p));
  if (p.step == SparseMapStep::kReverse) return reverse_map(p);
  if (p.step == SparseMapStep::kFind) {
    OutputSites* const found = new OutputSites(p);
    *p.work = {found, [](void* state) { delete static_cast<OutputSites*>(state); }, found->count()};
    return;
  }
  static_cast<const OutputSites*>(p.work->state)->link(p);
}

}  // namespace fastcv::FASTCV_VARIANT

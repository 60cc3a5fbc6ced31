// The kernel map on the CPU. See sparse_kernel_map.h for the meaning, sparse_words_cpu.h for how sites are kept.
//
// Every entry of a map is written by the one pair of sites it stands for, so threads share nothing and the result does
// not depend on them.
//
// Napkin maths, 35 000 surface sites, 3 x 3 x 3: a map of 3.8 MB is written twice (0.4 ms at 20 GB/s). The sites make
// some 12 000 words; a submanifold map compares each with 13 others (5 ns each: 0.8 ms) and visits 9 existing pairs per
// site, half of them by symmetry (160 000 at 3 ns: 0.5 ms).
#include <cstring>

#include "ops/sparse_kernel_map/sparse_words_cpu.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int64_t kWordGrain = 512;
constexpr int64_t kFillGrain = int64_t{1} << 18;  // elements

void fill_missing(int32_t* map, int64_t count) {
  advise_huge_pages(map, sizeof(int32_t) * static_cast<size_t>(count));
  parallel_for(count, kFillGrain, [&](int64_t begin, int64_t end) {
    memset(map + begin, 0xff, sizeof(int32_t) * static_cast<size_t>(end - begin));
  });
}

int64_t kernel_volume(const SparseMapParams& p) {
  return static_cast<int64_t>(p.axes[0].kernel) * p.axes[1].kernel * p.axes[2].kernel;
}

// ---- submanifold ----

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
  const SparseMapOutputs out = p.allocate(p.context, p.sites);
  const int64_t n = p.sites, volume = kernel_volume(p);
  const int32_t ky_count = p.axes[1].kernel, kx_count = p.axes[2].kernel;
  const bool mirrors = volume % 2 == 1;
  fill_missing(out.neighbours, volume * n);
  if (!mirrors) fill_missing(out.reverse, volume * n);
  const int32_t rows = p.axes[0].kernel * ky_count;
  parallel_for(sites.count, kWordGrain, [&](int64_t begin, int64_t end) {
    for (int32_t zy = 0; zy < (mirrors ? rows / 2 + 1 : rows); ++zy) {
      const int32_t kx_end = mirrors && zy == rows / 2 ? kx_count / 2 : kx_count;
      match_rows(p, sites, begin, end, zy / ky_count, zy % ky_count, kx_end,
                 [&](int32_t kx, const Word& word, const Word& other, uint64_t matches, int turn) {
                   const int64_t k = static_cast<int64_t>(zy) * kx_count + kx;
                   int32_t* const there = out.neighbours + k * n;
                   int32_t* const back = mirrors ? out.neighbours + (volume - 1 - k) * n : out.reverse + k * n;
                   for_matches(word, other, matches, turn, [&](int32_t output, int32_t input) {
                     output = sites.row(output);
                     input = sites.row(input);
                     there[output] = input;
                     back[input] = output;
                   });
                 });
    }
  });
  if (!mirrors) return;
  int32_t* const centre = out.neighbours + volume / 2 * n;
  for (int64_t i = 0; i < n; ++i) centre[i] = static_cast<int32_t>(i);
  advise_huge_pages(out.reverse, sizeof(int32_t) * static_cast<size_t>(volume * n));
  parallel_for(volume, 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      memcpy(out.reverse + k * n, out.neighbours + (volume - 1 - k) * n, sizeof(int32_t) * static_cast<size_t>(n));
    }
  });
}

// ---- all others ----

// Calls body(out_z, out_y, kernel row) for the kernel rows that lead somewhere.
template <class Body>
inline void for_rows(const SparseMapParams& p, const Word& word, const Body& body) {
  for (int32_t kz = 0; kz < p.axes[0].kernel; ++kz) {
    int32_t z, y;
    if (!output_coordinate(p.axes[0], p.transposed, word.z, kz, z)) continue;
    for (int32_t ky = 0; ky < p.axes[1].kernel; ++ky) {
      if (output_coordinate(p.axes[1], p.transposed, word.y, ky, y)) body(z, y, kz * p.axes[1].kernel + ky);
    }
  }
}

constexpr int kOpenBlocks = 4;

// Calls body(block, bits) for the output sites along x of a word; a block may come more than once.
template <class Body>
inline void for_blocks(const SparseMapParams& p, const Word& word, const Body& body) {
  constexpr int kOpen = kOpenBlocks;
  int32_t blocks[kOpen] = {};
  uint64_t bits[kOpen] = {};
  int last = 0;
  for (int32_t kx = 0; kx < p.axes[2].kernel; ++kx) {
    for (uint64_t left = word.bits; left != 0; left &= left - 1) {
      int32_t x;
      if (!output_coordinate(p.axes[2], p.transposed, word.block * 64 + __builtin_ctzll(left), kx, x)) continue;
      const uint64_t bit = uint64_t{1} << (x & 63);
      int i = last;
      if (bits[i] == 0 || blocks[i] != x >> 6) {
        for (i = 0; i < kOpen && (bits[i] == 0 || blocks[i] != x >> 6); ++i) {
        }
        if (i == kOpen) {
          for (i = 0; i < kOpen && bits[i] != 0; ++i) {
          }
          if (i == kOpen) {
            i = (last + 1) % kOpen;
            body(blocks[i], bits[i]);
            bits[i] = 0;
          }
          blocks[i] = x >> 6;
        }
        last = i;
      }
      bits[i] |= bit;
    }
  }
  for (int i = 0; i < kOpen; ++i) {
    if (bits[i] != 0) body(blocks[i], bits[i]);
  }
}

// The output sites: parallel arrays of words in ascending order.
struct OutputWords {
  uint64_t* key;
  uint64_t* bits;
  int32_t* base;
  int64_t count;
};

// The output coordinate of the last cell that an input coordinate feeds, or the first; clamped to the axis.
int64_t extreme_output(const SparseAxis& axis, bool transposed, int64_t input, bool last) {
  const int64_t reach = static_cast<int64_t>(axis.kernel - 1) * axis.dilation;
  int64_t value;
  if (transposed) {
    value = input * axis.stride - axis.padding + (last ? reach : 0);
  } else {
    value = input + axis.padding - (last ? 0 : reach);
    value = value < 0 ? -1 : value / axis.stride;
  }
  return value < 0 ? 0 : value < axis.out_size ? value : axis.out_size - 1;
}

// Room for the candidates of each piece of words: as many blocks as lie between the first and the last cell that a
// word feeds (but no more than cells), for each kernel row that leads somewhere.
int64_t bound_candidates(const SparseMapParams& p, const Sites& sites, int64_t* piece_offsets) {
  const SparseAxis& axis = p.axes[2];
  parallel_for(sites.count, kWordGrain, [&](int64_t begin, int64_t end) {
    int64_t total = 0;
    for (int64_t w = begin; w < end; ++w) {
      const Word& word = sites.words[w];
      int64_t rows = 0;
      for_rows(p, word, [&](int32_t, int32_t, int32_t) { ++rows; });
      const int64_t x = static_cast<int64_t>(word.block) * 64;
      const int64_t first = extreme_output(axis, p.transposed, x + __builtin_ctzll(word.bits), false);
      const int64_t last = extreme_output(axis, p.transposed, x + 63 - __builtin_clzll(word.bits), true);
      // for_blocks may list a block again when more than kOpenBlocks are in use.
      const int64_t span = (last >> 6) - (first >> 6) + 1;
      const int64_t cells = static_cast<int64_t>(__builtin_popcountll(word.bits)) * axis.kernel;
      total += rows * (span <= kOpenBlocks && span < cells ? span : cells);
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
  return sum;
}

// What a piece leaves of its room is filled with candidates of no site.
void list_candidates(const SparseMapParams& p, const Sites& sites, const int64_t* piece_offsets, uint64_t* keys,
                     uint64_t* bits, uint32_t* order) {
  parallel_for(sites.count, kWordGrain, [&](int64_t begin, int64_t end) {
    int64_t at = piece_offsets[begin / kWordGrain];
    uint64_t key = 0;
    for (int64_t w = begin; w < end; ++w) {
      const Word& word = sites.words[w];
      for_blocks(p, word, [&](int32_t block, uint64_t block_bits) {
        for_rows(p, word, [&](int32_t z, int32_t y, int32_t) {
          key = output_key(p, word.batch, z, y, 0) / 64 + static_cast<uint64_t>(block);
          keys[at] = key;
          bits[at] = block_bits;
          order[at] = static_cast<uint32_t>(at);
          ++at;
        });
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
    if (outputs >= int64_t{1} << 31) throw_value_error("the convolution has 2^31 or more output sites");
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

// What the sites of one word feed along x.
struct Step {
  int32_t kx;
  int32_t input;   // rank
  uint32_t block;  // of the output word, and the site in it
  int32_t position;
};

int64_t list_steps(const SparseMapParams& p, const Word& word, Step* steps) {
  int64_t count = 0;
  for (int32_t kx = 0; kx < p.axes[2].kernel; ++kx) {
    int32_t input = word.base, x;
    for (uint64_t left = word.bits; left != 0; left &= left - 1, ++input) {
      if (!output_coordinate(p.axes[2], p.transposed, word.block * 64 + __builtin_ctzll(left), kx, x)) continue;
      steps[count++] = {kx, input, static_cast<uint32_t>(x) >> 6, x & 63};
    }
  }
  return count;
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

// Follows each input site through each kernel element; what it feeds is known to be there. Within a kernel row, words
// in ascending order feed words in ascending order, so that a cursor per kernel row is all the search there is.
void link_sites(const SparseMapParams& p, const Sites& sites, const OutputWords& words, int64_t outputs,
                const SparseMapOutputs& out) {
  const int32_t kx_count = p.axes[2].kernel;
  const size_t rows = static_cast<size_t>(p.axes[0].kernel) * static_cast<size_t>(p.axes[1].kernel);
  parallel_for(sites.count, kWordGrain, [&](int64_t begin, int64_t end) {
    const Scratch cursors_memory(rows * sizeof(int64_t));
    const Scratch steps_memory(64 * static_cast<size_t>(kx_count) * sizeof(Step));
    int64_t* const cursors = cursors_memory.as<int64_t>();
    Step* const steps = steps_memory.as<Step>();
    for (size_t row = 0; row < rows; ++row) cursors[row] = -1;
    for (int64_t w = begin; w < end; ++w) {
      const Word& word = sites.words[w];
      const int64_t count = list_steps(p, word, steps);
      if (count == 0) continue;
      uint32_t first_block = steps[0].block;
      for (int64_t i = 1; i < count; ++i) first_block = steps[i].block < first_block ? steps[i].block : first_block;
      for_rows(p, word, [&](int32_t z, int32_t y, int32_t row) {
        const uint64_t base = output_key(p, word.batch, z, y, 0) / 64;
        int64_t cursor = cursors[row] < 0 ? lower_bound(words, base + first_block) : cursors[row];
        while (words.key[cursor] < base + first_block) ++cursor;
        cursors[row] = cursor;
        for (int64_t i = 0; i < count; ++i) {
          const Step step = steps[i];
          const uint64_t key = base + step.block;
          while (words.key[cursor] < key) ++cursor;
          while (words.key[cursor] > key) --cursor;
          const int32_t output = words.base[cursor] + rank_in(words.bits[cursor], step.position);
          const int32_t input_row = sites.row(step.input);
          const int64_t k = static_cast<int64_t>(row) * kx_count + step.kx;
          out.neighbours[k * outputs + output] = input_row;
          out.reverse[k * p.sites + input_row] = output;
        }
      });
    }
  });
}

void map_convolution(const SparseMapParams& p, const Sites& sites) {
  const Scratch offsets_memory(sizeof(int64_t) * static_cast<size_t>(sites.count / kWordGrain + 2));
  int64_t* const piece_offsets = offsets_memory.as<int64_t>();
  const int64_t candidates = bound_candidates(p, sites, piece_offsets);
  if (candidates >= int64_t{1} << 32) throw_value_error("the convolution has too many output sites");
  const size_t room = static_cast<size_t>(candidates) + 1;
  const Scratch keys_memory(room * 8), spare_memory(room * 8), bits_memory(room * 8), order_memory(room * 8);
  uint64_t* keys = keys_memory.as<uint64_t>();
  uint64_t* spare_keys = spare_memory.as<uint64_t>();
  uint64_t* const bits = bits_memory.as<uint64_t>();
  uint32_t* order = order_memory.as<uint32_t>();
  uint32_t* spare_order = order + room;
  list_candidates(p, sites, piece_offsets, keys, bits, order);
  radix_sort(candidates, keys, order, spare_keys, spare_order);
  OutputWords words{keys, spare_keys, reinterpret_cast<int32_t*>(spare_order), 0};
  const int64_t outputs = merge_candidates(candidates, order, bits, words);
  const SparseMapOutputs out = p.allocate(p.context, outputs);
  const int64_t volume = kernel_volume(p);
  write_out_indices(p, words, out.out_indices);
  fill_missing(out.neighbours, volume * outputs);
  fill_missing(out.reverse, volume * p.sites);
  link_sites(p, sites, words, outputs, out);
}

}  // namespace

void sparse_kernel_map_cpu(const SparseMapParams& p) {
  with_sites(p, [&](const Sites& sites) {
    if (p.submanifold) {
      map_submanifold(p, sites);
    } else {
      map_convolution(p, sites);
    }
  });
}

}  // namespace fastcv::FASTCV_VARIANT

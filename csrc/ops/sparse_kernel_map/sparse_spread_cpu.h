// What the sites of a word feed in a convolution that is not submanifold, or in a transposed one: along z and y by a
// short list, along x for whole words at a time.
#pragma once

#include "ops/sparse_kernel_map/sparse_words_cpu.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

// The kernel elements along one axis through which a coordinate feeds something, and what.
struct AxisLinks {
  struct Link {
    int32_t k, output;
  };
  const SparseAxis& axis;
  const bool transposed;
  const Scratch memory;
  Link* const links;
  int64_t count = 0;
  int32_t input = -1;

  AxisLinks(const SparseAxis& of, bool is_transposed)
      : axis(of), transposed(is_transposed), memory(bytes_of<Link>(of.kernel)), links(memory.as<Link>()) {}

  // Words that follow each other mostly have the same coordinates.
  void move_to(int32_t coordinate) {
    if (coordinate == input) return;
    input = coordinate;
    count = 0;
    for (int32_t k = 0; k < axis.kernel; ++k) {
      int32_t output;
      if (output_coordinate(axis, transposed, coordinate, k, output)) links[count++] = {k, output};
    }
  }
};

// What one site feeds along x through one kernel element.
struct Step {
  uint64_t below;  // the bits before that of the output site in its word
  int32_t block;   // of that word
  int32_t kx;
  int32_t input;  // rank
};

// The bits at even places, side by side.
inline uint64_t even_bits(uint64_t bits) {
  bits &= 0x5555555555555555ull;
  bits = (bits | bits >> 1) & 0x3333333333333333ull;
  bits = (bits | bits >> 2) & 0x0f0f0f0f0f0f0f0full;
  bits = (bits | bits >> 4) & 0x00ff00ff00ff00ffull;
  bits = (bits | bits >> 8) & 0x0000ffff0000ffffull;
  return (bits | bits >> 16) & 0x00000000ffffffffull;
}

// Calls body(block, bits) for the output sites of steps; a block may come more than once.
template <class Body>
inline void for_blocks_of(const Step* steps, int32_t count, const Body& body) {
  constexpr int kOpen = 4;
  int32_t blocks[kOpen] = {};
  uint64_t bits[kOpen] = {};
  int last = 0;
  for (int32_t s = 0; s < count; ++s) {
    const int32_t block = steps[s].block;
    int i = last;
    if (bits[i] == 0 || blocks[i] != block) {
      for (i = 0; i < kOpen && (bits[i] == 0 || blocks[i] != block); ++i) {
      }
      if (i == kOpen) {
        for (i = 0; i < kOpen && bits[i] != 0; ++i) {
        }
        if (i == kOpen) {
          i = (last + 1) % kOpen;
          body(blocks[i], bits[i]);
          bits[i] = 0;
        }
        blocks[i] = block;
      }
      last = i;
    }
    bits[i] |= steps[s].below + 1;
  }
  for (int i = 0; i < kOpen; ++i) {
    if (bits[i] != 0) body(blocks[i], bits[i]);
  }
}

// How words spread along x: whole words at a time where the stride is a power of two, the kernel short, and everything
// that the sites of a word could feed lies in the output; else site by site.
//
// Sites whose x has the same remainder by the stride are of one phase, and feed through the same kernel elements.
class Spread {
 public:
  explicit Spread(const SparseMapParams& p)
      : axis_(p.axes[2]),
        transposed_(p.transposed),
        most_(most_outputs(axis_, transposed_)),
        bits_(!transposed_ && axis_.stride_bits <= kMostBits && reach() < 64 ? axis_.stride_bits : -1),
        slots_(most_ > kFewSteps ? most_ : kFewSteps),
        memory_(bytes_of<Element>(slots_, 1 << (bits_ < 0 ? 0 : bits_))),
        elements_(memory_.as<Element>()) {
    for (int phase = 0; phase < phases(); ++phase) {
      Element* const own = elements_ + phase * slots_;
      int32_t count = 0;
      for (int64_t i = 0; i < slots_; ++i) own[i] = {0, 0};
      for (int32_t kx = 0; kx < axis_.kernel; ++kx) {
        const int64_t offset = axis_.padding - static_cast<int64_t>(kx) * axis_.dilation + phase;
        if ((offset & (phases() - 1)) == 0) own[count++] = {offset >> bits_, kx};
      }
      counts_[phase] = count;
    }
  }

  // How many steps there has to be room for.
  int64_t room() const { return 64 * most_ + kFewSteps; }

  // Lists what the sites of a word feed; returns how many steps that takes.
  int32_t list_steps(const Word& word, Step* steps) const {
    int32_t count = 0, input = word.base;
    if (!is_whole(word)) {
      for (uint64_t left = word.bits; left != 0; left &= left - 1, ++input) {
        for (int32_t kx = 0; kx < axis_.kernel; ++kx) {
          int32_t x;
          if (!output_coordinate(axis_, transposed_, word.block * 64 + __builtin_ctzll(left), kx, x)) continue;
          steps[count++] = {(uint64_t{1} << (x & 63)) - 1, x >> 6, kx, input};
        }
      }
      return count;
    }
    const int64_t begin = static_cast<int64_t>(word.block) * 64 >> bits_;
    for (uint64_t left = word.bits; left != 0; left &= left - 1, ++input) {
      const int site = __builtin_ctzll(left), phase = site & (phases() - 1);
      const Element* const own = elements_ + phase * slots_;
      const int64_t place = begin + (site >> bits_);
      // The first steps are written whether there are as many or not: how many cannot be predicted.
      for (int32_t i = 0; i < kFewSteps || i < counts_[phase]; ++i) {
        const int64_t x = place + own[i].place;
        steps[count + i] = {(uint64_t{1} << (x & 63)) - 1, static_cast<int32_t>(x >> 6), own[i].kx, input};
      }
      count += counts_[phase];
    }
    return count;
  }

  // No less than the number of blocks of a word. The steps are room.
  int64_t bound_blocks(const Word& word, Step* steps) const {
    int64_t count = 0;
    if (is_whole(word)) return (highest(word) >> bits_ >> 6) - (lowest(word) >> bits_ >> 6) + 1;
    for_blocks_of(steps, list_steps(word, steps), [&](int32_t, uint64_t) { ++count; });
    return count;
  }

  // Calls body(block, bits) for the output sites along x of a word; a block may come more than once.
  template <class Body>
  void for_blocks(const Word& word, Step* steps, const Body& body) const {
    if (!is_whole(word)) return for_blocks_of(steps, list_steps(word, steps), body);
    const int64_t first_block = (static_cast<int64_t>(word.block) * 64 + axis_.padding - reach()) >> bits_ >> 6;
    const int64_t begin = (static_cast<int64_t>(word.block) * 64 >> bits_) - first_block * 64;
    uint64_t words[kMostWords + 1] = {};
    for (int phase = 0; phase < phases(); ++phase) {
      uint64_t bits = word.bits >> phase;
      for (int32_t halving = 0; halving < bits_; ++halving) bits = even_bits(bits);
      for (int32_t i = 0; i < counts_[phase]; ++i) {
        const int64_t place = begin + elements_[phase * slots_ + i].place;
        words[place >> 6] |= bits << (place & 63);
        words[(place >> 6) + 1] |= bits >> 1 >> (63 - (place & 63));
      }
    }
    for (int i = 0; i < kMostWords; ++i) {
      if (words[i] != 0) body(static_cast<int32_t>(first_block) + i, words[i]);
    }
  }

 private:
  static constexpr int32_t kMostBits = 6;
  static constexpr int kMostWords = 3;  // that one feeds
  static constexpr int64_t kFewSteps = 2;

  struct Element {
    int64_t place;  // of what the site feeds, from its own divided by the stride
    int32_t kx;
  };

  int64_t reach() const { return static_cast<int64_t>(axis_.kernel - 1) * axis_.dilation; }
  int phases() const { return bits_ < 0 ? 0 : 1 << bits_; }
  // Output coordinate times the stride.
  int64_t lowest(const Word& word) const {
    return static_cast<int64_t>(word.block) * 64 + __builtin_ctzll(word.bits) + axis_.padding - reach();
  }
  int64_t highest(const Word& word) const {
    return static_cast<int64_t>(word.block) * 64 + 63 - __builtin_clzll(word.bits) + axis_.padding;
  }
  bool is_whole(const Word& word) const {
    return bits_ >= 0 && lowest(word) >= 0 && highest(word) >> bits_ < axis_.out_size;
  }

  const SparseAxis axis_;
  const bool transposed_;
  const int64_t most_;   // steps of a site
  const int32_t bits_;   // log2 of the stride, or -1: site by site
  const int64_t slots_;  // of a phase in elements_
  const Scratch memory_;
  Element* const elements_;  // [phase][slot]
  int32_t counts_[int64_t{1} << kMostBits];
};

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

// Sparse convolution on the CPU. See sparse_conv.h for the meaning.
//
// Forward: a block of output rows at a time. For each kernel element the rows that have a neighbour are listed, their
// neighbours' features multiplied with that element's weight by the shared micro-kernel, which reads them where they
// lie, and the products added to the rows. An element that no row of the block has costs the look at its map alone.
//
// Weight gradient: a piece of output rows and a kernel element at a time, which share nothing with others. The pairs'
// features and gradients are gathered side by side, and their outer products summed by the same micro-kernel.
//
// Forward of bfloat16, and so the gradient of the features, is multiplied in pairs where bf16_pair_cpu.h has them:
// pairs of channels, for an even number of them read where they lie. The weight gradient always converts to float.
//
// Napkin maths, 35 000 sites with 9 neighbours each, on one core: 64 -> 64 channels are 2.6 GFLOP, 29 ms at 90 GFLOP/s,
// 16 -> 32 0.3 GFLOP; at 4 -> 16 the 315 000 pairs take about 6 cycles each, 0.7 ms, and the look at a map of 3.8 MB
// 0.3 ms.
#include "core/errors.h"
#include "core/gemm_cpu.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "core/simd.h"
#include "ops/sparse_conv/sparse_conv.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int64_t kBlockRows = 192;
constexpr int64_t kPairBlock = 128;
constexpr int64_t kFewChannels = 32;

template <class A>
inline void add_row(const A* source, int64_t count, A* target) {
  for_each_vector<A>(count, [&](auto at) { at.store(target, at.load(target) + at.load(source)); });
}

void throw_beyond(int64_t inputs) {
  throw_value_error("neighbours must be rows of the features, below %lld", static_cast<long long>(inputs));
}

// ---- reading a kernel map ----

// Bit i is set where neighbours[i] is in [0, inputs). `beyond` is set when one is `inputs` or more.
inline uint32_t present(const int32_t* neighbours, int64_t count, int32_t inputs, bool& beyond) {
#if defined(__AVX512F__)
  const __mmask16 all = count >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << count) - 1);
  const __m512i rows = _mm512_maskz_loadu_epi32(all, neighbours);
  const __m512i limit = _mm512_set1_epi32(inputs);
  beyond = beyond || _mm512_mask_cmpge_epi32_mask(all, rows, limit) != 0;
  return _mm512_mask_cmplt_epu32_mask(all, rows, limit);
#else
  uint32_t bits = 0;
  for (int i = 0; i < least(count, 16); ++i) {
    if (neighbours[i] >= inputs) {
      beyond = true;
    } else if (neighbours[i] >= 0) {
      bits |= 1u << i;
    }
  }
  return bits;
#endif
}

// Lists the rows of [0, count) that have a neighbour, and their neighbours. Returns how many. The lists have room for
// kListPadding more than `count`, which may be written.
constexpr int64_t kListPadding = 16;
static_assert(kListPadding >= kRowsPadding);

inline int64_t list_pairs(const int32_t* neighbours, int64_t count, int32_t inputs, int32_t* rows, int32_t* sources,
                          bool& beyond) {
  int64_t listed = 0;
#if defined(__AVX512F__)
  const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i limit = _mm512_set1_epi32(inputs);
  __mmask16 too_large = 0;
  for (int64_t i = 0; i < count; i += 16) {
    // No branch on the contents, which would be mispredicted at every other step.
    const __mmask16 all =
        count - i >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << (count - i)) - 1);
    const __m512i there = _mm512_maskz_loadu_epi32(all, neighbours + i);
    const __mmask16 found = _mm512_mask_cmplt_epu32_mask(all, there, limit);
    too_large = static_cast<__mmask16>(too_large | _mm512_mask_cmpge_epi32_mask(all, there, limit));
    const __m512i row = _mm512_add_epi32(first, _mm512_set1_epi32(static_cast<int>(i)));
    _mm512_storeu_si512(rows + listed, _mm512_maskz_compress_epi32(found, row));
    _mm512_storeu_si512(sources + listed, _mm512_maskz_compress_epi32(found, there));
    listed += __builtin_popcount(found);
  }
  beyond = beyond || too_large != 0;
#else
  for (int64_t i = 0; i < count; i += 16) {
    for (uint32_t left = present(neighbours + i, count - i, inputs, beyond); left != 0; left &= left - 1) {
      const int64_t row = i + __builtin_ctz(left);
      rows[listed] = static_cast<int32_t>(row);
      sources[listed++] = neighbours[row];
    }
  }
#endif
  return listed;
}

// ---- forward ----

// The buffers of one block. E is the type of the factors: that of the sums, or pairs of bfloat16 (bf16_pair_cpu.h).
template <class E>
struct BlockMemory {
  Accumulate<E>* sums;      // [kBlockRows][out_channels, or whole vectors]
  Accumulate<E>* products;  // [kBlockRows][out_channels]
  E* gathered;              // [kBlockRows][depth], where features are not factors as they lie
  const E** pointers;
  int32_t* rows;
  int32_t* sources;
};

// For few channels: adds the products of kRows pairs to their rows of sums, which are kVectors vectors wide. No detour
// over memory, which would take longer than the products.
template <class E, int kRows, int kVectors>
FASTCV_INLINE void add_pairs(const E* const* sources, const int32_t* rows, const E* panel, int64_t depth,
                             Accumulate<E>* sums) {
  using A = Accumulate<E>;
  constexpr int kWidth = kVectors * kLanes<A>;
  Vector<A> sum[kRows][kVectors];
  const E* source[kRows];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
    source[i] = sources[i];
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) sum[i][j] = load(sums + rows[i] * kWidth + j * kLanes<A>);
  }
  for (int64_t d = 0; d < depth; ++d, panel += kWidth) {
    Vector<E> column[kVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) column[j] = load(panel + j * kLanes<A>);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const Vector<E> element = broadcast(source[i][d]);
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) sum[i][j] = multiply_add(element, column[j], sum[i][j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) store(sums + rows[i] * kWidth + j * kLanes<A>, sum[i][j]);
  }
}

template <class E, int kVectors>
void add_all_pairs(const E* const* sources, const int32_t* rows, int64_t pairs, const E* panel, int64_t depth,
                   Accumulate<E>* sums) {
  constexpr int kRows = 4;
  int64_t i = 0;
  for (; i + kRows <= pairs; i += kRows) add_pairs<E, kRows, kVectors>(sources + i, rows + i, panel, depth, sums);
  for (; i < pairs; ++i) add_pairs<E, 1, kVectors>(sources + i, rows + i, panel, depth, sums);
}

// For many channels: all products by the shared micro-kernel, then added to their rows.
template <class E>
void add_by_gemm(const BlockMemory<E>& memory, int64_t pairs, const E* packed, const SparseConvParams& p,
                 Accumulate<E>* sums, int64_t sums_row) {
  for (int64_t i = 0; i < kRowsPadding; ++i) memory.pointers[pairs + i] = memory.pointers[0];
  const int64_t first = 0;
  GemmRows<E> gemm{};
  gemm.a = memory.pointers;
  gemm.a_stride = pairs;
  gemm.packed = packed;
  gemm.b_depth = factors_to_elements<E>(p.in_channels);
  gemm.first = &first;
  gemm.segments = 1;
  gemm.depth = gemm.b_depth;
  gemm.c = memory.products;
  gemm.c_stride = p.out_channels;
  gemm.rows = pairs;
  gemm.columns = p.out_channels;
  gemm_rows(gemm);
  for (int64_t i = 0; i < pairs; ++i) {
    add_row(memory.products + i * p.out_channels, p.out_channels, sums + memory.rows[i] * sums_row);
  }
}

// Features of one site and group as factors: those of the tensor, or a copy in `gathered`.
template <class E, class T>
inline const E* factors_of(const T* source, int64_t channels, E* gathered) {
  if constexpr (kIsPair<E>) {
    if (channels % 2 == 0) return static_cast<const E*>(static_cast<const void*>(source));
    gathered[channels / 2] = E{};
    __builtin_memcpy(gathered, source, channels * sizeof(T));
    return gathered;
  } else if constexpr (sizeof(T) == sizeof(E)) {
    return source;
  } else {
    convert_run(source, channels, gathered);
    return gathered;
  }
}

template <class E, class T>
void convolve_block(const SparseConvParams& p, int64_t group, const E* packed, int64_t element_size, int64_t begin,
                    int64_t count, const BlockMemory<E>& memory, bool& beyond) {
  using A = Accumulate<E>;
  const int64_t depth = factors_to_elements<E>(p.in_channels);
  const int64_t in_row = p.groups * p.in_channels, out_row = p.groups * p.out_channels;
  const int64_t vectors = ceil_div(p.out_channels, kLanes<A>);
  const bool few = p.in_channels <= kFewChannels && vectors <= 2;
  const int64_t sums_row = few ? vectors * kLanes<A> : p.out_channels;
  const T* const input = static_cast<const T*>(p.input) + group * p.in_channels;
  T* const output = static_cast<T*>(p.output) + begin * out_row + group * p.out_channels;
  const T* const bias = p.bias == nullptr ? nullptr : static_cast<const T*>(p.bias) + group * p.out_channels;
  A* const sums = memory.sums;
  for (int64_t c = 0; c < sums_row; ++c) sums[c] = bias == nullptr || c >= p.out_channels ? A(0) : A(to_float(bias[c]));
  for (int64_t m = 1; m < count; ++m) convert_run(sums, sums_row, sums + m * sums_row);
  for (int64_t k = 0; k < p.volume; ++k) {
    const int64_t pairs = list_pairs(p.neighbours + k * p.outputs + begin, count, static_cast<int32_t>(p.inputs),
                                     memory.rows, memory.sources, beyond);
    if (pairs == 0) continue;
    for (int64_t i = 0; i < pairs; ++i) {
      const T* source = input + memory.sources[i] * in_row;
      memory.pointers[i] = factors_of(source, p.in_channels, memory.gathered + i * depth);
    }
    const E* const panel = packed + k * element_size;
    if (!few) {
      add_by_gemm(memory, pairs, panel, p, sums, sums_row);
    } else if (vectors == 1) {
      add_all_pairs<E, 1>(memory.pointers, memory.rows, pairs, panel, depth, sums);
    } else {
      add_all_pairs<E, 2>(memory.pointers, memory.rows, pairs, panel, depth, sums);
    }
  }
  for (int64_t m = 0; m < count; ++m) {
    convert_run(sums + m * sums_row, p.out_channels, output + m * out_row);
  }
}

template <class E, class T>
void convolve(const SparseConvParams& p) {
  using A = Accumulate<E>;
  const int64_t depth = factors_to_elements<E>(p.in_channels);
  const int64_t element_size = packed_size<E>(depth, p.out_channels);
  const Scratch packed_memory(bytes_of<E>(p.groups, p.volume, element_size));
  E* const packed = packed_memory.as<E>();
  const T* const weight = static_cast<const T*>(p.weight);
  const int64_t pack_grain = 4096 / (p.in_channels * p.out_channels + 1) + 1;
  parallel_for(p.groups * p.volume, pack_grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      pack_panels(weight + i / p.volume * p.group_stride + i % p.volume * p.element_stride, p.in_stride, p.out_stride,
                  p.in_channels, p.out_channels, packed + i * element_size);
    }
  });
  advise_huge_pages(p.output, sizeof(T) * static_cast<size_t>(p.outputs * p.groups * p.out_channels));
  bool any_beyond = false;
  parallel_for(p.outputs, kBlockRows, [&](int64_t begin, int64_t end) {
    const int64_t wide = p.out_channels + kLanes<A>;
    const Scratch values(bytes_of<A>(2, kBlockRows, wide));
    const Scratch gathered(sizeof(T) == sizeof(E) ? 0 : bytes_of<E>(kBlockRows, depth));
    const Scratch lists(bytes_of<E*>(kBlockRows + kListPadding) + bytes_of<int32_t>(2, kBlockRows + kListPadding));
    BlockMemory<E> memory{};
    memory.sums = values.as<A>();
    memory.products = memory.sums + kBlockRows * wide;
    memory.gathered = gathered.as<E>();
    memory.pointers = lists.as<const E*>();
    memory.rows = reinterpret_cast<int32_t*>(memory.pointers + kBlockRows + kListPadding);
    memory.sources = memory.rows + kBlockRows + kListPadding;
    bool beyond = false;
    for (int64_t group = 0; group < p.groups; ++group) {
      convolve_block<E, T>(p, group, packed + group * p.volume * element_size, element_size, begin, end - begin, memory,
                           beyond);
    }
    if (beyond) __atomic_store_n(&any_beyond, true, __ATOMIC_RELAXED);
  });
  if (any_beyond) throw_beyond(p.inputs);
}

// ---- weight gradient ----

// Sums the outer products of `pairs` gathered rows into [in_channels][out_width].
template <class A>
void add_products(const A* inputs, const A* gradients, int64_t pairs, int64_t in_channels, int64_t out_width, A* sums) {
  for (int64_t first = 0; first < in_channels; first += kPixelRows) {
    const A* const a[1] = {inputs + first * kPairBlock};
    const int64_t rows = least(in_channels - first, kPixelRows);
    A* const target = sums + first * out_width;
    for (int64_t c = 0; c < out_width;) {
      const int64_t left = (out_width - c) / kLanes<A>;
      const A* const b[1] = {gradients + c};
      int64_t vectors = left == 4 ? 2 : least(left, 3);
      const int64_t columns = vectors * kLanes<A>;
      gemm_pixels<A>(a, kPixelRows, b, out_width, 1, pairs, target + c, out_width, rows, columns, GemmStart::kTile);
      c += columns;
    }
  }
}

template <class T>
void weight_gradient(const SparseConvWeightParams& p) {
  using A = Accumulate<T>;
  const int64_t in_row = p.groups * p.in_channels, out_row = p.groups * p.out_channels;
  const int64_t out_width = round_up(p.out_channels, kLanes<A>);
  const int64_t in_blocks = ceil_div(p.in_channels, kPixelRows);
  const int64_t size = p.in_channels * out_width, pieces = weight_gradient_pieces(p.outputs);
  const int64_t piece_rows = ceil_div(p.outputs, pieces);
  const int64_t tasks = p.groups * p.volume;
  const Scratch sums_memory(bytes_of<A>(p.groups, p.volume, pieces, p.in_channels, out_width));
  A* const all_sums = sums_memory.as<A>();
  bool any_beyond = false;
  parallel_for(tasks * pieces, 1, [&](int64_t task_begin, int64_t task_end) {
    const Scratch values(bytes_of<A>(kPairBlock, in_blocks * kPixelRows + out_width));
    A* const inputs = values.as<A>();
    A* const gradients = inputs + kPairBlock * in_blocks * kPixelRows;
    for (int64_t task = task_begin; task < task_end; ++task) {
      const int64_t piece = task % pieces, k = task / pieces % p.volume, group = task / pieces / p.volume;
      const T* const input = static_cast<const T*>(p.input) + group * p.in_channels;
      const T* const gradient = static_cast<const T*>(p.grad_output) + group * p.out_channels;
      const int32_t* const neighbours = p.neighbours + k * p.outputs;
      A* const sums = all_sums + task * size;
      for (int64_t i = 0; i < size; ++i) sums[i] = A(0);
      bool beyond = false;
      int64_t pairs = 0;
      const int64_t end = (piece + 1) * piece_rows < p.outputs ? (piece + 1) * piece_rows : p.outputs;
      for (int64_t begin = piece * piece_rows; begin < end; begin += 16) {
        uint32_t left = present(neighbours + begin, end - begin, static_cast<int32_t>(p.inputs), beyond);
        for (; left != 0; left &= left - 1) {
          const int64_t m = begin + __builtin_ctz(left);
          const T* const source = input + neighbours[m] * in_row;
          for (int64_t block = 0; block < in_blocks; ++block) {
            A* const target = inputs + block * kPairBlock * kPixelRows + pairs * kPixelRows;
            const int64_t channels = p.in_channels - block * kPixelRows;
            for (int64_t c = 0; c < kPixelRows; ++c) {
              target[c] = c < channels ? A(to_float(source[block * kPixelRows + c])) : A(0);
            }
          }
          A* const there = gradients + pairs * out_width;
          convert_run(gradient + m * out_row, p.out_channels, there);
          for (int64_t c = p.out_channels; c < out_width; ++c) there[c] = A(0);
          if (++pairs < kPairBlock) continue;
          add_products(inputs, gradients, pairs, p.in_channels, out_width, sums);
          pairs = 0;
        }
      }
      if (pairs > 0) add_products(inputs, gradients, pairs, p.in_channels, out_width, sums);
      if (beyond) __atomic_store_n(&any_beyond, true, __ATOMIC_RELAXED);
    }
  });
  if (any_beyond) throw_beyond(p.inputs);
  parallel_for(tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t k = task % p.volume, group = task / p.volume;
      A* const sums = all_sums + task * pieces * size;
      for (int64_t piece = 1; piece < pieces; ++piece) add_row(sums + piece * size, size, sums);
      for (int64_t o = 0; o < p.out_channels; ++o) {
        T* const target =
            static_cast<T*>(p.grad_weight) + ((group * p.out_channels + o) * p.volume + k) * p.in_channels;
        for (int64_t i = 0; i < p.in_channels; ++i) target[i] = from_float<T>(sums[i * out_width + o]);
      }
    }
  });
}

}  // namespace

void sparse_conv_cpu(const SparseConvParams& params) {
  dispatch_factors(params.dtype, [&](auto factor, auto tag) {
    convolve<typename decltype(factor)::type, typename decltype(tag)::type>(params);
  });
}

void sparse_conv_weight_cpu(const SparseConvWeightParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { weight_gradient<typename decltype(tag)::type>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

// Sparse convolution on the CPU. See sparse_conv.h for the meaning.
//
// Forward: a block of output rows at a time. For each kernel element the rows that have a neighbour are listed, their
// neighbours' features multiplied with that element's weight where they lie, and the products added to the rows. An element
// that no row of the block has costs the look at its map alone. (sparse_pairs_cpu.h)
//
// Weight gradient: a piece of output rows and a kernel element at a time, which share nothing with others. The pairs'
// features and gradients are gathered side by side, and their outer products summed by the micro-kernel of gemm_cpu.h.
//
// Forward of bfloat16, and so the gradient of the features, is multiplied in pairs where bf16_pair_cpu.h has them:
// pairs of channels, for an even number of them read where they lie. The weight gradient always converts to float.
//
// Napkin maths, 35 000 sites with 9 neighbours each, on one core: 64 -> 64 channels are 2.6 GFLOP, 29 ms at 90 GFLOP/s,
// 16 -> 32 0.3 GFLOP; at 4 -> 16 the 315 000 pairs take about 6 cycles each, 0.7 ms, and the look at a map of 3.8 MB
// 0.3 ms.
#include "core/epilogue_cpu.h"
#include "core/errors.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "core/simd.h"
#include "ops/sparse_conv/sparse_conv.h"
#include "ops/sparse_conv/sparse_pairs_cpu.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int64_t kBlockRows = 192;
constexpr int64_t kPairBlock = 128;

template <class A>
inline void add_row(const A* source, int64_t count, A* target) {
  for_each_vector<A>(count, [&](auto at) { at.store(target, at.load(target) + at.load(source)); });
}

void throw_beyond(int64_t inputs) {
  throw_value_error("neighbours must be rows of the features, below %lld", static_cast<long long>(inputs));
}

// ---- forward ----

// The buffers of one block. E is the type of the factors: that of the sums, or pairs of bfloat16 (bf16_pair_cpu.h).
template <class E>
struct BlockMemory {
  Accumulate<E>* sums;  // [kBlockRows + 1][out_channels in whole vectors]; the last takes what nobody wants
  E* gathered;          // [kBlockRows][depth], where features are not factors as they lie
  const E** pointers;
  int32_t* rows;
  int32_t* sources;
};

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

// The same for many sites.
template <class E, class T>
inline void find_factors(const T* input, int64_t in_row, const int32_t* sources, int64_t pairs, int64_t channels,
                         int64_t depth, E* gathered, const E** pointers) {
  if constexpr (sizeof(T) == sizeof(E)) {
    for (int64_t i = 0; i < pairs; ++i) pointers[i] = input + sources[i] * in_row;
  } else {
    for (int64_t i = 0; i < pairs; ++i) {
      pointers[i] = factors_of(input + sources[i] * in_row, channels, gathered + i * depth);
    }
  }
}

// The sums as results, in the dtype and the place of the output.
template <class T>
void finish_block(const SparseConvInferenceParams& params, int64_t group, const Accumulate<T>* sums, int64_t sums_row,
                  int64_t begin, int64_t count) {
  const SparseConvParams& p = params.conv;
  const int64_t out_row = p.groups * p.out_channels, first = begin * out_row + group * p.out_channels;
  T* const output = static_cast<T*>(p.output) + first;
  if (params.residual == nullptr && params.activation == Activation::kNone) {
    for (int64_t m = 0; m < count; ++m) convert_run(sums + m * sums_row, p.out_channels, output + m * out_row);
    return;
  }
  const T* const residual = params.residual == nullptr ? nullptr : static_cast<const T*>(params.residual) + first;
  const Epilogue<Accumulate<T>> epilogue{params.activation, static_cast<Accumulate<T>>(params.negative_slope)};
  finish_rows(sums, sums_row, residual, output, out_row, count, p.out_channels, epilogue);
}

template <class E, class T>
void convolve_block(const SparseConvInferenceParams& params, int64_t group, const E* packed, int64_t element_size,
                    int64_t begin, int64_t count, const BlockMemory<E>& memory, bool& beyond) {
  const SparseConvParams& p = params.conv;
  using A = Accumulate<E>;
  const int64_t depth = factors_to_elements<E>(p.in_channels), in_row = p.groups * p.in_channels;
  const int64_t sums_row = round_up(p.out_channels, kLanes<A>), parts = sparse_conv_parts(params);
  const T* const bias = p.bias == nullptr ? nullptr : static_cast<const T*>(p.bias) + group * p.out_channels;
  A* const sums = memory.sums;
  for (int64_t c = 0; c < sums_row; ++c) sums[c] = bias == nullptr || c >= p.out_channels ? A(0) : A(to_float(bias[c]));
  for (int64_t m = 1; m <= count; ++m) convert_run(sums, sums_row, sums + m * sums_row);
  for (int64_t k = 0; k < p.volume; ++k) {
    const int64_t pairs = list_pairs(p.neighbours + k * p.outputs + begin, count, static_cast<int32_t>(p.inputs),
                                     memory.rows, memory.sources, beyond);
    if (pairs == 0) continue;
    for (int64_t i = pairs; i < pairs + kTilePadding; ++i) memory.rows[i] = static_cast<int32_t>(count);
    for (int64_t part = 0; part < parts; ++part) {
      const T* const input = static_cast<const T*>(part == 0 ? p.input : params.beside) + group * p.in_channels;
      find_factors<E>(input, in_row, memory.sources, pairs, p.in_channels, depth, memory.gathered, memory.pointers);
      for (int64_t i = pairs; i < pairs + kTilePadding; ++i) memory.pointers[i] = memory.pointers[0];
      add_all_pairs(memory.pointers, memory.rows, pairs, packed + (k * parts + part) * element_size, depth,
                    p.out_channels, sums, sums_row);
    }
  }
  finish_block<T>(params, group, sums, sums_row, begin, count);
}

// The weight as the kernel reads it: panels for each group, kernel element and part of the input channels.
template <class E, class T>
void pack_weight(const SparseConvInferenceParams& params, E* packed) {
  const SparseConvParams& p = params.conv;
  const int64_t parts = sparse_conv_parts(params);
  const int64_t element_size = packed_size<E>(factors_to_elements<E>(p.in_channels), p.out_channels);
  const T* const weight = static_cast<const T*>(p.weight);
  const int64_t grain = 4096 / (p.in_channels * p.out_channels + 1) + 1;
  parallel_for(p.groups * p.volume * parts, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t part = i % parts, k = i / parts % p.volume, group = i / parts / p.volume;
      const T* const source =
          weight + group * p.group_stride + k * p.element_stride + part * p.in_channels * p.in_stride;
      pack_panels(source, p.in_stride, p.out_stride, p.in_channels, p.out_channels, packed + i * element_size);
    }
  });
}

template <class E, class T>
void convolve(const SparseConvInferenceParams& params) {
  const SparseConvParams& p = params.conv;
  using A = Accumulate<E>;
  const int64_t depth = factors_to_elements<E>(p.in_channels);
  const int64_t element_size = packed_size<E>(depth, p.out_channels), group_size = p.volume * sparse_conv_parts(params);
  const Scratch packed_memory(params.packed != nullptr ? 0 : bytes_of<E>(p.groups, group_size, element_size));
  if (params.packed == nullptr) pack_weight<E, T>(params, packed_memory.as<E>());
  const E* const packed = params.packed != nullptr ? static_cast<const E*>(params.packed) : packed_memory.as<E>();
  advise_huge_pages(p.output, sizeof(T) * static_cast<size_t>(p.outputs * p.groups * p.out_channels));
  bool any_beyond = false;
  parallel_for(p.outputs, kBlockRows, [&](int64_t begin, int64_t end) {
    const Scratch sums(bytes_of<A>(kBlockRows + 1, round_up(p.out_channels, kLanes<A>)));
    const Scratch gathered(sizeof(T) == sizeof(E) ? 0 : bytes_of<E>(kBlockRows, depth));
    const Scratch lists(bytes_of<E*>(kBlockRows + kListPadding) + bytes_of<int32_t>(2, kBlockRows + kListPadding));
    BlockMemory<E> memory{};
    memory.sums = sums.as<A>();
    memory.gathered = gathered.as<E>();
    memory.pointers = lists.as<const E*>();
    memory.rows = reinterpret_cast<int32_t*>(memory.pointers + kBlockRows + kListPadding);
    memory.sources = memory.rows + kBlockRows + kListPadding;
    bool beyond = false;
    for (int64_t group = 0; group < p.groups; ++group) {
      convolve_block<E, T>(params, group, packed + group * group_size * element_size, element_size, begin, end - begin,
                           memory, beyond);
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
  sparse_conv_inference_cpu({params, nullptr, nullptr, nullptr, Activation::kNone, 0});
}

void sparse_conv_inference_cpu(const SparseConvInferenceParams& params) {
  dispatch_factors(params.conv.dtype, [&](auto factor, auto tag) {
    convolve<typename decltype(factor)::type, typename decltype(tag)::type>(params);
  });
}

void sparse_conv_pack_cpu(const SparseConvInferenceParams& params) {
  dispatch_factors(params.conv.dtype, [&](auto factor, auto tag) {
    using E = typename decltype(factor)::type;
    pack_weight<E, typename decltype(tag)::type>(params, static_cast<E*>(params.conv.output));
  });
}

void sparse_conv_weight_cpu(const SparseConvWeightParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { weight_gradient<typename decltype(tag)::type>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

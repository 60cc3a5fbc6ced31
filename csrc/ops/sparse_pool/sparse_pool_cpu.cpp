// Sparse pooling on the CPU. See sparse_pool.h for the meaning.
//
// A row of the result first lists its neighbours (most of the K places are empty: of 27, a sparse surface fills two or
// three with stride 2, about eight with stride 1), then walks the list for a few vectors of channels at a time, which
// stay in registers.
//
// Napkin maths, 3x3x3 stride 2, 35 000 -> 54 000 sites, 16 channels, float32: the map is 5.8 MB, each feature row is
// read 3.4 times (7.5 MB, from L2), 3.4 MB are written, 2 ms into fresh memory at 2 GB/s; 1.5 million places are looked
// at, at a cycle and a half each 0.8 ms. So the fresh output is what binds.
#include "core/errors.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "core/simd.h"
#include "ops/sparse_pool/sparse_pool.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int64_t kRowsPerPiece = 128;

// As many int32 as a vector of A has lanes.
template <class A>
struct IndicesOf {
  typedef int32_t type __attribute__((vector_size(kVectorBytes / sizeof(A) * sizeof(int32_t))));
};
template <class A>
using Indices = typename IndicesOf<A>::type;

template <class A>
inline Indices<A> load_indices(const int32_t* source) {
  Indices<A> value;
  __builtin_memcpy(&value, source, sizeof(value));
  return value;
}

// Calls body(row, list, count) for each row of the result, with the source rows that the map names, in order.
template <class Body>
void for_each_row(const SparsePoolParams& p, const Body& body) {
  int beyond = 0;
  parallel_for(p.targets, kRowsPerPiece, [&](int64_t begin, int64_t end) {
    const Scratch memory(bytes_of<int32_t>(p.volume + 1));
    int32_t* list = memory.as<int32_t>();
    const uint32_t sources = static_cast<uint32_t>(p.sources);
    bool wrong = false;
    for (int64_t row = begin; row < end; ++row) {
      int64_t count = 0;
      for (int64_t k = 0; k < p.volume; ++k) {
        const int32_t source = p.map[k * p.targets + row];
        list[count] = source;
        count += static_cast<uint32_t>(source) < sources;
        wrong |= source >= p.sources;
      }
      body(row, list, count);
    }
    if (wrong) __atomic_store_n(&beyond, 1, __ATOMIC_RELAXED);
  });
  if (beyond != 0) {
    throw_value_error("the kernel map must name rows below %lld, but names one beyond",
                      static_cast<long long>(p.sources));
  }
}

template <int kCount>
struct Count {
  static constexpr int value = kCount;
};

// Calls wide(channel, vectors) for groups of channels: four vectors where that many are left, then single ones, the
// last of which may overlap the one before; narrow(channel) for each channel where not even one vector fits.
template <class A, class Wide, class Narrow>
FASTCV_INLINE void for_each_channel(int64_t channels, const Wide& wide, const Narrow& narrow) {
  constexpr int64_t kWidth = kLanes<A>;
  int64_t c = 0;
  if (channels < kWidth) {
    for (; c < channels; ++c) narrow(c);
    return;
  }
  for (; c + 4 * kWidth <= channels; c += 4 * kWidth) wide(c, Count<4>{});
  for (; c + kWidth <= channels; c += kWidth) wide(c, Count<1>{});
  if (c < channels) wide(channels - kWidth, Count<1>{});
}

template <class T, bool kArgmax>
void max_forward(const SparsePoolParams& p) {
  using A = Accumulate<T>;
  advise_huge_pages(p.target, p.targets * p.channels * sizeof(T));
  if (kArgmax) advise_huge_pages(p.argmax, p.targets * p.channels * sizeof(int32_t));
  const T* source = static_cast<const T*>(p.source);
  for_each_row(p, [&](int64_t row, const int32_t* list, int64_t count) {
    T* target = static_cast<T*>(p.target) + row * p.channels;
    int32_t* argmax = kArgmax ? p.argmax + row * p.channels : nullptr;
    if (count == 0 && p.channels > 0) {  // without channels the pointers may be null
      __builtin_memset(target, 0, p.channels * sizeof(T));
      if (kArgmax) __builtin_memset(argmax, 0xff, p.channels * sizeof(int32_t));
      return;
    }
    for_each_channel<A>(
        p.channels,
        [&](int64_t c, auto width) {
          constexpr int kCount = decltype(width)::value;
          Vector<A> largest[kCount];
          IntegerVector<A> where[kCount];
          for (int v = 0; v < kCount; ++v) {
            largest[v] = load(source + list[0] * p.channels + c + v * kLanes<A>);
            where[v] = IntegerVector<A>{} + list[0];
          }
          for (int64_t i = 1; i < count; ++i) {
            const T* from = source + list[i] * p.channels + c;
            for (int v = 0; v < kCount; ++v) {
              const Vector<A> value = load(from + v * kLanes<A>);
              const IntegerVector<A> larger = ~(value <= largest[v]) & (largest[v] == largest[v]);  // is_larger
              largest[v] = larger ? value : largest[v];
              if (kArgmax) where[v] = larger ? IntegerVector<A>{} + list[i] : where[v];
            }
          }
          for (int v = 0; v < kCount; ++v) {
            store(target + c + v * kLanes<A>, largest[v]);
            if (!kArgmax) continue;
            const Indices<A> narrow = __builtin_convertvector(where[v], Indices<A>);
            __builtin_memcpy(argmax + c + v * kLanes<A>, &narrow, sizeof(narrow));
          }
        },
        [&](int64_t c) {
          A largest = to_float(source[list[0] * p.channels + c]);
          int32_t where = list[0];
          for (int64_t i = 1; i < count; ++i) {
            const A value = to_float(source[list[i] * p.channels + c]);
            if (!is_larger(value, largest)) continue;
            largest = value;
            where = list[i];
          }
          target[c] = from_float<T>(largest);
          if (kArgmax) argmax[c] = where;
        });
  });
}

// Row n of grad_features takes the gradient of those values whose argmax it is.
template <class T>
void max_backward(const SparsePoolParams& p) {
  using A = Accumulate<T>;
  advise_huge_pages(p.target, p.targets * p.channels * sizeof(T));
  const T* source = static_cast<const T*>(p.source);
  for_each_row(p, [&](int64_t row, const int32_t* list, int64_t count) {
    T* target = static_cast<T*>(p.target) + row * p.channels;
    for_each_channel<A>(
        p.channels,
        [&](int64_t c, auto width) {
          constexpr int kCount = decltype(width)::value;
          Vector<A> sum[kCount] = {};
          for (int64_t i = 0; i < count; ++i) {
            const int64_t offset = list[i] * p.channels + c;
            for (int v = 0; v < kCount; ++v) {
              const Indices<A> from = load_indices<A>(p.argmax + offset + v * kLanes<A>);
              const auto mine = __builtin_convertvector(from == static_cast<int32_t>(row), IntegerVector<A>);
              sum[v] += mine ? load(source + offset + v * kLanes<A>) : Vector<A>{};
            }
          }
          for (int v = 0; v < kCount; ++v) store(target + c + v * kLanes<A>, sum[v]);
        },
        [&](int64_t c) {
          A sum = 0;
          for (int64_t i = 0; i < count; ++i) {
            const int64_t offset = list[i] * p.channels + c;
            if (p.argmax[offset] == row) sum += to_float(source[offset]);
          }
          target[c] = from_float<T>(sum);
        });
  });
}

// Sums rows of the source, each divided by divide_source(row), and divides the sum by divide_sum(count).
template <class T, class DivideSource, class DivideSum>
void add_rows(const SparsePoolParams& p, const DivideSource& divide_source, const DivideSum& divide_sum) {
  using A = Accumulate<T>;
  advise_huge_pages(p.target, p.targets * p.channels * sizeof(T));
  const T* source = static_cast<const T*>(p.source);
  for_each_row(p, [&](int64_t row, const int32_t* list, int64_t count) {
    T* target = static_cast<T*>(p.target) + row * p.channels;
    for_each_channel<A>(
        p.channels,
        [&](int64_t c, auto width) {
          constexpr int kCount = decltype(width)::value;
          Vector<A> sum[kCount] = {};
          for (int64_t i = 0; i < count; ++i) {
            const T* from = source + list[i] * p.channels + c;
            for (int v = 0; v < kCount; ++v) sum[v] += divide_source(load(from + v * kLanes<A>), list[i]);
          }
          for (int v = 0; v < kCount; ++v) store(target + c + v * kLanes<A>, divide_sum(sum[v], count));
        },
        [&](int64_t c) {
          A sum = 0;
          for (int64_t i = 0; i < count; ++i) {
            sum += divide_source(static_cast<A>(to_float(source[list[i] * p.channels + c])), list[i]);
          }
          target[c] = from_float<T>(divide_sum(sum, count));
        });
  });
}

template <class T>
void avg_forward(const SparsePoolParams& p) {
  using A = Accumulate<T>;
  add_rows<T>(
      p, [](auto value, int32_t) { return value; },
      [&](auto sum, int64_t count) {
        if (p.count_missing) return sum / static_cast<A>(p.volume > 0 ? p.volume : 1);
        return sum / static_cast<A>(count > 0 ? count : 1);
      });
}

template <class T>
void avg_backward(const SparsePoolParams& p) {
  using A = Accumulate<T>;
  if (p.count_missing) {
    const A divisor = static_cast<A>(p.count_volume > 0 ? p.count_volume : 1);
    add_rows<T>(p, [&](auto value, int32_t) { return value / divisor; }, [](auto sum, int64_t) { return sum; });
    return;
  }
  parallel_for(p.sources, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) p.counts[row] = 0;
    for (int64_t k = 0; k < p.count_volume; ++k) {
      const int32_t* rows = p.neighbours + k * p.sources;
      for (int64_t row = begin; row < end; ++row) p.counts[row] += rows[row] >= 0;
    }
  });
  add_rows<T>(
      p, [&](auto value, int32_t row) { return value / static_cast<A>(p.counts[row] > 0 ? p.counts[row] : 1); },
      [](auto sum, int64_t) { return sum; });
}

}  // namespace

void sparse_max_pool_forward_cpu(const SparsePoolParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    params.argmax == nullptr ? max_forward<T, false>(params) : max_forward<T, true>(params);
  });
}

void sparse_max_pool_backward_cpu(const SparsePoolParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { max_backward<typename decltype(tag)::type>(params); });
}

void sparse_avg_pool_forward_cpu(const SparsePoolParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { avg_forward<typename decltype(tag)::type>(params); });
}

void sparse_avg_pool_backward_cpu(const SparsePoolParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { avg_backward<typename decltype(tag)::type>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

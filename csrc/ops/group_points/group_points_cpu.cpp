// Grouping on the CPU. Bound by memory: rows are copied, or summed a vector of channels at a time.
//
// Backward bins the entries by the row they took: a counting sort per cloud, which keeps their order. Each row is then
// summed by itself, so threads never meet.
//
// Napkin maths, 8 x 2048 x 32 groups of 64 channels, float32: 134 MB are written and as many read from the caches; at
// the 4 GB/s of fresh memory (huge pages, two cores) 33 ms.
#include "core/errors.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "core/simd.h"
#include "ops/group_points/group_points.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int64_t kElementsPerTask = 1 << 16;

void check_indices(const GroupPointsParams& p) {
  const int64_t entries = p.batch * p.groups * p.terms;
  bool wrong = false;
  for (int64_t e = 0; e < entries; ++e) {
    wrong |= static_cast<uint64_t>(p.indices[e]) + 1 > static_cast<uint64_t>(p.count);
  }
  for (int64_t e = 0; wrong && e < entries; ++e) {
    if (p.indices[e] >= -1 && p.indices[e] < p.count) continue;
    throw_value_error("indices must be between -1 and %lld, the number of points less one, got %lld",
                      static_cast<long long>(p.count) - 1, static_cast<long long>(p.indices[e]));
  }
}

int64_t rows_per_task(int64_t channels) {
  return kElementsPerTask / (channels + 1) + 1;
}

// Adds weight * source to `sum`.
template <class T, class A>
void add_row(const T* source, A weight, A* sum, int64_t channels) {
  for_each_vector<A>(
      channels, [&](auto at) { at.store(sum, multiply_add(at.broadcast(weight), at.load(source), at.load(sum))); });
}

template <class T>
void forward(const GroupPointsParams& p) {
  using A = Accumulate<T>;
  const T* features = static_cast<const T*>(p.features);
  const A* weights = static_cast<const A*>(p.weights);
  const size_t row_bytes = static_cast<size_t>(p.channels) * sizeof(T);
  if (row_bytes == 0) return;  // the pointers may be null
  advise_huge_pages(p.grouped, static_cast<size_t>(p.batch * p.groups) * row_bytes);
  parallel_for(p.batch * p.groups, rows_per_task(p.channels * p.terms), [&](int64_t begin, int64_t end) {
    const Scratch memory(bytes_of<A>(p.channels));
    A* sum = memory.as<A>();
    for (int64_t row = begin; row < end; ++row) {
      const T* cloud = features + row / p.groups * p.count * p.channels;
      T* target = static_cast<T*>(p.grouped) + row * p.channels;
      const int64_t* indices = p.indices + row * p.terms;
      if (weights == nullptr && p.terms == 1) {
        if (indices[0] >= 0) {
          __builtin_memcpy(target, cloud + indices[0] * p.channels, row_bytes);
        } else {
          __builtin_memset(target, 0, row_bytes);
        }
        continue;
      }
      for (int64_t c = 0; c < p.channels; ++c) sum[c] = 0;
      for (int64_t j = 0; j < p.terms; ++j) {
        if (indices[j] < 0) continue;
        add_row(cloud + indices[j] * p.channels, weights != nullptr ? weights[row * p.terms + j] : A(1), sum,
                p.channels);
      }
      convert_run(sum, p.channels, target);
    }
  });
}

// The entries of one cloud by the row they took: those of row n are entries[first[n]] .. entries[first[n + 1] - 1].
void bin_entries(const int64_t* indices, int64_t count, int64_t entry_count, uint32_t* first, uint32_t* entries) {
  for (int64_t n = 0; n <= count; ++n) first[n] = 0;
  for (int64_t e = 0; e < entry_count; ++e) {
    if (indices[e] >= 0) ++first[indices[e]];
  }
  uint32_t sum = 0;
  for (int64_t n = 0; n <= count; ++n) {
    sum += first[n];
    first[n] = sum;  // the end of row n; filling from the back leaves its beginning
  }
  for (int64_t e = entry_count - 1; e >= 0; --e) {
    if (indices[e] >= 0) entries[--first[indices[e]]] = static_cast<uint32_t>(e);
  }
}

template <class T>
void backward(const GroupPointsParams& p) {
  using A = Accumulate<T>;
  const int64_t entry_count = p.groups * p.terms;
  const Scratch first_memory(bytes_of<uint32_t>(p.batch, p.count + 1));
  const Scratch entry_memory(bytes_of<uint32_t>(p.batch, p.groups, p.terms));
  uint32_t *all_first = first_memory.as<uint32_t>(), *all_entries = entry_memory.as<uint32_t>();
  parallel_for(p.batch, 1, [&](int64_t b, int64_t) {
    bin_entries(p.indices + b * entry_count, p.count, entry_count, all_first + b * (p.count + 1),
                all_entries + b * entry_count);
  });
  const uint32_t terms = static_cast<uint32_t>(p.terms);
  advise_huge_pages(p.features, static_cast<size_t>(p.batch * p.count * p.channels) * sizeof(T));
  parallel_for(p.batch * p.count, rows_per_task(p.channels), [&](int64_t begin, int64_t end) {
    const Scratch memory(bytes_of<A>(p.channels));
    A* sum = memory.as<A>();
    for (int64_t row = begin; row < end; ++row) {
      const int64_t b = row / p.count, n = row % p.count;
      const uint32_t* first = all_first + b * (p.count + 1);
      const T* grouped = static_cast<const T*>(p.grouped) + b * p.groups * p.channels;
      const A* weights = static_cast<const A*>(p.weights) + (p.weights != nullptr ? b * entry_count : 0);
      for (int64_t c = 0; c < p.channels; ++c) sum[c] = 0;
      for (uint32_t i = first[n]; i < first[n + 1]; ++i) {
        const uint32_t entry = all_entries[b * entry_count + i];
        const int64_t group = terms == 1 ? entry : entry / terms;
        add_row(grouped + group * p.channels, p.weights != nullptr ? weights[entry] : A(1), sum, p.channels);
      }
      convert_run(sum, p.channels, static_cast<T*>(p.features) + row * p.channels);
    }
  });
}

}  // namespace

void group_points_forward_cpu(const GroupPointsParams& params) {
  check_indices(params);
  dispatch_floating(params.dtype, [&](auto tag) { forward<typename decltype(tag)::type>(params); });
}

void group_points_backward_cpu(const GroupPointsParams& params) {
  check_indices(params);
  dispatch_floating(params.dtype, [&](auto tag) { backward<typename decltype(tag)::type>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

// Max pooling and unpooling on the CPU. See max_pool2d.h.
//
// Vectors lie along the row of results (contiguous, in blocks of one vector; taps of stride 1 or 2 are whole vectors)
// or along channels (channels_last). Leaders are kept with their tap's offset in integers as wide as the values, and
// become int64 indices on the way out.
//
// Napkin maths, 2 x 2 windows on 8 x 64 x 128 x 128, float32: 34 MB read, 8 MB of values and 17 MB of indices written;
// 4 ms at 14 GB/s.
#include "core/errors.h"
#include "core/interleave_cpu.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "ops/max_pool2d/max_pool2d_backward_cpu.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

template <class A>
constexpr A kLowest = -static_cast<A>(__builtin_inf());

// The leader among the values seen so far, in each lane, and its place.
template <class A>
struct Leaders {
  Vector<A> value;
  Places<A> place;

  void challenge(Vector<A> challenger, Place<A> challenger_place) {
    challenge(challenger, challenger_place - Places<A>{});
  }
  void challenge(Vector<A> challenger, Places<A> challenger_place) {
    const auto wins = (challenger > value) | (challenger != challenger);
    value = wins ? challenger : value;
    place = wins ? challenger_place : place;
  }
};

template <class T>
inline void store_leaders(const Leaders<Accumulate<T>>& leaders, T* values, int64_t* indices) {
  store(values, leaders.value);
  if (indices == nullptr) return;
  constexpr int kCount = kLanes<Accumulate<T>>;
  Place<Accumulate<T>> places[kCount];
  __builtin_memcpy(places, &leaders.place, sizeof(places));
#pragma GCC unroll 1
  for (int i = 0; i < kCount; ++i) indices[i] = places[i];
}

// ---- forward, contiguous ----

// Every kStride-th value: lanes 0, kStride, 2 kStride ... Reads kStride vectors.
template <int kStride, class T>
inline Vector<Accumulate<T>> load_every(const T* source) {
  using A = Accumulate<T>;
  if constexpr (kStride == 1) return load(source);
  Vector<A> even, odd;
  deinterleave<A>(load(source), load(source + kLanes<A>), &even, &odd);
  return even;
}

// One result by itself: at the borders.
template <class T>
void pool_one(const T* plane, const MaxPool2dParams& p, WindowAxis rows, int64_t column, T* value, int64_t* index) {
  using A = Accumulate<T>;
  const int64_t width = p.shape.width;
  const WindowAxis columns = window_axis(p, 1, column, width);
  A leader = kLowest<A>;
  int64_t place = rows.first * width + columns.first;
  for (int64_t y = rows.first; y < rows.end; y += p.dilation[0]) {
    for (int64_t x = columns.first; x < columns.end; x += p.dilation[1]) {
      const A challenger = to_float(plane[y * width + x]);
      if (!(challenger > leader || challenger != challenger)) continue;
      leader = challenger;
      place = y * width + x;
    }
  }
  *value = from_float<T>(leader);
  if (index != nullptr) *index = place;
}

// One row of results. Vectors where all that they read lies inside the map, single results elsewhere.
template <class T, int kStride>
void pool_row(const T* plane, const MaxPool2dParams& p, int64_t row, T* values, int64_t* indices) {
  using A = Accumulate<T>;
  constexpr int64_t kStep = kLanes<A>;
  const int64_t width = p.shape.width, reach = static_cast<int64_t>(p.kernel[1] - 1) * p.dilation[1];
  const WindowAxis rows = window_axis(p, 0, row, p.shape.height);
  Places<A> lane;
  for (int i = 0; i < kStep; ++i) lane[i] = static_cast<Place<A>>(i * kStride);
  int64_t q = 0;
  for (; q * kStride < p.padding[1] && q < p.pooled_width; ++q) {
    pool_one(plane, p, rows, q, values + q, indices != nullptr ? indices + q : nullptr);
  }
  for (;;) {
    const int64_t x = q * kStride - p.padding[1];
    if (q + kStep > p.pooled_width || x + reach + kStride * kStep > width) break;
    Leaders<A> leaders;
    leaders.value = broadcast(kLowest<A>);
    leaders.place = lane + static_cast<Place<A>>(rows.first * width + x);
    for (int64_t y = rows.first; y < rows.end; y += p.dilation[0]) {
      for (int64_t k = 0; k <= reach; k += p.dilation[1]) {
        const int64_t place = y * width + x + k;
        leaders.challenge(load_every<kStride>(plane + place), lane + static_cast<Place<A>>(place));
      }
    }
    store_leaders<T>(leaders, values + q, indices != nullptr ? indices + q : nullptr);
    q += kStep;
  }
  for (; q < p.pooled_width; ++q) {
    pool_one(plane, p, rows, q, values + q, indices != nullptr ? indices + q : nullptr);
  }
}

template <class T>
void pool_planes(const MaxPool2dParams& p) {
  const int64_t height = p.pooled_height, width = p.pooled_width;
  const int64_t window = static_cast<int64_t>(p.kernel[0]) * p.kernel[1];
  parallel_for(p.shape.outer * height, grain_for(width * least(window, 16)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* plane = static_cast<const T*>(p.large) + i / height * (p.shape.height * p.shape.width);
      T* values = static_cast<T*>(p.small) + i * width;
      int64_t* indices = p.indices != nullptr ? p.indices + i * width : nullptr;
      if (p.stride[1] == 1) {
        pool_row<T, 1>(plane, p, i % height, values, indices);
      } else if (p.stride[1] == 2) {
        pool_row<T, 2>(plane, p, i % height, values, indices);
      } else {
        const WindowAxis rows = window_axis(p, 0, i % height, p.shape.height);
        for (int64_t q = 0; q < width; ++q) {
          pool_one(plane, p, rows, q, values + q, indices != nullptr ? indices + q : nullptr);
        }
      }
    }
  });
}

// ---- forward, channels_last ----

template <class T, int kVectors>
inline void pool_channels(const T* image, const MaxPool2dParams& p, WindowAxis rows, WindowAxis columns, T* values,
                          int64_t* indices) {
  using A = Accumulate<T>;
  const int64_t width = p.shape.width, run = p.shape.run;
  Leaders<A> leaders[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    leaders[v].value = broadcast(kLowest<A>);
    leaders[v].place = static_cast<Place<A>>(rows.first * width + columns.first) - Places<A>{};
  }
  for (int64_t y = rows.first; y < rows.end; y += p.dilation[0]) {
    for (int64_t x = columns.first; x < columns.end; x += p.dilation[1]) {
      const int64_t place = y * width + x;
      for (int v = 0; v < kVectors; ++v) {
        leaders[v].challenge(load(image + place * run + v * kLanes<A>), static_cast<Place<A>>(place));
      }
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    store_leaders<T>(leaders[v], values + v * kLanes<A>, indices != nullptr ? indices + v * kLanes<A> : nullptr);
  }
}

template <class T>
void pool_pixels(const MaxPool2dParams& p) {
  using A = Accumulate<T>;
  constexpr int64_t kStep = kLanes<A>;
  const int64_t height = p.pooled_height, width = p.pooled_width, run = p.shape.run;
  const int64_t pixels = p.shape.height * p.shape.width;
  const int64_t window = static_cast<int64_t>(p.kernel[0]) * p.kernel[1];
  parallel_for(p.shape.outer * height, grain_for(width * run * least(window, 16)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* image = static_cast<const T*>(p.large) + i / height * (pixels * run);
      const WindowAxis rows = window_axis(p, 0, i % height, p.shape.height);
      for (int64_t q = 0; q < width; ++q) {
        const WindowAxis columns = window_axis(p, 1, q, p.shape.width);
        T* values = static_cast<T*>(p.small) + (i * width + q) * run;
        int64_t* indices = p.indices != nullptr ? p.indices + (i * width + q) * run : nullptr;
        int64_t c = 0;
        for (; c + 4 * kStep <= run; c += 4 * kStep) {
          pool_channels<T, 4>(image + c, p, rows, columns, values + c, indices != nullptr ? indices + c : nullptr);
        }
        for (; c + kStep <= run; c += kStep) {
          pool_channels<T, 1>(image + c, p, rows, columns, values + c, indices != nullptr ? indices + c : nullptr);
        }
        for (; c < run; ++c) {
          A leader = kLowest<A>;
          int64_t place = rows.first * p.shape.width + columns.first;
          for (int64_t y = rows.first; y < rows.end; y += p.dilation[0]) {
            for (int64_t x = columns.first; x < columns.end; x += p.dilation[1]) {
              const A challenger = to_float(image[(y * p.shape.width + x) * run + c]);
              if (!(challenger > leader || challenger != challenger)) continue;
              leader = challenger;
              place = y * p.shape.width + x;
            }
          }
          values[c] = from_float<T>(leader);
          if (indices != nullptr) indices[c] = place;
        }
      }
    }
  });
}

// ---- with given indices ----
//
// A piece of work is one plane, or (channels_last) a block of channels of one image: so each place of `large` belongs
// to one piece, and nothing depends on the number of threads.

// For a block of channels, `rows` pixels of `small` with `count` elements each, from element `first` of the run on; for
// a plane one row with all of its elements. `step` is how far apart neighbours of the row are in `large`'s run.
struct Block {
  int64_t image, first, rows, count, step;
};

constexpr int64_t kBlockBytes = 256;  // whole cache lines

template <class T, class Body>
void for_each_block(const MaxPool2dParams& p, const Body& body) {
  constexpr int64_t kWidth = kBlockBytes / sizeof(T);
  const int64_t run = p.shape.run, blocks = ceil_div(run, kWidth);
  const int64_t pixels = p.shape.height * p.shape.width, pooled = p.pooled_height * p.pooled_width;
  parallel_for(p.shape.outer * blocks, grain_for(pixels * least(run, kWidth)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % blocks * kWidth;
      const int64_t width = first + kWidth <= run ? kWidth : run - first;
      body(run == 1 ? Block{i, 0, 1, pooled, 0} : Block{i / blocks, first, pooled, width, 1});
    }
  });
}

template <class U>
void set_zero(U* target, int64_t pixels, int64_t run, int64_t count) {
  if (pixels == 0) return;  // target may be null
  if (count == run) {
    __builtin_memset(target, 0, pixels * run * sizeof(U));
    return;
  }
  for (int64_t i = 0; i < pixels; ++i) __builtin_memset(target + i * run, 0, count * sizeof(U));
}

template <class U>
void gather(const MaxPool2dParams& p) {
  const uint64_t pixels = p.shape.height * p.shape.width;
  const int64_t run = p.shape.run, pooled = p.pooled_height * p.pooled_width;
  advise_huge_pages(p.small, p.shape.outer * pooled * run * sizeof(U));
  for_each_block<U>(p, [&](const Block& block) {
    const U* source = static_cast<const U*>(p.large) + block.image * pixels * run + block.first;
    for (int64_t i = 0; i < block.rows; ++i) {
      const int64_t offset = (block.image * pooled + i) * run + block.first;
      const int64_t* indices = p.indices + offset;
      U* values = static_cast<U*>(p.small) + offset;
      for (int64_t c = 0; c < block.count; ++c) {
        values[c] = static_cast<uint64_t>(indices[c]) < pixels ? source[indices[c] * run + c * block.step] : U(0);
      }
    }
  });
}

template <class U>
void put(const MaxPool2dParams& p) {
  const uint64_t pixels = p.shape.height * p.shape.width;
  const int64_t run = p.shape.run, pooled = p.pooled_height * p.pooled_width;
  bool outside = false;
  advise_huge_pages(p.large, element_count(p.shape) * sizeof(U));
  for_each_block<U>(p, [&](const Block& block) {
    U* target = static_cast<U*>(p.large) + block.image * pixels * run + block.first;
    set_zero(target, pixels, run, run == 1 ? 1 : block.count);
    for (int64_t i = 0; i < block.rows; ++i) {
      const int64_t offset = (block.image * pooled + i) * run + block.first;
      const int64_t* indices = p.indices + offset;
      const U* values = static_cast<const U*>(p.small) + offset;
      for (int64_t c = 0; c < block.count; ++c) {
        if (static_cast<uint64_t>(indices[c]) < pixels) {
          target[indices[c] * run + c * block.step] = values[c];
        } else {
          __atomic_store_n(&outside, true, __ATOMIC_RELAXED);
        }
      }
    }
  });
  if (!outside) return;
  const int64_t count = p.shape.outer * pooled * run;
  for (int64_t i = 0; i < count; ++i) {  // which one: the first in memory
    if (static_cast<uint64_t>(p.indices[i]) < pixels) continue;
    throw_value_error("indices must lie in [0, %lld), the pixels of a %lld x %lld output, got %lld",
                      static_cast<long long>(pixels), static_cast<long long>(p.shape.height),
                      static_cast<long long>(p.shape.width), static_cast<long long>(p.indices[i]));
  }
}

}  // namespace

void max_pool2d_forward_cpu(const MaxPool2dParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const int64_t count = params.shape.outer * params.pooled_height * params.pooled_width * params.shape.run;
    advise_huge_pages(params.small, count * sizeof(T));
    if (params.indices != nullptr) advise_huge_pages(params.indices, count * sizeof(int64_t));
    params.shape.run == 1 ? pool_planes<T>(params) : pool_pixels<T>(params);
  });
}

void max_pool2d_backward_cpu(const MaxPool2dParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    advise_huge_pages(params.large, element_count(params.shape) * sizeof(T));
    params.shape.run == 1 ? add_windows_of_planes<T>(params) : add_windows_of_pixels<T>(params);
  });
}

void max_pool2d_gather_cpu(const MaxPool2dParams& params) {
  dispatch_moved(params.dtype, [&](auto tag) { gather<typename decltype(tag)::type>(params); });
}

void max_unpool2d_cpu(const MaxPool2dParams& params) {
  dispatch_moved(params.dtype, [&](auto tag) { put<typename decltype(tag)::type>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

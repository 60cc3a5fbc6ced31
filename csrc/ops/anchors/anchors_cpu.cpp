// Anchors on the CPU.
//
// A row of a level repeats the cells along x: one addition of four lanes and one store per anchor. The other images get
// copies of it while it is in the first cache. Rows are handed to the threads in runs of about kRun anchors.
//
// Napkin maths, 268 000 anchors of float32: 4.3 MB per image are written, 0.4 ms at 10 GB/s into memory already
// touched. Into fresh memory page faults cost five times that: hence one block for all images, in huge pages.
#include "core/errors.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "core/simd.h"
#include "ops/anchors/anchors.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int64_t kRun = 8192;

template <class T>
struct Four {
  typedef T type __attribute__((vector_size(4 * sizeof(T))));
};

template <class T>
void fill_row(const T* cells, const AnchorLevel& level, int64_t y, T* target) {
  using A = Accumulate<T>;
  using V = typename Four<A>::type;
  const A shift_y = anchor_shift<T>(y, level.stride_y);
  for (int64_t x = 0; x < level.width; ++x) {
    const A shift_x = anchor_shift<T>(x, level.stride_x);
    const V shift = {shift_x, shift_y, shift_x, shift_y};
    for (int64_t a = 0; a < level.cells; ++a, target += 4) {
      const T* base = cells + 4 * a;
      const V anchor = shift + V{to_float(base[0]), to_float(base[1]), to_float(base[2]), to_float(base[3])};
      if constexpr (sizeof(T) >= 4) {
        __builtin_memcpy(target, &anchor, sizeof(anchor));
      } else {
        for (int k = 0; k < 4; ++k) target[k] = round_to<T>(anchor[k]);
      }
    }
  }
}

template <class T>
void fill_grid(const AnchorGridParams& p) {
  if (p.images * p.pyramid.anchors == 0) return;  // the anchors may be null
  advise_huge_pages(p.anchors, 4 * sizeof(T) * static_cast<size_t>(p.images * p.pyramid.anchors));
  // Rows of all levels, counted through.
  int64_t rows = 0;
  for (int l = 0; l < p.pyramid.levels; ++l) rows += p.pyramid.level[l].height;
  const int64_t per_row = rows > 0 ? p.pyramid.anchors / rows : 0;
  parallel_for(rows, per_row > 0 ? kRun / per_row : rows, [&](int64_t begin, int64_t end) {
    int64_t first_row = 0;
    for (int l = 0; l < p.pyramid.levels && first_row < end; ++l) {
      const AnchorLevel& level = p.pyramid.level[l];
      const int64_t from = begin > first_row ? begin - first_row : 0;
      const int64_t to = least(end - first_row, level.height);
      for (int64_t y = from; y < to; ++y) {
        T* target = static_cast<T*>(p.anchors) + 4 * (level.first + y * level.width * level.cells);
        fill_row(static_cast<const T*>(p.cells) + 4 * level.first_cell, level, y, target);
        for (int64_t image = 1; image < p.images; ++image) {
          __builtin_memcpy(target + 4 * image * p.pyramid.anchors, target,
                           4 * sizeof(T) * static_cast<size_t>(level.width * level.cells));
        }
      }
      first_row += level.height;
    }
  });
}

template <class T>
void decode(const DecodeAnchorsParams& p) {
  for (int64_t k = 0; k < p.count; ++k) {
    if (p.indices[k] < 0 || p.indices[k] >= p.pyramid.anchors) {
      throw_value_error("indices must be places in the grid of %lld anchors, got %lld (number %lld)",
                        static_cast<long long>(p.pyramid.anchors), static_cast<long long>(p.indices[k]),
                        static_cast<long long>(k));
    }
  }
  parallel_for(p.count, kRun / 4, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      decode_anchor(p, p.indices[k], static_cast<const T*>(p.deltas) + 4 * k, static_cast<T*>(p.decoded) + 4 * k);
    }
  });
}

}  // namespace

void anchor_grid_cpu(const AnchorGridParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { fill_grid<typename decltype(tag)::type>(params); });
}

void decode_anchors_cpu(const DecodeAnchorsParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { decode<typename decltype(tag)::type>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

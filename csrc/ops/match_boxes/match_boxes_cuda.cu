// Matching on CUDA. See match_boxes.h for the meaning.
#include "core/cuda/atomic.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/pack.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "ops/match_boxes/match_boxes.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

// A thread owns a candidate and walks over the gts, which the block brings into shared memory kGtTile at a time. For
// the low-quality rule the block keeps its greatest overlap per gt there as well, as an integer key, and adds it to the
// global one with atomic_max: the maximum of integers is the same in any order. Few candidates beat what the block has
// already, so few atomics happen. A second kernel then looks for the candidates whose overlap equals the greatest.
//
// Napkin maths, 50 gts x 268 000 candidates, float32: 6.4 MB move (1.5 us at 4.3 TB/s); 13.4 M overlaps at about 30
// instructions (division 8) are 3 us of issue slots on 132 SMs x 128 lanes. So the launches are what it costs.

constexpr int kBlockSize = 256;
constexpr int kGtTile = 128;

// Keys order as overlaps do: zero of either sign is 0, and NaN is above all numbers.
FASTCV_HD uint32_t key_of(float overlap) {
  return overlap > 0.0f ? bit_cast<uint32_t>(overlap) : overlap != overlap ? 0xffffffffu : 0u;
}
FASTCV_HD uint64_t key_of(double overlap) {
  return overlap > 0.0 ? bit_cast<uint64_t>(overlap) : overlap != overlap ? ~uint64_t{0} : uint64_t{0};
}

template <class A>
using Key = decltype(key_of(A{}));

// One load where the rows are aligned; a view may start anywhere.
template <class T>
__device__ Box<Accumulate<T>> read_box(const void* boxes, int64_t i) {
  const T* source = static_cast<const T*>(boxes) + 4 * i;
  Pack<T, 4> row;
  if (reinterpret_cast<uintptr_t>(boxes) % alignof(Pack<T, 4>) == 0) {
    row = load_pack<4>(source);
  } else {
    for (int k = 0; k < 4; ++k) row.value[k] = source[k];
  }
  return {to_float(row.value[0]), to_float(row.value[1]), to_float(row.value[2]), to_float(row.value[3])};
}

__global__ void __launch_bounds__(kBlockSize, 2) fill_below_kernel(const MatchBoxesParams p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  if (i < p.count) p.matches[i] = kMatchBelow;
}

template <class A>
__global__ void __launch_bounds__(kBlockSize, 2) clear_best_kernel(const MatchBoxesParams p) {
  const int64_t j = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  if (j < p.gts) static_cast<Key<A>*>(p.gt_best)[j] = 0;
}

template <class T, bool kLowQuality>
__global__ void __launch_bounds__(kBlockSize, 2) match_boxes_kernel(const MatchBoxesParams p) {
  using A = Accumulate<T>;
  FASTCV_SHARED(Box<A>, gt, kGtTile);
  FASTCV_SHARED(A, gt_area, kGtTile);
  FASTCV_SHARED(Key<A>, gt_best, kGtTile);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kBlockSize + thread;
  const Box<A> candidate = read_box<T>(p.candidates, i < p.count ? i : p.count - 1);  // a repeated one changes nothing
  const A area = box_area(candidate);
  A best = 0;
  int argmax = 0;
  for (int64_t j0 = 0; j0 < p.gts; j0 += kGtTile) {
    const int tile = static_cast<int>(least(p.gts - j0, kGtTile));
    for (int j = thread; j < tile; j += kBlockSize) {
      gt[j] = read_box<T>(p.gt, j0 + j);
      gt_area[j] = box_area(gt[j]);
      gt_best[j] = 0;
    }
    block_sync();
    for (int j = 0; j < tile; ++j) {
      const A overlap = box_iou(gt[j], gt_area[j], candidate, area);
      if (overlap > best || (overlap != overlap && best == best)) {
        best = overlap;
        argmax = static_cast<int>(j0) + j;
      }
      if constexpr (kLowQuality) {
        // An outdated key costs an atomic, no more: it only grows.
        const Key<A> key = key_of(overlap);
        if (key > *static_cast<volatile Key<A>*>(&gt_best[j])) atomic_max(&gt_best[j], key);
      }
    }
    block_sync();
    if constexpr (kLowQuality) {
      for (int j = thread; j < tile; j += kBlockSize) {
        if (gt_best[j] != 0) atomic_max(static_cast<Key<A>*>(p.gt_best) + j0 + j, gt_best[j]);
      }
    }
    block_sync();
  }
  if (i >= p.count) return;
  const int64_t verdict = match_verdict(best, static_cast<A>(p.high_threshold), static_cast<A>(p.low_threshold));
  p.matches[i] = kLowQuality ? encode_match(argmax, verdict) : verdict == 0 ? argmax : verdict;
}

template <class T>
__global__ void __launch_bounds__(kBlockSize, 2) restore_best_kernel(const MatchBoxesParams p) {
  using A = Accumulate<T>;
  FASTCV_SHARED(Box<A>, gt, kGtTile);
  FASTCV_SHARED(A, gt_area, kGtTile);
  FASTCV_SHARED(Key<A>, gt_best, kGtTile);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kBlockSize + thread;
  const Box<A> candidate = read_box<T>(p.candidates, i < p.count ? i : p.count - 1);
  const A area = box_area(candidate);
  const int64_t encoded = i < p.count ? p.matches[i] : 0;
  bool search = decode_match(encoded) < 0;
  bool found = false;
  for (int64_t j0 = 0; j0 < p.gts; j0 += kGtTile) {
    const int tile = static_cast<int>(least(p.gts - j0, kGtTile));
    for (int j = thread; j < tile; j += kBlockSize) {
      gt[j] = read_box<T>(p.gt, j0 + j);
      gt_area[j] = box_area(gt[j]);
      gt_best[j] = static_cast<const Key<A>*>(p.gt_best)[j0 + j];
    }
    block_sync();
    for (int j = 0; search && j < tile; ++j) {
      const A overlap = box_iou(gt[j], gt_area[j], candidate, area);
      found = overlap == overlap && key_of(overlap) == gt_best[j];
      search = !found;
    }
    if (!block_any(search)) break;
  }
  if (i < p.count) p.matches[i] = found ? argmax_of(encoded) : decode_match(encoded);
}

template <class T>
void match(const MatchBoxesParams& p, Stream stream) {
  const LaunchShape shape({grid_size(p.count, kBlockSize)}, {kBlockSize});
  if (p.gts == 0) {
    launch(fill_below_kernel, shape, stream, p);
  } else if (!p.allow_low_quality) {
    launch(match_boxes_kernel<T, false>, shape, stream, p);
  } else {
    launch(clear_best_kernel<Accumulate<T>>, {{grid_size(p.gts, kBlockSize)}, {kBlockSize}}, stream, p);
    launch(match_boxes_kernel<T, true>, shape, stream, p);
    launch(restore_best_kernel<T>, shape, stream, p);
  }
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void match_boxes_cuda(const MatchBoxesParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) { match<typename decltype(tag)::type>(params, stream); });
}

}  // namespace fastcv

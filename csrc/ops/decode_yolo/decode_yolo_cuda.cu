// Decoding of YOLO's heads on CUDA: one launch, a block per image, a thread per box of a share of boxes; shares follow
// each other, so that candidates keep their order. Where there are too many candidates, the block counts the bytes of
// their scores, one byte of the key at a time, and takes the best.
//
// Napkin maths, YOLOv3 at 416: 10 647 boxes are 21 shares, each waits for one load of the confidences (about 1 us) and
// the few boxes left read their classes; 30 us, less than what a launch more would save.
#include "core/cuda/atomic.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "ops/decode_yolo/decode_yolo.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kBlockSize = 512;

// The sum of the numbers of the threads before this one; `total` is that of all. All threads of the block take part.
__device__ int64_t block_sum_before(int64_t own, int64_t& total) {
  constexpr int kWarps = kBlockSize / static_cast<int>(kWarpSize);
  FASTCV_SHARED(int64_t, warp_sums, kWarps);
  int64_t sum = own;
  for (unsigned delta = 1; delta < kWarpSize; delta *= 2) {
    const int64_t other = warp_shuffle_up(kFullMask, sum, delta);
    if (lane_id() >= delta) sum += other;
  }
  const int warp = static_cast<int>(threadIdx.x / kWarpSize);
  if (lane_id() == kWarpSize - 1) warp_sums[warp] = sum;
  block_sync();
  total = 0;
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp) sum += warp_sums[w];
    total += warp_sums[w];
  }
  block_sync();
  return sum - own;
}

template <class T>
struct ImageBlock {
  using A = Accumulate<T>;
  using Key = decltype(score_key(A{}));
  const DecodeYoloParams& p;
  const T* data;
  int64_t boxes;
  A bound;

  // Calls body(label, score) for the candidates of a box.
  template <class Body>
  __device__ void for_each(int64_t i, const Body& body) const {
    if (i < boxes) YoloBox<T>(p, data, i).for_each_score(p, bound, body);
  }

  __device__ int64_t candidates() const {
    int64_t own = 0, total;
    for (int64_t i = threadIdx.x; i < boxes; i += kBlockSize) {
      for_each(i, [&](int64_t, A) { ++own; });
    }
    block_sum_before(own, total);
    return total;
  }

  __device__ YoloCut<Key> find_cut() const {
    FASTCV_SHARED(uint32_t, counts, 256);
    YoloCut<Key> cut;
    cut.ties = p.capacity;
    while (cut.known < static_cast<int>(sizeof(Key))) {
      for (int i = static_cast<int>(threadIdx.x); i < 256; i += kBlockSize) counts[i] = 0;
      block_sync();
      for (int64_t i = threadIdx.x; i < boxes; i += kBlockSize) {
        for_each(i, [&](int64_t, A score) {
          if (cut.shares(score_key(score))) atomic_add(&counts[cut.next_byte(score_key(score))], 1u);
        });
      }
      block_sync();
      cut.find_byte(counts);
      block_sync();
    }
    return cut;
  }

  // Writes the candidates above the cut and the first of those at it, in order.
  __device__ void write(YoloCut<Key> cut, int64_t first) const {
    for (int64_t share = 0; share < boxes; share += kBlockSize) {
      const int64_t i = share + threadIdx.x;
      int64_t above = 0, at = 0, all_at, all;
      for_each(i, [&](int64_t, A score) {
        above += score_key(score) > cut.key;
        at += score_key(score) == cut.key;
      });
      if (!block_any(above + at > 0)) continue;
      int64_t ties = cut.ties - block_sum_before(at, all_at);
      ties = ties < 0 ? 0 : ties;
      int64_t place = first + block_sum_before(above + least(at, ties), all);
      for_each(i, [&](int64_t label, A score) {
        const Key key = score_key(score);
        if (key > cut.key || (key == cut.key && ties-- > 0)) YoloBox<T>(p, data, i).write(p, place++, label, score);
      });
      first += all;
      cut.ties -= least(cut.ties, all_at);
    }
  }
};

template <class T>
__global__ void __launch_bounds__(kBlockSize, 1) decode_yolo_kernel(const DecodeYoloParams p) {
  using A = Accumulate<T>;
  using Key = typename ImageBlock<T>::Key;
  const int64_t image = blockIdx.x, first = image * p.capacity;
  const ImageBlock<T> block{p, static_cast<const T*>(p.output) + image * p.image_stride, p.height * p.width * p.anchors,
                            static_cast<A>(logistic_bound(p.threshold))};
  const int64_t candidates = block.candidates(), found = least(candidates, p.capacity);
  if (threadIdx.x == 0) p.count[image] = found;
  if (p.capacity == 0) return;
  YoloCut<Key> all;  // key 0 and as many ties as there are
  all.ties = candidates;
  block.write(candidates > p.capacity ? block.find_cut() : all, first);
  for (int64_t i = found + threadIdx.x; i < p.capacity; i += kBlockSize) write_no_candidate<A>(p, first + i);
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void decode_yolo_cuda(const DecodeYoloParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(decode_yolo_kernel<T>, {{params.images}, {kBlockSize}}, stream, params);
  });
}

}  // namespace fastcv

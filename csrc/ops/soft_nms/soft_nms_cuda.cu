// Soft-NMS on CUDA: one block, one pass over the boxes per box taken. The passes depend on each other and each is short
// (N / 1024 boxes per thread), so a block that keeps its rhythm with barriers beats launches that would wait for each
// other; and nothing has to be known on the host.
//
// Napkin maths for an H200, 4000 boxes, float32: a pass is 8 boxes a thread of some 70 instructions, 16 warps over 4
// issue slots: 2200 cycles less what is below the least score, 10 shuffles, two barriers and 16 reads of shared memory,
// 700: 1.3 us a choice, 5 ms where all 4000 are taken. The chain of choices is the limit, one multiprocessor works.
#include "core/cuda/launch.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "ops/soft_nms/soft_nms.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kBlockSize = 512;
constexpr int kWarps = kBlockSize / static_cast<int>(kWarpSize);

// The better of two: the higher score, then the lower place. Places without a box have score -1.
template <class A>
struct Best {
  A score;
  int place;

  __device__ void take(A other_score, int other_place) {
    if (other_score > score || (other_score == score && other_place < place)) {
      score = other_score;
      place = other_place;
    }
  }
};

template <class T>
__global__ void __launch_bounds__(kBlockSize, 2) soft_nms_kernel(const SoftNmsParams p) {
  using A = Accumulate<T>;
  FASTCV_SHARED(A, warp_scores, kWarps);
  FASTCV_SHARED(int, warp_places, kWarps);
  const int count = static_cast<int>(p.boxes_count);
  const int thread = static_cast<int>(threadIdx.x);
  A* const x1 = static_cast<A*>(p.workspace);
  A *const y1 = x1 + p.workspace_width, *const x2 = y1 + p.workspace_width, *const y2 = x2 + p.workspace_width;
  A *const area = y2 + p.workspace_width, *const score = area + p.workspace_width;
  const A least = static_cast<A>(p.min_score);
  const SoftNmsDecay<A> decay(p);

  for (int i = thread; i < count; i += kBlockSize) {
    const T* row = static_cast<const T*>(p.boxes) + i * p.box_strides[0];
    const int64_t step = p.box_strides[1];
    const Box<A> box{to_float(row[0]), to_float(row[step]), to_float(row[2 * step]), to_float(row[3 * step])};
    const A first = to_float(static_cast<const T*>(p.scores)[i * p.score_stride]);
    x1[i] = box.x1;
    y1[i] = box.y1;
    x2[i] = box.x2;
    y2[i] = box.y2;
    area[i] = box_area(box);
    score[i] = first >= least ? first : A(-1);
  }

  int64_t taken = 0;
  int chosen = -1;
  for (;;) {
    const Box<A> box = chosen >= 0 ? Box<A>{x1[chosen], y1[chosen], x2[chosen], y2[chosen]} : Box<A>{};
    const A box_size = chosen >= 0 ? area[chosen] : A(0);
    // A thread only ever touches the scores of its own boxes.
    Best<A> best{A(-1), count};
    for (int i = thread; i < count; i += kBlockSize) {
      A now = score[i];
      if (now < A(0)) continue;
      if (chosen >= 0) {
        const A overlap = box_iou(box, box_size, Box<A>{x1[i], y1[i], x2[i], y2[i]}, area[i]);
        const A decayed = now * decay(overlap, A(1));
        now = i != chosen && decayed >= least ? decayed : A(-1);
        score[i] = now;
      }
      if (now >= A(0)) best.take(now, i);
    }
    for (int offset = static_cast<int>(kWarpSize) / 2; offset > 0; offset /= 2) {
      const A other_score = warp_shuffle_xor(kFullMask, best.score, offset);
      const int other_place = warp_shuffle_xor(kFullMask, best.place, offset);
      best.take(other_score, other_place);
    }
    if (lane_id() == 0) {
      warp_scores[thread / static_cast<int>(kWarpSize)] = best.score;
      warp_places[thread / static_cast<int>(kWarpSize)] = best.place;
    }
    block_sync();
    for (int w = 0; w < kWarps; ++w) best.take(warp_scores[w], warp_places[w]);
    block_sync();  // before the next pass overwrites them
    if (best.score < A(0)) break;
    chosen = best.place;
    if (thread == 0) {
      p.kept[taken] = chosen;
      static_cast<T*>(p.kept_scores)[taken] = from_float<T>(best.score);
    }
    ++taken;
  }
  if (thread == 0) *p.count = taken;
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void soft_nms_cuda(const SoftNmsParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(soft_nms_kernel<T>, {1, kBlockSize}, stream, params);
  });
}

}  // namespace fastcv

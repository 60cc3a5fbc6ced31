// Anchors on CUDA: a thread per anchor of all levels, which works out its level, place and cell from its flat index
// with 32-bit divisions. See anchors.h for the meaning.
//
// Napkin maths, 268 000 anchors of float32: 4.3 MB are written, 1 us at 4.3 TB/s: less than the launch.
#include "core/cuda/launch.cuh"
#include "core/cuda/pack.cuh"
#include "ops/anchors/anchors.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kBlockSize = 256;

template <class T>
__global__ void __launch_bounds__(kBlockSize, 2) anchor_grid_kernel(const AnchorGridParams p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  if (i >= p.pyramid.anchors) return;
  const Box<T> anchor = anchor_at<T>(p.cells, p.pyramid, i);
  const Pack<T, 4> packed = {{anchor.x1, anchor.y1, anchor.x2, anchor.y2}};
  for (int64_t image = 0; image < p.images; ++image) {
    store_pack(static_cast<T*>(p.anchors) + 4 * (image * p.pyramid.anchors + i), packed);
  }
}

template <class T>
__global__ void __launch_bounds__(kBlockSize, 2) decode_anchors_kernel(const DecodeAnchorsParams p) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  if (k >= p.count) return;
  const int64_t index = p.indices[k];
  Pack<T, 4> decoded{};
  if (index >= 0 && index < p.pyramid.anchors) {
    decode_anchor(p, index, static_cast<const T*>(p.deltas) + 4 * k, decoded.value);
  }
  store_pack(static_cast<T*>(p.decoded) + 4 * k, decoded);
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void anchor_grid_cuda(const AnchorGridParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  const LaunchShape shape({grid_size(params.pyramid.anchors, kBlockSize)}, {kBlockSize});
  dispatch_floating(params.dtype,
                    [&](auto tag) { launch(anchor_grid_kernel<typename decltype(tag)::type>, shape, stream, params); });
}

void decode_anchors_cuda(const DecodeAnchorsParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  const LaunchShape shape({grid_size(params.count, kBlockSize)}, {kBlockSize});
  dispatch_floating(params.dtype, [&](auto tag) {
    launch(decode_anchors_kernel<typename decltype(tag)::type>, shape, stream, params);
  });
}

}  // namespace fastcv

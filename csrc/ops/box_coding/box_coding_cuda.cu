// Box coding on CUDA. See box_coding.h for the meaning.
//
// Everything moves once: encode and its gradient take a thread per row, decode a thread per row and class, each with
// loads and stores of four elements. Only the gradient of decode sums, over the classes of a row: with many classes a
// warp takes a row, its lanes every 32nd class, and adds up in a fixed order; with few, a thread does.
//
// Napkin maths, 268 000 rows of float32: 12.9 MB move, 3 us at 4.3 TB/s.
#include "core/cuda/launch.cuh"
#include "core/cuda/warp.cuh"
#include "ops/box_coding/box_coding.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kBlockSize = 256;
constexpr int64_t kManyClasses = 8;

template <class T>
__global__ void __launch_bounds__(kBlockSize, 2) encode_kernel(const EncodeBoxesParams p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  if (i >= p.count) return;
  const auto reference = read_row<T>(p.reference, i, is_aligned<T>(p.reference));
  const auto proposal = read_row<T>(p.proposals, i, is_aligned<T>(p.proposals));
  write_row<T>(p.deltas, i, encode_row(reference, proposal, p.coding), is_aligned<T>(p.deltas));
}

template <class T>
__global__ void __launch_bounds__(kBlockSize, 2) encode_backward_kernel(const EncodeBoxesParams p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  if (i >= p.count) return;
  Row<Accumulate<T>> grad_reference, grad_proposal;
  encode_gradient(read_row<T>(p.reference, i, is_aligned<T>(p.reference)),
                  read_row<T>(p.proposals, i, is_aligned<T>(p.proposals)),
                  read_row<T>(p.deltas, i, is_aligned<T>(p.deltas)), p.coding, &grad_reference, &grad_proposal);
  if (p.grad_reference != nullptr) {
    write_row<T>(p.grad_reference, i, grad_reference, is_aligned<T>(p.grad_reference));
  }
  if (p.grad_proposals != nullptr) {
    write_row<T>(p.grad_proposals, i, grad_proposal, is_aligned<T>(p.grad_proposals));
  }
}

// The grid's second axis is not needed: rows times classes are 32-bit numbers (the binding has checked).
template <class T>
__global__ void __launch_bounds__(kBlockSize, 2) decode_kernel(const DecodeBoxesParams p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  if (i >= p.count * p.classes) return;
  const unsigned row = static_cast<unsigned>(i) / static_cast<unsigned>(p.classes);
  const auto deltas = read_row<T>(p.deltas, i, is_aligned<T>(p.deltas));
  const auto box = read_row<T>(p.boxes, row, is_aligned<T>(p.boxes));
  write_row<T>(p.decoded, i, decode_row(deltas, box, p.coding), is_aligned<T>(p.decoded));
}

template <class T, int kLanesPerRow>
__global__ void __launch_bounds__(kBlockSize, 2) decode_backward_kernel(const DecodeBoxesParams p) {
  using A = Accumulate<T>;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  const int64_t i = thread / kLanesPerRow;
  if (i >= p.count) return;  // whole warps, when a warp has a row
  const auto box = read_row<T>(p.boxes, i, is_aligned<T>(p.boxes));
  Row<A> grad_deltas, grad_box{};
  for (int64_t c = i * p.classes + thread % kLanesPerRow; c < (i + 1) * p.classes; c += kLanesPerRow) {
    decode_gradient(read_row<T>(p.deltas, c, is_aligned<T>(p.deltas)), box,
                    read_row<T>(p.decoded, c, is_aligned<T>(p.decoded)), p.coding, &grad_deltas, &grad_box);
    if (p.grad_deltas != nullptr) write_row<T>(p.grad_deltas, c, grad_deltas, is_aligned<T>(p.grad_deltas));
  }
  if (p.grad_boxes == nullptr) return;
  if constexpr (kLanesPerRow > 1) {
    for (int k = 0; k < 4; ++k) grad_box.value[k] = warp_reduce_sum(grad_box.value[k]);
    if (thread % kLanesPerRow != 0) return;
  }
  write_row<T>(p.grad_boxes, i, grad_box, is_aligned<T>(p.grad_boxes));
}

template <class T>
void decode_backward(const DecodeBoxesParams& p, Stream stream) {
  constexpr int kWarp = static_cast<int>(kWarpSize);
  if (p.classes >= kManyClasses) {
    launch(decode_backward_kernel<T, kWarp>, {{grid_size(p.count, kBlockSize / kWarp)}, {kBlockSize}}, stream, p);
  } else {
    launch(decode_backward_kernel<T, 1>, {{grid_size(p.count, kBlockSize)}, {kBlockSize}}, stream, p);
  }
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void encode_boxes_forward_cuda(const EncodeBoxesParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  const LaunchShape shape({grid_size(params.count, kBlockSize)}, {kBlockSize});
  dispatch_floating(params.dtype,
                    [&](auto tag) { launch(encode_kernel<typename decltype(tag)::type>, shape, stream, params); });
}

void encode_boxes_backward_cuda(const EncodeBoxesParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  const LaunchShape shape({grid_size(params.count, kBlockSize)}, {kBlockSize});
  dispatch_floating(params.dtype, [&](auto tag) {
    launch(encode_backward_kernel<typename decltype(tag)::type>, shape, stream, params);
  });
}

void decode_boxes_forward_cuda(const DecodeBoxesParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  const LaunchShape shape({grid_size(params.count * params.classes, kBlockSize)}, {kBlockSize});
  dispatch_floating(params.dtype,
                    [&](auto tag) { launch(decode_kernel<typename decltype(tag)::type>, shape, stream, params); });
}

void decode_boxes_backward_cuda(const DecodeBoxesParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) { decode_backward<typename decltype(tag)::type>(params, stream); });
}

}  // namespace fastcv

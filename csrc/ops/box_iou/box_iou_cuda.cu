// Overlap matrices on CUDA.
//
// Forward: a thread keeps kVector neighbouring columns' boxes in registers and walks kRowsPerThread rows, whose boxes
// all threads of a row read alike (one broadcast from the first-level cache); each store is 16 bytes wide when the rows
// allow it. A block is as wide as the matrix needs, the rest of its threads are further rows.
//
// Napkin maths, 10 000 x 10 000 in float32: 400 MB to write, 93 us at 4.3 TB/s; 10^8 pairs of about 30 instructions are
// 100 us of issue on 132 multiprocessors. Both matter.
//
// Backward, without atomics: sums over pieces of a row (a warp each, lanes over columns) and of a column (a thread
// each, neighbouring threads on neighbouring columns), then the pieces in order.
#include "core/cuda/launch.cuh"
#include "core/cuda/pack.cuh"
#include "core/cuda/warp.cuh"
#include "ops/box_iou/box_iou.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kBlockSize = 256;
constexpr int kRowsPerThread = 16;

template <class S>
FASTCV_HD OverlapEpsilons<S> epsilons(const BoxIouParams& p) {
  return {S(0), static_cast<S>(p.epsilon), static_cast<S>(p.epsilon)};
}

// How the blocks of the forward lie: threads per row of a block, and blocks per row and column of the matrix.
struct ForwardShape {
  unsigned threads_x, blocks_x, blocks_y;
};

template <class S, class Out, OverlapKind kKind, int kVector>
__global__ void __launch_bounds__(kBlockSize, 2)
    box_iou_forward_kernel(const BoxIouParams p, const ForwardShape shape) {
  const unsigned thread_x = threadIdx.x % shape.threads_x, thread_y = threadIdx.x / shape.threads_x;
  const int rows_of_block = kBlockSize / static_cast<int>(shape.threads_x);
  const int64_t n = blockIdx.x / (shape.blocks_x * shape.blocks_y);
  const int64_t block_x = blockIdx.x % shape.blocks_x, block_y = blockIdx.x / shape.blocks_x % shape.blocks_y;
  const int64_t column0 = (block_x * shape.threads_x + thread_x) * kVector;
  if (column0 >= p.columns) return;
  const OverlapEpsilons<S> epsilon = epsilons<S>(p);
  const S* boxes2 = static_cast<const S*>(p.boxes2) + (n * p.columns + column0) * 4;
  OverlapBox<S> columns[kVector];
#pragma unroll
  for (int v = 0; v < kVector; ++v) columns[v] = prepare_box<kKind>(boxes2 + 4 * v);
  const int64_t row0 = block_y * rows_of_block * kRowsPerThread + thread_y;
  for (int r = 0; r < kRowsPerThread; ++r) {
    const int64_t row = row0 + r * rows_of_block;
    if (row >= p.rows) return;
    const OverlapBox<S> box = prepare_box<kKind>(static_cast<const S*>(p.boxes1) + (n * p.rows + row) * 4);
    Pack<Out, kVector> result;
#pragma unroll
    for (int v = 0; v < kVector; ++v) {
      result.value[v] = static_cast<Out>(overlap_value<kKind, true>(box, columns[v], epsilon));
    }
    Out* target = static_cast<Out*>(p.overlap) + (n * p.rows + row) * p.columns + column0;
    store_pack(target, result);
  }
}

template <class S, class Out, OverlapKind kKind, int kVector>
void launch_forward(const BoxIouParams& p, Stream stream) {
  unsigned threads_x = 8;
  while (threads_x < kBlockSize && static_cast<int64_t>(threads_x) * kVector < p.columns) threads_x *= 2;
  const int64_t blocks_x = ceil_div<int64_t>(p.columns, threads_x * kVector);
  const int64_t blocks_y = ceil_div<int64_t>(p.rows, kBlockSize / threads_x * kRowsPerThread);
  const ForwardShape shape{threads_x, static_cast<unsigned>(blocks_x), static_cast<unsigned>(blocks_y)};
  launch(box_iou_forward_kernel<S, Out, kKind, kVector>, {{p.batch * blocks_x * blocks_y}, {kBlockSize}}, stream, p,
         shape);
}

template <class S, class Out, OverlapKind kKind>
void forward(const BoxIouParams& p, Stream stream) {
  constexpr int kVector = 16 / sizeof(Out);
  const bool aligned = reinterpret_cast<uintptr_t>(p.overlap) % 16 == 0 && p.columns % kVector == 0;
  if (aligned) {
    launch_forward<S, Out, kKind, kVector>(p, stream);
  } else {
    launch_forward<S, Out, kKind, 1>(p, stream);
  }
}

// One piece of the gradient of one box of boxes1: a warp, lanes over kColumnChunk columns.
template <class S, OverlapKind kKind>
__global__ void __launch_bounds__(kBlockSize, 2) box_iou_row_gradient_kernel(const BoxIouParams p, int64_t chunks) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * (kBlockSize / kWarpSize) + threadIdx.x / kWarpSize;
  if (item >= p.batch * chunks * p.rows) return;
  const int64_t row = item % p.rows, chunk = item / p.rows % chunks, n = item / p.rows / chunks;
  const OverlapEpsilons<S> epsilon = epsilons<S>(p);
  const OverlapBox<S> box = prepare_box<kKind>(static_cast<const S*>(p.boxes1) + (n * p.rows + row) * 4);
  const S* grad = static_cast<const S*>(p.overlap) + n * p.grad_strides[0] + row * p.grad_strides[1];
  const S* boxes2 = static_cast<const S*>(p.boxes2) + n * p.columns * 4;
  const int64_t begin = chunk * kColumnChunk;
  const int64_t end = least(begin + kColumnChunk, p.columns);
  OverlapGradient<S> sum{};
  for (int64_t column = begin + lane_id(); column < end; column += kWarpSize) {
    OverlapGradient<S> at_row, at_column;
    overlap_gradient<kKind, true>(box, prepare_box<kKind>(boxes2 + 4 * column), epsilon,
                                  grad[column * p.grad_strides[2]], at_row, at_column);
    add_gradient(sum, at_row);
  }
  sum = {warp_reduce_sum(sum.x1), warp_reduce_sum(sum.y1),   warp_reduce_sum(sum.x2),
         warp_reduce_sum(sum.y2), warp_reduce_sum(sum.area), warp_reduce_sum(sum.angle)};
  if (lane_id() == 0) corner_gradient<kKind>(box.box, sum, static_cast<S*>(p.workspace) + item * 4);
}

// One piece of the gradient of one box of boxes2: a thread over kRowChunk rows.
template <class S, OverlapKind kKind>
__global__ void __launch_bounds__(kBlockSize, 2)
    box_iou_column_gradient_kernel(const BoxIouParams p, S* pieces, int64_t chunks) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  if (item >= p.batch * chunks * p.columns) return;
  const int64_t column = item % p.columns, chunk = item / p.columns % chunks, n = item / p.columns / chunks;
  const OverlapEpsilons<S> epsilon = epsilons<S>(p);
  const OverlapBox<S> box = prepare_box<kKind>(static_cast<const S*>(p.boxes2) + (n * p.columns + column) * 4);
  const S* grad = static_cast<const S*>(p.overlap) + n * p.grad_strides[0] + column * p.grad_strides[2];
  const S* boxes1 = static_cast<const S*>(p.boxes1) + n * p.rows * 4;
  const int64_t begin = chunk * kRowChunk;
  const int64_t end = least(begin + kRowChunk, p.rows);
  OverlapGradient<S> sum{};
  for (int64_t row = begin; row < end; ++row) {
    OverlapGradient<S> at_row, at_column;
    overlap_gradient<kKind, true>(prepare_box<kKind>(boxes1 + 4 * row), box, epsilon, grad[row * p.grad_strides[1]],
                                  at_row, at_column);
    add_gradient(sum, at_column);
  }
  corner_gradient<kKind>(box.box, sum, pieces + item * 4);
}

// (B, chunks, count) -> (B, count), in the order of the pieces.
template <class S>
__global__ void __launch_bounds__(kBlockSize, 2)
    box_iou_sum_pieces_kernel(const S* pieces, int64_t batch, int64_t chunks, int64_t count, S* result) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  if (item >= batch * count) return;
  const S* source = pieces + item / count * chunks * count + item % count;
  S sum = 0;
  for (int64_t k = 0; k < chunks; ++k) sum += source[k * count];
  result[item] = sum;
}

template <class S>
void sum_pieces(const S* pieces, int64_t batch, int64_t chunks, int64_t count, void* result, Stream stream) {
  launch(box_iou_sum_pieces_kernel<S>, {{grid_size(batch * count, kBlockSize)}, {kBlockSize}}, stream, pieces, batch,
         chunks, count, static_cast<S*>(result));
}

template <class S, OverlapKind kKind>
void backward(const BoxIouParams& p, Stream stream) {
  const int64_t row_chunks = ceil_div(p.rows, kRowChunk), column_chunks = ceil_div(p.columns, kColumnChunk);
  S* row_pieces = static_cast<S*>(p.workspace);
  S* column_pieces = row_pieces + p.batch * column_chunks * p.rows * 4;
  if (p.grad_boxes1 != nullptr) {
    const int64_t blocks = grid_size(p.batch * column_chunks * p.rows, kBlockSize / kWarpSize);
    launch(box_iou_row_gradient_kernel<S, kKind>, {{blocks}, {kBlockSize}}, stream, p, column_chunks);
    sum_pieces(row_pieces, p.batch, column_chunks, p.rows * 4, p.grad_boxes1, stream);
  }
  if (p.grad_boxes2 != nullptr) {
    const int64_t blocks = grid_size(p.batch * row_chunks * p.columns, kBlockSize);
    launch(box_iou_column_gradient_kernel<S, kKind>, {{blocks}, {kBlockSize}}, stream, p, column_pieces, row_chunks);
    sum_pieces(column_pieces, p.batch, row_chunks, p.columns * 4, p.grad_boxes2, stream);
  }
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void box_iou_forward_cuda(const BoxIouParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_overlap(params.kind, [&](auto tag) {
    constexpr OverlapKind kKind = decltype(tag)::value;
    if (params.dtype == DType::kFloat32) {
      forward<float, float, kKind>(params, stream);
    } else if (params.narrow) {
      forward<double, float, kKind>(params, stream);
    } else {
      forward<double, double, kKind>(params, stream);
    }
  });
}

void box_iou_backward_cuda(const BoxIouParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_overlap(params.kind, [&](auto tag) {
    constexpr OverlapKind kKind = decltype(tag)::value;
    if (params.dtype == DType::kFloat32) {
      backward<float, kKind>(params, stream);
    } else {
      backward<double, kKind>(params, stream);
    }
  });
}

}  // namespace fastcv

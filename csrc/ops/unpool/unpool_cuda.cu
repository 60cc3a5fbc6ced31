// Upsampling without weights on CUDA: one thread per element of the result, bound by memory. See unpool.h.
#include "families/image/rows.cuh"
#include "ops/unpool/unpool.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

// Napkin maths, nearest x2 of 64 x 64 x 64 x 64, float32: 67 MB read, 268 MB written, 78 us at 4.3 TB/s; neighbouring
// threads read the same element, which the first-level cache serves.
template <class U, bool kNails>
__global__ void __launch_bounds__(kRowsBlockSize, 2) unpool_forward_kernel(const UnpoolParams p) {
  const unsigned scale_y = static_cast<unsigned>(p.scale_y), scale_x = static_cast<unsigned>(p.scale_x);
  const unsigned run = static_cast<unsigned>(p.shape.run);
  const int64_t length = row_length(p.shape);
  for_each_in_rows(row_count(p.shape) * p.scale_y, length * p.scale_x, [&](unsigned row, unsigned column) {
    const unsigned x = column / run, source_x = x / scale_x, source_row = row / scale_y;
    const bool nail = row == source_row * scale_y && x == source_x * scale_x;
    U value = 0;
    if (!kNails || nail) {
      value = static_cast<const U*>(p.small)[source_row * length + source_x * p.shape.run + (column - x * run)];
    }
    static_cast<U*>(p.large)[row * length * p.scale_x + column] = value;
  });
}

template <class U>
__global__ void __launch_bounds__(kRowsBlockSize, 2) unpool_nails_backward_kernel(const UnpoolParams p) {
  const unsigned run = static_cast<unsigned>(p.shape.run);
  const int64_t length = row_length(p.shape);
  for_each_in_rows(row_count(p.shape), length, [&](unsigned row, unsigned column) {
    const unsigned x = column / run;
    const int64_t source = row * p.scale_y * length * p.scale_x + x * p.scale_x * p.shape.run + (column - x * run);
    static_cast<U*>(p.small)[row * length + column] = static_cast<const U*>(p.large)[source];
  });
}

template <class T>
__global__ void __launch_bounds__(kRowsBlockSize, 2) unpool_nearest_backward_kernel(const UnpoolParams p) {
  using A = Accumulate<T>;
  const unsigned run = static_cast<unsigned>(p.shape.run);
  const int scale_y = static_cast<int>(p.scale_y), scale_x = static_cast<int>(p.scale_x);
  const int64_t length = row_length(p.shape), stride = length * p.scale_x;
  for_each_in_rows(row_count(p.shape), length, [&](unsigned row, unsigned column) {
    const unsigned x = column / run;
    const T* in =
        static_cast<const T*>(p.large) + row * p.scale_y * stride + x * p.scale_x * p.shape.run + (column - x * run);
    A sum(0);
    for (int j = 0; j < scale_x; ++j) {
      A part = to_float(in[j * p.shape.run]);
      for (int k = 1; k < scale_y; ++k) part += to_float(in[k * stride + j * p.shape.run]);
      sum = j == 0 ? part : sum + part;
    }
    static_cast<T*>(p.small)[row * length + column] = from_float<T>(sum);
  });
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void unpool_forward_cuda(const UnpoolParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  const LaunchShape shape =
      rows_launch(row_count(params.shape) * params.scale_y, row_length(params.shape) * params.scale_x);
  dispatch_moved(params.dtype, [&](auto tag) {
    using U = typename decltype(tag)::type;
    launch(params.nails ? unpool_forward_kernel<U, true> : unpool_forward_kernel<U, false>, shape, stream, params);
  });
}

void unpool_backward_cuda(const UnpoolParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  const LaunchShape shape = rows_launch(row_count(params.shape), row_length(params.shape));
  if (params.nails) {
    dispatch_moved(params.dtype, [&](auto tag) {
      launch(unpool_nails_backward_kernel<typename decltype(tag)::type>, shape, stream, params);
    });
  } else {
    dispatch_floating(params.dtype, [&](auto tag) {
      launch(unpool_nearest_backward_kernel<typename decltype(tag)::type>, shape, stream, params);
    });
  }
}

}  // namespace fastcv

// Bilinear interpolation on CUDA: one thread per element of the result, bound by memory. See upsample_bilinear2d.h.
//
// The backward has no atomics: the thread of an input pixel goes over the output pixels that may take from it, four a
// side when the map was doubled, and adds what they took, in a fixed order.
#include "families/image/rows.cuh"
#include "ops/upsample_bilinear2d/upsample_bilinear2d.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

// Napkin maths, x2 of 64 x 64 x 64 x 64, float32: 67 MB read, 268 MB written, 78 us at 4.3 TB/s.
template <class T, bool kChannelsLast>
__global__ void __launch_bounds__(kRowsBlockSize, 2) upsample_bilinear2d_forward_kernel(const UpsampleParams p) {
  using A = Accumulate<T>;
  const int64_t length = row_length(p.shape), columns = p.output_width * p.shape.run;
  const unsigned run = static_cast<unsigned>(p.shape.run), height = static_cast<unsigned>(p.output_height);
  const A scale_y = static_cast<A>(p.scale[0]), scale_x = static_cast<A>(p.scale[1]);
  for_each_in_rows(p.shape.outer * p.output_height, columns, [&](unsigned row, unsigned column) {
    const unsigned outer = row / height, x = kChannelsLast ? column / run : column;
    const unsigned channel = kChannelsLast ? column - x * run : 0;
    const UpsampleTap<A> ty = upsample_tap(scale_y, p.align_corners, row - outer * height, p.shape.height);
    const UpsampleTap<A> tx = upsample_tap(scale_x, p.align_corners, x, p.shape.width);
    const T* low = static_cast<const T*>(p.input) + (outer * p.shape.height + ty.low) * length + channel;
    const T* high = static_cast<const T*>(p.input) + (outer * p.shape.height + ty.high) * length + channel;
    const int64_t left = kChannelsLast ? tx.low * p.shape.run : tx.low;
    const int64_t right = kChannelsLast ? tx.high * p.shape.run : tx.high;
    const A upper = tx.weight_low * to_float(low[left]) + tx.weight_high * to_float(low[right]);
    const A lower = tx.weight_low * to_float(high[left]) + tx.weight_high * to_float(high[right]);
    static_cast<T*>(p.output)[row * columns + column] = from_float<T>(ty.weight_low * upper + ty.weight_high * lower);
  });
}

template <class T, bool kChannelsLast>
__global__ void __launch_bounds__(kRowsBlockSize, 2) upsample_bilinear2d_backward_kernel(const UpsampleParams p) {
  using A = Accumulate<T>;
  const int64_t length = row_length(p.shape), out_length = p.output_width * p.shape.run;
  const unsigned run = static_cast<unsigned>(p.shape.run), height = static_cast<unsigned>(p.shape.height);
  const A scale_y = static_cast<A>(p.scale[0]), scale_x = static_cast<A>(p.scale[1]);
  for_each_in_rows(row_count(p.shape), length, [&](unsigned row, unsigned column) {
    const unsigned outer = row / height, y = row - outer * height, x = kChannelsLast ? column / run : column;
    const T* grad =
        static_cast<const T*>(p.output) + outer * p.output_height * out_length + (kChannelsLast ? column - x * run : 0);
    const UpsampleRange ys = upsample_range(scale_y, p.align_corners, y, p.shape.height, p.output_height);
    const UpsampleRange xs = upsample_range(scale_x, p.align_corners, x, p.shape.width, p.output_width);
    A sum(0);
    for (int j = xs.first; j < xs.last; ++j) {
      const UpsampleTap<A> tx = upsample_tap(scale_x, p.align_corners, j, p.shape.width);
      if (tx.low != static_cast<int>(x) && tx.high != static_cast<int>(x)) continue;
      A part(0);
      for (int i = ys.first; i < ys.last; ++i) {
        const UpsampleTap<A> ty = upsample_tap(scale_y, p.align_corners, i, p.shape.height);
        if (ty.low != static_cast<int>(y) && ty.high != static_cast<int>(y)) continue;
        part += upsample_weight(ty, y) * to_float(grad[i * out_length + (kChannelsLast ? j * p.shape.run : j)]);
      }
      sum += upsample_weight(tx, x) * part;
    }
    static_cast<T*>(p.input)[row * length + column] = from_float<T>(sum);
  });
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void upsample_bilinear2d_forward_cuda(const UpsampleParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  const ImageShape& shape = params.shape;
  dispatch_floating(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(shape.run > 1 ? upsample_bilinear2d_forward_kernel<T, true> : upsample_bilinear2d_forward_kernel<T, false>,
           rows_launch(shape.outer * params.output_height, params.output_width * shape.run), stream, params);
  });
}

void upsample_bilinear2d_backward_cuda(const UpsampleParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  const ImageShape& shape = params.shape;
  dispatch_floating(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(shape.run > 1 ? upsample_bilinear2d_backward_kernel<T, true> : upsample_bilinear2d_backward_kernel<T, false>,
           rows_launch(row_count(shape), row_length(shape)), stream, params);
  });
}

}  // namespace fastcv

// Max pooling and unpooling on CUDA: one thread per element of the result, bound by memory. See max_pool2d.h.
//
// The backward has no atomics: the thread of a pixel looks at the windows that may hold it and adds the gradients of
// those whose index it is, in their order.
#include "core/cuda/atomic.cuh"
#include "families/image/rows.cuh"
#include "ops/max_pool2d/max_pool2d.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

struct Position {
  unsigned outer, y, x, channel;
};

template <bool kChannelsLast>
__device__ __forceinline__ Position position_of(unsigned row, unsigned column, int64_t height, int64_t run) {
  const unsigned rows = static_cast<unsigned>(height), width = static_cast<unsigned>(run);
  const unsigned outer = row / rows, x = kChannelsLast ? column / width : column;
  return {outer, row - outer * rows, x, kChannelsLast ? column - x * width : 0};
}

// Napkin maths, 2 x 2 windows on 64 x 64 x 128 x 128, float32: 268 MB read, 67 MB of values and 134 MB of indices
// written, 109 us at 4.3 TB/s.
template <class T, bool kChannelsLast>
__global__ void __launch_bounds__(kRowsBlockSize, 2) max_pool2d_forward_kernel(const MaxPool2dParams p) {
  using A = Accumulate<T>;
  const int64_t columns = p.pooled_width * p.shape.run;
  const int width = static_cast<int>(p.shape.width);
  for_each_in_rows(p.shape.outer * p.pooled_height, columns, [&](unsigned row, unsigned column) {
    const Position here = position_of<kChannelsLast>(row, column, p.pooled_height, p.shape.run);
    const WindowAxis ys = window_axis(p, 0, here.y, p.shape.height), xs = window_axis(p, 1, here.x, p.shape.width);
    const T* map = static_cast<const T*>(p.large) + here.outer * p.shape.height * row_length(p.shape) + here.channel;
    A leader = -static_cast<A>(__builtin_huge_val());
    int place = ys.first * width + xs.first;
    for (int y = ys.first; y < ys.end; y += p.dilation[0]) {
      for (int x = xs.first; x < xs.end; x += p.dilation[1]) {
        const int challenging = y * width + x;
        const A challenger = to_float(map[kChannelsLast ? challenging * p.shape.run : challenging]);
        if (!(challenger > leader || challenger != challenger)) continue;
        leader = challenger;
        place = challenging;
      }
    }
    static_cast<T*>(p.small)[row * columns + column] = from_float<T>(leader);
    if (p.indices != nullptr) p.indices[row * columns + column] = place;
  });
}

template <class T, bool kChannelsLast>
__global__ void __launch_bounds__(kRowsBlockSize, 2) max_pool2d_backward_kernel(const MaxPool2dParams p) {
  using A = Accumulate<T>;
  const int64_t length = row_length(p.shape), pooled_length = p.pooled_width * p.shape.run;
  for_each_in_rows(row_count(p.shape), length, [&](unsigned row, unsigned column) {
    const Position here = position_of<kChannelsLast>(row, column, p.shape.height, p.shape.run);
    const WindowRange ys = windows_of_pixel(p, 0, here.y, p.pooled_height);
    const WindowRange xs = windows_of_pixel(p, 1, here.x, p.pooled_width);
    const int64_t place = here.y * p.shape.width + here.x;
    A sum(0);
    for (int y = ys.first; y <= ys.last; ++y) {
      for (int x = xs.first; x <= xs.last; ++x) {
        const int64_t window =
            (here.outer * p.pooled_height + y) * pooled_length + (kChannelsLast ? x * p.shape.run + here.channel : x);
        if (p.indices[window] == place) sum += to_float(static_cast<const T*>(p.small)[window]);
      }
    }
    static_cast<T*>(p.large)[row * length + column] = from_float<T>(sum);
  });
}

// For the kernels with given indices a row is a plane or (channels_last) an image of `small`.
template <class U>
__global__ void __launch_bounds__(kRowsBlockSize, 2) max_pool2d_gather_kernel(const MaxPool2dParams p) {
  const int64_t pixels = p.shape.height * p.shape.width;
  const unsigned run = static_cast<unsigned>(p.shape.run);
  for_each_in_rows(p.shape.outer * p.pooled_height, p.pooled_width * p.shape.run, [&](unsigned row, unsigned column) {
    const int64_t i = row * p.pooled_width * p.shape.run + column;
    const int64_t index = p.indices[i], plane = row / static_cast<unsigned>(p.pooled_height);
    U value = 0;
    if (index >= 0 && index < pixels) {
      value = static_cast<const U*>(p.large)[(plane * pixels + index) * p.shape.run + column % run];
    }
    static_cast<U*>(p.small)[i] = value;
  });
}

// ---- max_unpool2d ----
//
// Where two values have the same place the last one has to win, whatever the order of the threads. So first each place
// gets the largest position among those that name it, then its value is fetched.

__global__ void __launch_bounds__(kRowsBlockSize, 2) max_unpool2d_clear_kernel(const MaxPool2dParams p) {
  const int64_t length = row_length(p.shape);
  for_each_in_rows(row_count(p.shape), length,
                   [&](unsigned row, unsigned column) { p.winners[row * length + column] = -1; });
}

__global__ void __launch_bounds__(kRowsBlockSize, 2) max_unpool2d_compete_kernel(const MaxPool2dParams p) {
  const int64_t pixels = p.shape.height * p.shape.width;
  const unsigned height = static_cast<unsigned>(p.pooled_height), run = static_cast<unsigned>(p.shape.run);
  for_each_in_rows(p.shape.outer * p.pooled_height, p.pooled_width * p.shape.run, [&](unsigned row, unsigned column) {
    const int64_t index = p.indices[row * p.pooled_width * p.shape.run + column];
    if (index < 0 || index >= pixels) return;
    const unsigned plane = row / height, x = column / run;
    const int64_t position = (row - plane * height) * p.pooled_width + x;
    atomic_max(p.winners + (plane * pixels + index) * p.shape.run + (column - x * run), static_cast<int32_t>(position));
  });
}

template <class U>
__global__ void __launch_bounds__(kRowsBlockSize, 2) max_unpool2d_kernel(const MaxPool2dParams p) {
  const int64_t length = row_length(p.shape);
  const unsigned height = static_cast<unsigned>(p.shape.height), run = static_cast<unsigned>(p.shape.run);
  for_each_in_rows(row_count(p.shape), length, [&](unsigned row, unsigned column) {
    const int32_t winner = p.winners[row * length + column];
    const int64_t plane = row / height;
    U value = 0;
    if (winner >= 0) {
      const int64_t place = (plane * p.pooled_height * p.pooled_width + winner) * p.shape.run + column % run;
      value = static_cast<const U*>(p.small)[place];
    }
    static_cast<U*>(p.large)[row * length + column] = value;
  });
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void max_pool2d_forward_cuda(const MaxPool2dParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  const LaunchShape shape =
      rows_launch(params.shape.outer * params.pooled_height, params.pooled_width * params.shape.run);
  dispatch_floating(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(params.shape.run > 1 ? max_pool2d_forward_kernel<T, true> : max_pool2d_forward_kernel<T, false>, shape,
           stream, params);
  });
}

void max_pool2d_backward_cuda(const MaxPool2dParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  const LaunchShape shape = rows_launch(row_count(params.shape), row_length(params.shape));
  dispatch_floating(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(params.shape.run > 1 ? max_pool2d_backward_kernel<T, true> : max_pool2d_backward_kernel<T, false>, shape,
           stream, params);
  });
}

void max_pool2d_gather_cuda(const MaxPool2dParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  const LaunchShape shape =
      rows_launch(params.shape.outer * params.pooled_height, params.pooled_width * params.shape.run);
  dispatch_moved(params.dtype, [&](auto tag) {
    launch(max_pool2d_gather_kernel<typename decltype(tag)::type>, shape, stream, params);
  });
}

void max_unpool2d_cuda(const MaxPool2dParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  const LaunchShape large = rows_launch(row_count(params.shape), row_length(params.shape));
  const LaunchShape small =
      rows_launch(params.shape.outer * params.pooled_height, params.pooled_width * params.shape.run);
  launch(max_unpool2d_clear_kernel, large, stream, params);
  launch(max_unpool2d_compete_kernel, small, stream, params);
  dispatch_moved(params.dtype,
                 [&](auto tag) { launch(max_unpool2d_kernel<typename decltype(tag)::type>, large, stream, params); });
}

}  // namespace fastcv

// Pasting of masks on CUDA. See paste_masks.h for the meaning.
#include "core/cuda/launch.cuh"
#include "core/cuda/pack.cuh"
#include "ops/paste_masks/paste_masks.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

// The plane of a mask is a flat run of pixels; a thread writes kPixels neighbouring ones with one store (they may go on
// in the next row) and a block kPerThread such groups, a block's width apart. The soft mask is a few kilobytes and
// stays in the first-level cache.
//
// Napkin maths, 400 masks 28 x 28 into 800 x 1333, float32: 1.7 GB are written, 0.4 ms at 4.3 TB/s. Pixels inside of
// boxes, one in 25, take about 60 instructions: 17 M x 60 on 132 SMs x 128 lanes are 35 us.

constexpr int kBlockSize = 256;
constexpr int kPerThread = 4;

template <class T, class A>
FASTCV_HD A mask_value(const T* row, int32_t x) {
  return x >= 0 ? static_cast<A>(to_float(row[x])) : A(0);
}

template <class T, class A>
FASTCV_HD A interpolate(const T* mask, int32_t mask_width, int32_t row, const PasteTap<A>& tap) {
  if (row < 0) return A(0);
  const T* source = mask + row * static_cast<int64_t>(mask_width);
  return tap.weight_low * mask_value<T, A>(source, tap.low) + tap.weight_high * mask_value<T, A>(source, tap.high);
}

template <class T, class Out, int kPixels>
__global__ void __launch_bounds__(kBlockSize, 2)
    paste_masks_kernel(const PasteMasksParams p, unsigned blocks_per_mask) {
  using A = Accumulate<T>;
  constexpr bool kDecides = sizeof(Out) == 1;
  const unsigned n = blockIdx.x / blocks_per_mask, block = blockIdx.x % blocks_per_mask;
  const unsigned pixels = static_cast<unsigned>(p.height) * static_cast<unsigned>(p.width);
  const unsigned image_width = static_cast<unsigned>(p.width);
  const int32_t padding = static_cast<int32_t>(p.padding);
  const int32_t mask_height = static_cast<int32_t>(p.mask_height), mask_width = static_cast<int32_t>(p.mask_width);
  const T* mask = static_cast<const T*>(p.masks) + n * p.mask_height * p.mask_width;
  Out* image = static_cast<Out*>(p.pasted) + n * static_cast<int64_t>(pixels);
  const A threshold = static_cast<A>(p.threshold);
  PasteArea area;
  const bool any = mask_height > 0 && mask_width > 0 && paste_area(p, n, &area);
  if (!any) area.x = area.y = {0, 1, 0, 0};
  const A step_x = static_cast<A>(mask_width + 2 * padding) / static_cast<A>(area.x.size);
  const A step_y = static_cast<A>(mask_height + 2 * padding) / static_cast<A>(area.y.size);

  for (int i = 0; i < kPerThread; ++i) {
    const unsigned group = (block * kPerThread + i) * kBlockSize + threadIdx.x;
    if (group >= pixels / kPixels) return;
    int32_t y = static_cast<int32_t>(group * kPixels / image_width);
    int32_t x = static_cast<int32_t>(group * kPixels % image_width);
    Pack<Out, kPixels> values;
#pragma unroll
    for (int k = 0; k < kPixels; ++k) {
      A value = 0;
      if (y >= area.y.begin && y < area.y.end && x >= area.x.begin && x < area.x.end) {
        const PasteTap<A> tap_x = paste_tap(x - area.x.first, step_x, mask_width, padding);
        const PasteTap<A> tap_y = paste_tap(y - area.y.first, step_y, mask_height, padding);
        value = tap_y.weight_low * interpolate(mask, mask_width, tap_y.low, tap_x) +
                tap_y.weight_high * interpolate(mask, mask_width, tap_y.high, tap_x);
      }
      if constexpr (kDecides) {
        values.value[k] = value > threshold;
      } else {
        values.value[k] = from_float<Out>(value);
      }
      if (++x == static_cast<int32_t>(image_width)) {
        x = 0;
        ++y;
      }
    }
    store_pack(image + static_cast<int64_t>(group) * kPixels, values);
  }
}

template <class T, class Out, int kPixels>
void paste_packed(const PasteMasksParams& p, Stream stream) {
  const int64_t groups = p.height * p.width / kPixels;
  const int64_t blocks = ceil_div<int64_t>(groups, kBlockSize * kPerThread);
  launch(paste_masks_kernel<T, Out, kPixels>, {{p.count * blocks}, {kBlockSize}}, stream, p,
         static_cast<unsigned>(blocks));
}

template <class T, class Out>
void paste(const PasteMasksParams& p, Stream stream) {
  constexpr int kPixels = sizeof(Out) == 1 ? 8 : static_cast<int>(16 / sizeof(Out));
  const bool aligned = reinterpret_cast<uintptr_t>(p.pasted) % (kPixels * sizeof(Out)) == 0;
  if (aligned && p.height * p.width % kPixels == 0) {
    paste_packed<T, Out, kPixels>(p, stream);
  } else {
    paste_packed<T, Out, 1>(p, stream);
  }
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void paste_masks_cuda(const PasteMasksParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (params.decides) {
      paste<T, uint8_t>(params, stream);
    } else {
      paste<T, T>(params, stream);
    }
  });
}

}  // namespace fastcv

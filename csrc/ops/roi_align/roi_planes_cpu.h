// Pooling a RoI one channel at a time, one axis after the other: for few channels, such as those of a photograph, where
// blocks of neighbouring channels would be mostly padding. CPU translation units only.
//
// The rows that the RoI touches are first interpolated along x to one value per bin, then these lines are summed along
// y, a vector of bins at a time. With grid x grid samples a bin costs about (grid + 1) multiplications along each axis
// instead of (grid + 1)^2.
#pragma once

#include "core/memory.h"
#include "families/roi/roi_taps_cpu.h"

namespace fastcv::FASTCV_VARIANT {

constexpr int64_t kFewChannels = 4;

// `map` and `pooled` point at the first of `channels` channels of one image and one RoI; strides are c, y, x and c, p,
// q.
template <class T, class A>
void pool_planes(const T* map, const int64_t (&map_strides)[3], const AxisTaps<A>& y, const AxisTaps<A>& x,
                 int64_t channels, T* pooled, const int64_t (&pooled_strides)[3]) {
  const int64_t padded = round_up(x.bins, kLanes<A>);
  const int64_t rows = y.count() > 0 ? y.highest - y.lowest + 1 : 0;
  const Scratch memory(bytes_of<A>(rows + 1, padded) + bytes_of<char>(rows));
  A* lines = memory.as<A>();  // [rows][padded], made when first needed
  A* sums = lines + rows * padded;
  char* made = reinterpret_cast<char*>(sums + padded);
  for (int64_t c = 0; c < channels; ++c) {
    const T* plane = map + c * map_strides[0];
    __builtin_memset(made, 0, rows);
    for (int64_t bin_y = 0; bin_y < y.bins; ++bin_y) {
      for (int64_t i = y.first[bin_y]; i < y.first[bin_y + 1]; ++i) {
        const int64_t row = y.pixel[i] - y.lowest;
        if (made[row]) continue;
        made[row] = 1;
        const T* source = plane + y.pixel[i] * map_strides[1];
        A* line = lines + row * padded;
        for (int64_t bin_x = 0; bin_x < x.bins; ++bin_x) {
          A sum = 0;
          for (int64_t j = x.first[bin_x]; j < x.first[bin_x + 1]; ++j) {
            sum = multiply_add(x.weight[j], static_cast<A>(to_float(source[x.pixel[j] * map_strides[2]])), sum);
          }
          line[bin_x] = sum;
        }
        for (int64_t bin_x = x.bins; bin_x < padded; ++bin_x) line[bin_x] = A(0);
      }
      for (int64_t bin_x = 0; bin_x < padded; bin_x += kLanes<A>) {
        Vector<A> sum{};
        for (int64_t i = y.first[bin_y]; i < y.first[bin_y + 1]; ++i) {
          sum = multiply_add(broadcast(y.weight[i]), load(lines + (y.pixel[i] - y.lowest) * padded + bin_x), sum);
        }
        store(sums + bin_x, sum);
      }
      T* target = pooled + c * pooled_strides[0] + bin_y * pooled_strides[1];
      for (int64_t bin_x = 0; bin_x < x.bins; ++bin_x) target[bin_x * pooled_strides[2]] = from_float<T>(sums[bin_x]);
    }
  }
}

}  // namespace fastcv::FASTCV_VARIANT

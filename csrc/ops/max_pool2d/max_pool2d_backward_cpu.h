// The backward of max pooling on the CPU: the gradient of every window goes to the place that its index names.
//
// Every pixel looks at the windows that may hold it, so that it is written once, in whole vectors, and its sum has a
// fixed order. In contiguous maps vectors lie along rows: of windows of stride 1 or 2, those that hold neighbouring
// pixels (of one parity) at one of their taps are neighbours too. Only where windows are large, or further apart, are
// gradients added one by one.
//
// Napkin maths, 2 x 2 windows to 8 x 64 x 128 x 128, float32: 8 MB of gradients and 17 MB of indices read, 34 MB
// written; 4 ms at 14 GB/s. For 32 pixels a compare, an addition and a store each of two vectors; one by one 16 windows
// take 100 instructions.
#pragma once

#include "core/interleave_cpu.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "ops/max_pool2d/max_pool2d.h"

namespace fastcv::FASTCV_VARIANT {

// A place in a plane, and a vector of them.
template <class A>
using Place = Integer<A>;
template <class A>
using Places = IntegerVector<A>;

constexpr int64_t kPieceElements = 16 << 10;

int64_t grain_for(int64_t item_elements) {
  return item_elements >= kPieceElements ? 1 : kPieceElements / (item_elements > 0 ? item_elements : 1);
}

// Places that no int32 holds become -1.
template <class A>
inline Places<A> load_places(const int64_t* indices) {
  Place<A> places[kLanes<A>];
  for (int i = 0; i < kLanes<A>; ++i) {
    const int64_t outside = sizeof(A) == 4 && indices[i] >> 31 != 0 ? -1 : 0;
    places[i] = static_cast<Place<A>>(indices[i] | outside);
  }
  Places<A> result;
  __builtin_memcpy(&result, places, sizeof(result));
  return result;
}

// Copies a row of windows, in the type of the sums.
template <class T, class A>
void copy_windows(const T* values, const int64_t* indices, int64_t count, A* to_values, Place<A>* to_places) {
  int64_t i = 0;
  for (; i + kLanes<A> <= count; i += kLanes<A>) {
    store(to_values + i, load(values + i));
    const Places<A> places = load_places<A>(indices + i);
    __builtin_memcpy(to_places + i, &places, sizeof(places));
  }
  for (; i < count; ++i) {
    to_values[i] = to_float(values[i]);
    to_places[i] = sizeof(A) == 4 && indices[i] >> 31 != 0 ? Place<A>(-1) : static_cast<Place<A>>(indices[i]);
  }
}

// ---- contiguous ----

// How rows of pixels meet rows of windows: at lane j, pixel kStride * j + r meets window j + shift at tap k where
// r + padding - k * dilation = kStride * shift.
struct RowMeeting {
  int64_t before, width;  // windows of a padded row: `before` that are none, and as many as vectors may read
};

template <class A, int kStride>
RowMeeting row_meeting(const MaxPool2dParams& p) {
  const int64_t reach = static_cast<int64_t>(p.kernel[1] - 1) * p.dilation[1];
  const int64_t before = reach > p.padding[1] ? ceil_div(reach - p.padding[1], kStride) : 0;
  const int64_t steps = ceil_div(p.shape.width, kStride);
  const int64_t read = round_up(steps, kLanes<A>) + (kStride - 1 + p.padding[1]) / kStride;
  return {before, before + greatest(read, p.pooled_width)};
}

constexpr int kMostMeetings = 100;

// Whether vectors along rows serve, and pay.
inline bool meets_in_rows(const MaxPool2dParams& p) {
  const int64_t taps = static_cast<int64_t>(p.kernel[0]) * p.kernel[1], steps = p.stride[0] * p.stride[1];
  return p.stride[1] <= 2 && p.stride[0] <= 2 && taps <= 25 * steps && p.padding[1] <= 64 && p.dilation[1] <= 64;
}

// One plane: `values` and `places` are its windows in padded rows.
template <class T, int kStride>
void add_windows_of_rows(const MaxPool2dParams& p, RowMeeting meeting, const Accumulate<T>* values,
                         const Place<Accumulate<T>>* places, T* target) {
  using A = Accumulate<T>;
  using P = Place<A>;
  constexpr int kStep = kLanes<A>;
  const int64_t width = p.shape.width;
  Places<A> lane;
  for (int i = 0; i < kStep; ++i) lane[i] = static_cast<P>(i * kStride);
  for (int64_t y = 0; y < p.shape.height; ++y) {
    int64_t offsets[kStride][kMostMeetings];
    int count[kStride] = {};
    const WindowRange ys = windows_of_pixel(p, 0, y, p.pooled_height);
    for (int64_t i = ys.first; i <= ys.last; ++i) {
      if ((y + p.padding[0] - i * p.stride[0]) % p.dilation[0] != 0) continue;
      for (int k = p.kernel[1] - 1; k >= 0; --k) {  // windows in ascending order
        for (int r = 0; r < kStride; ++r) {
          const int64_t distance = r + p.padding[1] - static_cast<int64_t>(k) * p.dilation[1];
          if (distance % kStride != 0) continue;
          offsets[r][count[r]++] = i * meeting.width + meeting.before + distance / kStride;
        }
      }
    }
    T* row = target + y * width;
    for (int64_t j = 0; kStride * j < width; j += kStep) {
      Vector<A> sums[kStride];
      for (int r = 0; r < kStride; ++r) {
        const Places<A> here = lane + static_cast<P>(y * width + kStride * j + r);
        Vector<A> sum{};
        for (int n = 0; n < count[r]; ++n) {
          Places<A> place;
          __builtin_memcpy(&place, places + offsets[r][n] + j, sizeof(place));
          sum += place == here ? load(values + offsets[r][n] + j) : Vector<A>{};
        }
        sums[r] = sum;
      }
      if constexpr (kStride == 2) interleave<A>(sums[0], sums[1], &sums[0], &sums[1]);
      const int64_t left = width - kStride * j;
      if (left >= kStride * kStep) {
        for (int r = 0; r < kStride; ++r) store(row + kStride * j + r * kStep, sums[r]);
      } else {
        T edge[kStride * kStep];
        for (int r = 0; r < kStride; ++r) store(edge + r * kStep, sums[r]);
        __builtin_memcpy(row + kStride * j, edge, left * sizeof(T));
      }
    }
  }
}

template <class T, int kStride>
void add_windows_in_rows(const MaxPool2dParams& p) {
  using A = Accumulate<T>;
  using P = Place<A>;
  const RowMeeting meeting = row_meeting<A, kStride>(p);
  const int64_t pixels = p.shape.height * p.shape.width, windows = p.pooled_height * p.pooled_width;
  const int64_t padded = p.pooled_height * meeting.width;
  parallel_for(p.shape.outer, grain_for(pixels), [&](int64_t begin, int64_t end) {
    const Scratch scratch(bytes_of<A>(p.pooled_height, meeting.width) + bytes_of<P>(p.pooled_height, meeting.width));
    A* values = scratch.as<A>();
    P* places = reinterpret_cast<P*>(values + padded);
    for (int64_t i = 0; i < padded; ++i) values[i] = A(0), places[i] = P(-1);
    for (int64_t plane = begin; plane < end; ++plane) {
      for (int64_t i = 0; i < p.pooled_height; ++i) {
        const int64_t from = plane * windows + i * p.pooled_width, to = i * meeting.width + meeting.before;
        copy_windows(static_cast<const T*>(p.small) + from, p.indices + from, p.pooled_width, values + to, places + to);
      }
      add_windows_of_rows<T, kStride>(p, meeting, values, places, static_cast<T*>(p.large) + plane * pixels);
    }
  });
}

// target[place] += value for each value of a plane; A is what `target` holds.
template <class T, class A>
void add_at_places(const MaxPool2dParams& p, int64_t plane, A* target) {
  const uint64_t pixels = p.shape.height * p.shape.width;
  const int64_t pooled = p.pooled_height * p.pooled_width;
  const T* values = static_cast<const T*>(p.small) + plane * pooled;
  const int64_t* indices = p.indices + plane * pooled;
  for (int64_t i = 0; i < pooled; ++i) {
    if (static_cast<uint64_t>(indices[i]) >= pixels) continue;
    A& place = target[indices[i]];
    place = from_float<A>(to_float(place) + to_float(values[i]));
  }
}

// Contiguous, any windows. Sums of half types are kept in float32 scratch; not needed where windows do not overlap.
template <class T>
void add_at_places_of_planes(const MaxPool2dParams& p) {
  using A = Accumulate<T>;
  const int64_t pixels = p.shape.height * p.shape.width;
  if (pixels == 0) return;  // the gradient may be null
  bool apart = true;
  for (int axis = 0; axis < 2; ++axis) {
    apart = apart && p.stride[axis] > static_cast<int64_t>(p.kernel[axis] - 1) * p.dilation[axis];
  }
  parallel_for(p.shape.outer, grain_for(pixels), [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      T* target = static_cast<T*>(p.large) + plane * pixels;
      if (apart || sizeof(T) == sizeof(A)) {
        __builtin_memset(target, 0, pixels * sizeof(T));
        add_at_places<T>(p, plane, target);
        continue;
      }
      const Scratch scratch(bytes_of<A>(p.shape.height, p.shape.width));
      A* sums = scratch.as<A>();
      __builtin_memset(sums, 0, pixels * sizeof(A));
      add_at_places<T>(p, plane, sums);
      convert_run(sums, pixels, target);
    }
  });
}

template <class T>
void add_windows_of_planes(const MaxPool2dParams& p) {
  if (!meets_in_rows(p)) return add_at_places_of_planes<T>(p);
  p.stride[1] == 1 ? add_windows_in_rows<T, 1>(p) : add_windows_in_rows<T, 2>(p);
}

// ---- channels_last ----

// Vectors lie along channels.
template <class T>
void add_windows_of_pixels(const MaxPool2dParams& p) {
  using A = Accumulate<T>;
  const int64_t height = p.shape.height, width = p.shape.width, run = p.shape.run;
  parallel_for(row_count(p.shape), grain_for(2 * width * run), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t image = row / height, y = row % height;
      const WindowRange ys = windows_of_pixel(p, 0, y, p.pooled_height);
      for (int64_t x = 0; x < width; ++x) {
        const WindowRange xs = windows_of_pixel(p, 1, x, p.pooled_width);
        const int64_t place = y * width + x;
        T* target = static_cast<T*>(p.large) + (row * width + x) * run;
        const auto for_each_window = [&](const auto& body) {
          for (int64_t i = ys.first; i <= ys.last; ++i) {
            for (int64_t j = xs.first; j <= xs.last; ++j) {
              body(((image * p.pooled_height + i) * p.pooled_width + j) * run);
            }
          }
        };
        const T* values = static_cast<const T*>(p.small);
        const Places<A> here = static_cast<Place<A>>(place) - Places<A>{};
        int64_t c = 0;
        for (; c + kLanes<A> <= run; c += kLanes<A>) {
          Vector<A> sum{};
          for_each_window([&](int64_t window) {
            const Vector<A> value = load(values + window + c);
            sum += load_places<A>(p.indices + window + c) == here ? value : Vector<A>{};
          });
          store(target + c, sum);
        }
        for (; c < run; ++c) {
          A sum(0);
          for_each_window([&](int64_t window) {
            if (p.indices[window + c] == place) sum += to_float(values[window + c]);
          });
          target[c] = from_float<T>(sum);
        }
      }
    }
  });
}

}  // namespace fastcv::FASTCV_VARIANT

// RoIAlign of rotated boxes on CUDA. See roi_align_rotated.h for the meaning.
#include "core/cuda/block_rank.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/shared.cuh"
#include "core/cuda/warp.cuh"
#include "families/roi/roi_vector.cuh"
#include "ops/roi_align_rotated/roi_align_rotated.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kBlockSize = 256;

// ---- forward ----
//
// A block pools kForwardChannels channels of one RoI. Its threads work out the samples of as many bins as fit into
// shared memory, then every thread makes one result at a time: thread after thread takes bin after bin (NCHW) or channel
// after channel (channels_last, kVector channels at once), so that writes are contiguous.
//
// Napkin maths, 2 x 256 x 50 x 84, 4000 RoIs, 7 x 7, 2 x 2 samples, float32: 200 MB are written (49 us at 4.3 TB/s), 16
// loads per result make 803 M loads, which hit L1 and L2: 25 M per warp, NCHW some 0.2 ms, channels_last a quarter.

constexpr int kForwardChannels = 64;
constexpr int kSampleCapacity = 512;

// A sample's pixels and weights, the mean over the bin folded in; y_low is -1 where it does not count.
template <class A>
struct RotatedSample {
  int y_low, y_high, x_low, x_high;
  A weight[4];  // of (y_low, x_low), (y_low, x_high), (y_high, x_low), (y_high, x_high)

  __device__ static RotatedSample at(const RotatedRoi<A>& roi, A v, A u, const RoiParams& p) {
    const BilinearTap<A> y = bilinear_tap(image_y(roi, v, u), p.height);
    const BilinearTap<A> x = bilinear_tap(image_x(roi, v, u), p.width);
    const A scale = A(1) / (static_cast<A>(roi.y.grid) * static_cast<A>(roi.x.grid));
    RotatedSample sample;
    sample.y_low = y.inside && x.inside ? static_cast<int>(y.low) : -1;
    sample.y_high = static_cast<int>(y.high);
    sample.x_low = static_cast<int>(x.low);
    sample.x_high = static_cast<int>(x.high);
    sample.weight[0] = y.weight_low * x.weight_low * scale;
    sample.weight[1] = y.weight_low * x.weight_high * scale;
    sample.weight[2] = y.weight_high * x.weight_low * scale;
    sample.weight[3] = y.weight_high * x.weight_high * scale;
    return sample;
  }

  template <class T, int kVector>
  __device__ void add(const T* map, const RoiParams& p, A (&sum)[kVector]) const {
    if (y_low < 0) return;
    const T* above = map + y_low * p.feature_strides[2];
    const T* below = map + y_high * p.feature_strides[2];
    const int64_t left = x_low * p.feature_strides[3], right = x_high * p.feature_strides[3];
    add_pixel(above + left, weight[0], sum);
    add_pixel(above + right, weight[1], sum);
    add_pixel(below + left, weight[2], sum);
    add_pixel(below + right, weight[3], sum);
  }
};

// One bin whose samples do not fit into shared memory.
template <class T, int kVector>
__device__ void pool_samples(const T* map, const RotatedRoi<Accumulate<T>>& roi, int bin_y, int bin_x,
                             const RoiParams& p, Accumulate<T> (&sum)[kVector]) {
  using A = Accumulate<T>;
  for (int64_t i = 0; i < roi.y.grid; ++i) {
    const A v = roi_position(roi.y, bin_y, i);
    const SampleRange range = samples_on_map(roi, bin_x, v, p);
    for (int64_t j = range.low; j < range.high; ++j) {
      RotatedSample<A>::at(roi, v, roi_position(roi.x, bin_x, j), p).add(map, p, sum);
    }
  }
}

template <class T, int kVector, bool kChannelsLast>
__global__ void __launch_bounds__(kBlockSize, 2) pool_rotated_kernel(const RoiParams p) {
  using A = Accumulate<T>;
  FASTCV_SHARED(RotatedSample<A>, samples, kSampleCapacity);

  const int64_t k = blockIdx.x;
  const int64_t c0 = static_cast<int64_t>(blockIdx.y) * kForwardChannels;
  const int vectors = static_cast<int>(least(p.channels - c0, kForwardChannels)) / kVector;
  const int thread = static_cast<int>(threadIdx.x), pooled_width = static_cast<int>(p.sampling.pooled_width);
  const int bins = static_cast<int>(p.sampling.bins());
  const A* box = static_cast<const A*>(p.boxes) + kRotatedColumns * k;
  const RotatedRoi<A> roi = rotated_roi(box, p);
  const bool empty = roi.empty || !roi_batch_is_valid(box[0], p.batch);
  const int64_t grid = roi.y.grid * roi.x.grid;
  const bool fits = grid <= kSampleCapacity;
  const int bin_samples = fits && !empty ? static_cast<int>(grid) : 0;
  const int chunk = bin_samples > 0 ? kSampleCapacity / bin_samples : bins;

  const int64_t n = empty ? 0 : static_cast<int64_t>(box[0]);
  const T* map = static_cast<const T*>(p.features) + n * p.feature_strides[0] + c0 * p.feature_strides[1];
  T* pooled = static_cast<T*>(p.pooled) + k * p.pooled_strides[0] + c0 * p.pooled_strides[1];
  for (int bin0 = 0; bin0 < bins; bin0 += chunk) {
    const int count = least(bins - bin0, chunk);
    block_sync();  // before the samples are overwritten
    for (int s = thread; s < count * bin_samples; s += kBlockSize) {
      const int bin = bin0 + s / bin_samples, sample = s % bin_samples, grid_x = static_cast<int>(roi.x.grid);
      const A v = roi_position(roi.y, bin / pooled_width, sample / grid_x);
      const A u = roi_position(roi.x, bin % pooled_width, sample % grid_x);
      samples[s] = RotatedSample<A>::at(roi, v, u, p);
    }
    block_sync();
    for (int item = thread; item < count * vectors; item += kBlockSize) {
      const int place = kChannelsLast ? item / vectors : item % count, bin = bin0 + place;
      const int c = (kChannelsLast ? item % vectors : item / count) * kVector;
      const T* plane = map + c * p.feature_strides[1];
      A sum[kVector] = {};
      for (int s = 0; s < bin_samples; ++s) samples[place * bin_samples + s].add(plane, p, sum);
      if (!fits && !empty) pool_samples(plane, roi, bin / pooled_width, bin % pooled_width, p, sum);
      Pack<T, kVector> result;
      for (int v = 0; v < kVector; ++v) result.value[v] = from_float<T>(sum[v]);
      store_pack(pooled + c * p.pooled_strides[1] + bin * p.pooled_strides[3], result);
    }
  }
}

template <class T>
void pool_rotated(const RoiParams& p, Stream stream) {
  constexpr int kVector = 16 / sizeof(T);
  const LaunchShape shape({p.rois, ceil_div<int64_t>(p.channels, kForwardChannels)}, {kBlockSize});
  if (p.channels % kVector == 0 && moves_as_one<T, kVector>(p.features, p.feature_strides) &&
      moves_as_one<T, kVector>(p.pooled, p.pooled_strides)) {
    launch(pool_rotated_kernel<T, kVector, true>, shape, stream, p);
  } else if (p.pooled_strides[1] == 1) {
    launch(pool_rotated_kernel<T, 1, true>, shape, stream, p);
  } else {
    launch(pool_rotated_kernel<T, 1, false>, shape, stream, p);
  }
}

// ---- backward ----
//
// Without atomics: a block owns a tile of kTile x kTile pixels and kTileChannels channels of grad_input, and walks the
// RoIs in order, kBlockSize at a time; those whose circle touches the tile are listed in their order. A thread owns one
// pixel and kPerThread channels: it turns the pixel into the frame of the box, where the samples that may touch it are a
// range along each axis, and adds what they give it, in registers.

constexpr int kTile = 8;
constexpr int kTileChannels = 16;
constexpr int kPerThread = kTile * kTile * kTileChannels / kBlockSize;

// Whether a circle around the box touches the tile at (y0, x0); errs on the side of yes.
template <class A>
__device__ bool touches(const RotatedRoi<A>& roi, int64_t y0, int64_t x0) {
  // A map may end far from the box: its border's pixel then still is within a pixel of the samples that it serves.
  const A radius = least(-roi.y.start - roi.x.start, static_cast<A>(kLongestRotatedSide)) * A(1.00001) + A(2);
  const A tile = static_cast<A>(kTile);
  return roi.center_y + radius >= static_cast<A>(y0) && roi.center_y - radius <= static_cast<A>(y0) + tile &&
         roi.center_x + radius >= static_cast<A>(x0) && roi.center_x - radius <= static_cast<A>(x0) + tile;
}

template <class A>
FASTCV_HD A weight_at(const BilinearTap<A>& tap, int64_t pixel) {
  if (!tap.inside) return A(0);
  return (tap.low == pixel ? tap.weight_low : A(0)) + (tap.high == pixel ? tap.weight_high : A(0));
}

// Adds to the sums of one pixel what it gets from one RoI.
template <class T>
__device__ void add_roi(const T* gradient, const RotatedRoi<Accumulate<T>>& roi, int64_t y, int64_t x, int channels,
                        const RoiParams& p, Accumulate<T> (&sum)[kPerThread]) {
  using A = Accumulate<T>;
  const A down = static_cast<A>(y) - roi.center_y, right = static_cast<A>(x) - roi.center_x;
  const A v = down * roi.cosine + right * roi.sine, u = right * roi.cosine - down * roi.sine;
  const auto size_of = [](A a) { return a < A(0) ? -a : a; };
  // Samples within a pixel along both axes of the image, and what rounding may move them.
  const A reach =
      size_of(roi.sine) + size_of(roi.cosine) +
      A(8) * (sizeof(A) == sizeof(float) ? A(1.2e-7) : A(2.3e-16)) *
          (size_of(roi.center_y) + size_of(roi.center_x) - roi.y.start - roi.x.start + size_of(down) + size_of(right));
  const SampleRange rows = samples_between(roi.y, p.sampling.pooled_height, v - reach, v + reach);
  const SampleRange columns = samples_between(roi.x, p.sampling.pooled_width, u - reach, u + reach);
  const A scale = A(1) / (static_cast<A>(roi.y.grid) * static_cast<A>(roi.x.grid));
  for (int64_t i = rows.low; i < rows.high; ++i) {
    const int64_t bin_y = i / roi.y.grid;
    const A sample_v = roi_position(roi.y, bin_y, i % roi.y.grid);
    for (int64_t j = columns.low; j < columns.high; ++j) {
      const int64_t bin_x = j / roi.x.grid;
      const A sample_u = roi_position(roi.x, bin_x, j % roi.x.grid);
      const A weight = weight_at(bilinear_tap(image_y(roi, sample_v, sample_u), p.height), y) *
                       weight_at(bilinear_tap(image_x(roi, sample_v, sample_u), p.width), x) * scale;
      if (weight == A(0)) continue;
      const T* from = gradient + bin_y * p.pooled_strides[2] + bin_x * p.pooled_strides[3];
      for (int c = 0; c < kPerThread; ++c) {
        if (c >= channels) break;
        sum[c] = multiply_add(weight, static_cast<A>(to_float(from[c * p.pooled_strides[1]])), sum[c]);
      }
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kBlockSize, 2) scatter_rotated_kernel(const RoiParams p) {
  using A = Accumulate<T>;
  FASTCV_SHARED(int64_t, members, kBlockSize);
  FASTCV_SHARED(A, sines, kBlockSize);
  FASTCV_SHARED(A, cosines, kBlockSize);

  const int thread = static_cast<int>(threadIdx.x);
  const unsigned tiles_x = static_cast<unsigned>(ceil_div(p.width, kTile));  // the grid fits 31 bits, so all do
  const unsigned tiles_y = static_cast<unsigned>(ceil_div(p.height, kTile));
  const int64_t n = blockIdx.x / (tiles_x * tiles_y);
  const int64_t y0 = static_cast<int64_t>(blockIdx.x / tiles_x % tiles_y) * kTile;
  const int64_t x0 = static_cast<int64_t>(blockIdx.x % tiles_x) * kTile;
  const int64_t y = y0 + thread % (kTile * kTile) / kTile, x = x0 + thread % kTile;
  const int64_t c0 = static_cast<int64_t>(blockIdx.y) * kTileChannels + thread / (kTile * kTile) * kPerThread;
  const bool owns = y < p.height && x < p.width && c0 < p.channels;
  const int channels = owns ? static_cast<int>(least(p.channels - c0, kPerThread)) : 0;
  const A* boxes = static_cast<const A*>(p.boxes);

  A sum[kPerThread] = {};
  for (int64_t k0 = 0; k0 < p.rois; k0 += kBlockSize) {
    const int64_t candidate = k0 + thread;
    const A* box = boxes + kRotatedColumns * candidate;
    bool member = candidate < p.rois && roi_batch_is_valid(box[0], p.batch) && static_cast<int64_t>(box[0]) == n;
    RotatedRoi<A> roi{};
    if (member) {
      roi = upright_roi(box, p);
      member = !roi.empty && touches(roi, y0, x0);
    }
    int listed;
    const int place = block_rank<kBlockSize>(member, listed);
    if (member) {
      turn_roi(roi, box);
      members[place] = candidate;
      sines[place] = roi.sine;
      cosines[place] = roi.cosine;
    }
    block_sync();
    for (int m = 0; owns && m < listed; ++m) {
      const int64_t k = members[m];
      RotatedRoi<A> turned = upright_roi(boxes + kRotatedColumns * k, p);
      turned.sine = sines[m];
      turned.cosine = cosines[m];
      const T* gradient = static_cast<const T*>(p.pooled) + k * p.pooled_strides[0] + c0 * p.pooled_strides[1];
      add_roi(gradient, turned, y, x, channels, p, sum);
    }
    block_sync();  // before the list is overwritten
  }
  const int64_t target =
      n * p.feature_strides[0] + c0 * p.feature_strides[1] + y * p.feature_strides[2] + x * p.feature_strides[3];
  for (int c = 0; c < kPerThread; ++c) {
    if (c < channels) static_cast<T*>(p.features)[target + c * p.feature_strides[1]] = from_float<T>(sum[c]);
  }
}

template <class T>
void scatter_rotated(const RoiParams& p, Stream stream) {
  const int64_t tiles = ceil_div<int64_t>(p.width, kTile) * ceil_div<int64_t>(p.height, kTile);
  const LaunchShape shape({p.batch * tiles, ceil_div<int64_t>(p.channels, kTileChannels)}, {kBlockSize});
  launch(scatter_rotated_kernel<T>, shape, stream, p);
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void roi_align_rotated_forward_cuda(const RoiParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) { pool_rotated<typename decltype(tag)::type>(params, stream); });
}

void roi_align_rotated_backward_cuda(const RoiParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  dispatch_floating(params.dtype, [&](auto tag) { scatter_rotated<typename decltype(tag)::type>(params, stream); });
}

}  // namespace fastcv

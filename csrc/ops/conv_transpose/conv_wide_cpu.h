// Transposed convolution on the CPU with kernels that are wide along x, for few channels, and both gradients. The dense
// dimension of the matrix product is then x, not the channels.
//
// Classes. Let g be the greatest common divisor of stride and dilation. Input sites i = a + (dilation / g) i', taps
// k = b + (stride / g) j' and output sites o + padding = c + period n, period = stride * dilation / g, meet where
//
//   stride * a + dilation * b = c + period * shift    and    n = i' + j' + shift,
//
// so each pair of classes (a, b) has a class c of its own, and within classes all three products are convolutions or
// correlations of short runs with step one:
//
//   output[n] = sum x[n - shift - j] w[j]     x[i] = sum y[i + j + shift] w[j]     w[j] = sum y[i + j + shift] x[i]
//
// Toeplitz products. out[n] = sum_u long[n + u] short[u] with n = m L + l is the matrix product
//
//   out[m L + l] = sum_t long[m L + t] * short[t - l],   0 <= t < length of short + L - 1,
//
// of rows that lie L elements apart in `long`, and of windows of `short` that lie one element apart, between zeros:
// gemm_tile reads both where they are. Other axes and channels are segments of the sum. In float32 on AVX-512 a result
// takes (length + L - 1) / 32 cycles, as much as any other product for lengths well above L = 48.
//
// The zeros are factors too, of elements that have no part in the sum: where anything is infinite or NaN, the other
// kernels compute.
#pragma once

#include "ops/conv_transpose/conv_geometry.h"
#include "ops/conv_transpose/conv_wide_runs_cpu.h"

namespace fastcv::FASTCV_VARIANT {

struct WideAxis {
  int64_t input_classes, tap_classes, period;
  int64_t inputs, taps;  // elements of a class, at most

  explicit WideAxis(const ConvAxis& x) {
    tap_classes = gather_axis(x, true).tap_step;
    period = tap_classes * x.dilation;
    input_classes = period / x.stride;
    inputs = ceil_div(x.input, input_classes);
    taps = ceil_div(x.kernel, tap_classes);
  }
};

// The axis of a kernel of one column takes the place of x: memory is the same.
inline ConvTransposeParams with_columns_as_x(const ConvTransposeParams& params) {
  ConvTransposeParams p = params;
  for (int axis = 1; axis >= 0; --axis) {
    const ConvAxis x = p.axes[2];
    if (x.input != 1 || x.output != 1 || x.kernel != 1) break;
    p.axes[2] = p.axes[axis];
    p.axes[axis] = x;
  }
  return p;
}

// Whether the kernel is wide enough to look closer.
inline bool is_wide(const ConvTransposeParams& p) {
  const ConvAxis& x = p.axes[2];
  constexpr int64_t kTaps = 16, kAllTaps = 128;
  const int64_t taps = p.axes[0].kernel * p.axes[1].kernel * x.kernel;
  if (taps < kAllTaps || x.stride > x.kernel || p.in_channels == 0 || p.out_channels == 0) return false;
  const WideAxis wide(x);
  return wide.taps >= kTaps && wide.input_classes <= x.input;
}

template <class T>
struct WideProblem {
  using S = Accumulate<T>;
  const ConvTransposeParams& p;
  WideAxis axis;
  WideTensor<T> input, weight, output;

  explicit WideProblem(const ConvTransposeParams& params) : p(params), axis(params.axes[2]) {
    const ConvAxis &z = p.axes[0], &y = p.axes[1], &x = p.axes[2];
    const int64_t in_channels = p.groups * p.in_channels, out_channels = p.groups * p.out_channels;
    input = {static_cast<T*>(p.input), p.batch, in_channels, z.input * y.input, x.input, p.input_channels_last};
    output = {static_cast<T*>(p.output), p.batch, out_channels, z.output * y.output, x.output, p.output_channels_last};
    weight = {static_cast<T*>(p.weight), in_channels, p.out_channels, z.kernel * y.kernel, x.kernel, false};
  }

  // The class of the output, and the shift, of a class of the input and one of the taps.
  int64_t output_class(int64_t a, int64_t b) const { return place(a, b) % axis.period; }
  int64_t shift(int64_t a, int64_t b) const { return place(a, b) / axis.period; }
  int64_t place(int64_t a, int64_t b) const { return a * p.axes[2].stride + b * p.axes[2].dilation; }

  // Along z and y: where an input row lands with a row of taps, and which one lands on a row of the output; or -1.
  int64_t output_row(int64_t input_row, int64_t taps_row) const {
    const ConvAxis &z = p.axes[0], &y = p.axes[1];
    const int64_t to_z = input_row / y.input * z.stride - z.padding + taps_row / y.kernel * z.dilation;
    const int64_t to_y = input_row % y.input * y.stride - y.padding + taps_row % y.kernel * y.dilation;
    return to_z >= 0 && to_z < z.output && to_y >= 0 && to_y < y.output ? to_z * y.output + to_y : -1;
  }
  int64_t input_row(int64_t output_row, int64_t taps_row) const {
    const ConvAxis &z = p.axes[0], &y = p.axes[1];
    const int64_t from_z = output_row / y.output + z.padding - taps_row / y.kernel * z.dilation;
    const int64_t from_y = output_row % y.output + y.padding - taps_row % y.kernel * y.dilation;
    if (from_z < 0 || from_z % z.stride != 0 || from_z / z.stride >= z.input) return -1;
    if (from_y < 0 || from_y % y.stride != 0 || from_y / y.stride >= y.input) return -1;
    return from_z / z.stride * y.input + from_y / y.stride;
  }

  WideRuns<S> output_runs(int64_t slack) const {
    return WideRuns<S>(output, axis.period, p.axes[2].padding, axis.inputs + axis.taps, 0, slack, false);
  }
};

// The work of the other kernels, for each pair of rows of input and taps, in vectors of products. Measured: that of a
// site and tap, of `depth` summed and `columns` other channels, is its products and about one more; that of the gradient
// of the weight comes in blocks of 8 channels. Each tap costs as much as 50, or 200, on top, for
// all rows of the input together.
template <class T>
double work_of_channels(const ConvTransposeParams& p, int64_t depth, int64_t columns, bool for_weight) {
  constexpr double kPerTap = 50, kPerTapOfWeight = 200;
  if constexpr (sizeof(T) == 2) depth = ceil_div(depth, 2);  // pairs of bfloat16, perhaps
  const double vectors = static_cast<double>(ceil_div(columns, kLanes<Accumulate<T>>));
  const double sites = static_cast<double>(p.axes[2].input), taps = static_cast<double>(p.axes[2].kernel);
  const double rows = static_cast<double>(p.batch) * static_cast<double>(p.axes[0].input * p.axes[1].input);
  if (for_weight) return taps * (sites * static_cast<double>(round_up(depth, 8)) * vectors + kPerTapOfWeight / rows);
  return taps * (sites * (static_cast<double>(depth) * vectors + 1) + kPerTap / rows);
}

// Whether the products are less work, by far enough; for each pair of rows, again.
template <class T>
bool pays(const WideProblem<T>& w, const WideProduct<Accumulate<T>>& product, double other_work) {
  const double runs = static_cast<double>(w.axis.input_classes) * static_cast<double>(w.axis.tap_classes);
  const double channels = static_cast<double>(w.p.in_channels) * static_cast<double>(w.p.out_channels);
  return 1.25 * runs * channels * static_cast<double>(product.work) < other_work;
}

// Each of the three returns false where it leaves the work to others, having written nothing.
template <class T>
bool forward_wide(const ConvTransposeParams& params) {
  using S = Accumulate<T>;
  const WideProblem<T> w(params);
  const WideAxis& x = w.axis;
  const bool short_input = x.inputs <= x.taps;
  const int64_t length = least(x.inputs, x.taps), before = length - 1, long_length = greatest(x.inputs, x.taps);
  const WideProduct<S> product(x.inputs + x.taps - 1, length);
  if (!pays(w, product, work_of_channels<T>(params, params.in_channels, params.out_channels, false))) return false;
  const auto runs_of = [&](const WideTensor<T>& tensor, int64_t classes, bool is_short) {
    return WideRuns<S>(tensor, classes, 0, is_short ? length : long_length + before,
                       is_short ? product.margin() : before, product.slack(), false);
  };
  const WideRuns<S> input = runs_of(w.input, x.input_classes, short_input);
  const WideRuns<S> taps = runs_of(w.weight, x.tap_classes, !short_input);
  if (!input.is_finite() || !taps.is_finite()) return false;
  const S* bias = static_cast<const S*>(params.bias);
  // What no product reaches.
  parallel_for(w.output.lines(), kWideGrain / w.output.width, [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      const S start = bias == nullptr ? S(0) : bias[line / w.output.rows % w.output.channels];
      const T value = from_float<T>(params.relu && start < S(0) ? S(0) : start);
      for (int64_t i = 0; i < w.output.width; ++i) w.output.at(line)[i * w.output.step()] = value;
    }
  });
  const auto collect = [&](int64_t line, int64_t index, WideSegments<S>* segments) {
    const int64_t a = index % x.input_classes, b = index / x.input_classes;
    const int64_t image = line / w.output.rows / w.output.channels, channel = line / w.output.rows % w.output.channels;
    const int64_t first = channel / params.out_channels * params.in_channels;
    for (int64_t row = 0; row < w.weight.rows; ++row) {
      const int64_t from = w.input_row(line % w.output.rows, row);
      for (int64_t c = first; c < first + params.in_channels && from >= 0; ++c) {
        const S* sites = input.at(w.input.line(image, c, from), a);
        const S* tap = taps.at(w.weight.line(c, channel % params.out_channels, row), b);
        short_input ? segments->add(tap - before, sites + before) : segments->add(sites - before, tap + before);
      }
    }
    segments->begin = before;
    segments->end = before + long_length;
  };
  multiply_wide(product, w.output, x.input_classes * x.tap_classes, x.period, x.inputs + x.taps - 1,
                params.in_channels * w.weight.rows, bias, params.relu, collect, [&](int64_t index) {
                  return w.place(index % x.input_classes, index / x.input_classes) - params.axes[2].padding;
                });
  return true;
}

template <class T>
bool input_gradient_wide(const ConvTransposeParams& params) {
  using S = Accumulate<T>;
  const WideProblem<T> w(params);
  const WideAxis& x = w.axis;
  const WideProduct<S> product(x.inputs, x.taps);
  if (!pays(w, product, work_of_channels<T>(params, params.out_channels, params.in_channels, false))) return false;
  const WideRuns<S> output = w.output_runs(product.slack());
  const WideRuns<S> taps(w.weight, x.tap_classes, 0, x.taps, product.margin(), product.slack(), true);
  if (!output.is_finite() || !taps.is_finite()) return false;
  const auto collect = [&](int64_t line, int64_t a, WideSegments<S>* segments) {
    const int64_t image = line / w.input.rows / w.input.channels, channel = line / w.input.rows % w.input.channels;
    const int64_t first = channel / params.in_channels * params.out_channels;
    for (int64_t row = 0; row < w.weight.rows; ++row) {
      const int64_t to = w.output_row(line % w.input.rows, row);
      for (int64_t o = 0; o < params.out_channels && to >= 0; ++o) {
        for (int64_t b = 0; b < x.tap_classes; ++b) {
          segments->add(output.at(w.output.line(image, first + o, to), w.output_class(a, b)) + w.shift(a, b),
                        taps.at(w.weight.line(channel, o, row), b) + x.taps - 1);
        }
      }
    }
    segments->end = x.inputs + x.taps;
  };
  multiply_wide<S>(product, w.input, x.input_classes, x.input_classes, x.inputs,
                   params.out_channels * w.weight.rows * x.tap_classes, nullptr, false, collect,
                   [](int64_t index) { return index; });
  return true;
}

template <class T>
bool weight_gradient_wide(const ConvTransposeParams& params) {
  using S = Accumulate<T>;
  const WideProblem<T> w(params);
  const WideAxis& x = w.axis;
  const WideProduct<S> product(x.taps, x.inputs);
  if (!pays(w, product, work_of_channels<T>(params, params.in_channels, params.out_channels, true))) return false;
  const WideRuns<S> output = w.output_runs(product.slack());
  const WideRuns<S> input(w.input, x.input_classes, 0, x.inputs, product.margin(), product.slack(), true);
  if (!output.is_finite() || !input.is_finite()) return false;
  const auto collect = [&](int64_t line, int64_t b, WideSegments<S>* segments) {
    const int64_t channel = line / w.weight.rows / w.weight.channels, o = line / w.weight.rows % w.weight.channels;
    const int64_t to_channel = channel / params.in_channels * params.out_channels + o;
    for (int64_t image = 0; image < params.batch; ++image) {
      for (int64_t row = 0; row < w.input.rows; ++row) {
        const int64_t to = w.output_row(row, line % w.weight.rows);
        for (int64_t a = 0; a < x.input_classes && to >= 0; ++a) {
          segments->add(output.at(w.output.line(image, to_channel, to), w.output_class(a, b)) + w.shift(a, b),
                        input.at(w.input.line(image, channel, row), a) + x.inputs - 1);
        }
      }
    }
    segments->end = x.inputs + x.taps;
  };
  multiply_wide<S>(product, w.weight, x.tap_classes, x.tap_classes, x.taps,
                   params.batch * w.input.rows * x.input_classes, nullptr, false, collect,
                   [](int64_t index) { return index; });
  return true;
}

}  // namespace fastcv::FASTCV_VARIANT

// Transposed convolution on the CPU. See conv_transpose.h for the meaning, conv_gather_cpu.h for the design.
#include "core/errors.h"
#include "ops/conv_transpose/conv_gather_cpu.h"
#include "ops/conv_transpose/conv_pixels_cpu.h"
#include "ops/conv_transpose/conv_weight_cpu.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

int64_t pixels_of(const ConvTransposeParams& p, bool input) {
  int64_t count = p.batch;
  for (const ConvAxis& axis : p.axes) count *= input ? axis.input : axis.output;
  return count;
}

int64_t taps_of(const ConvTransposeParams& p) {
  return p.axes[0].kernel * p.axes[1].kernel * p.axes[2].kernel;
}

// One side of the product with channels innermost and in the type of the sums: the tensor itself where it is that
// already, else a copy. Where the channels of one group, `in_vectors`, are read in whole vectors, reading must be
// allowed to go a little past the end.
template <class T>
class ChannelsLast {
  using S = Accumulate<T>;
  static constexpr int64_t kSlack = 64;

 public:
  ChannelsLast(const void* data, int64_t batch, int64_t channels, int64_t pixels, bool channels_last,
               int64_t in_vectors)
      : memory_(needs_copy(in_vectors, channels_last) ? (batch * channels * pixels + kSlack) * sizeof(S) : 0) {
    const T* source = static_cast<const T*>(data);
    data_ = reinterpret_cast<const S*>(source);
    if (!needs_copy(in_vectors, channels_last)) return;
    S* target = memory_.template as<S>();
    data_ = target;
    constexpr int64_t kPiece = 256;
    const int64_t pieces = (pixels + kPiece - 1) / kPiece;
    parallel_for(batch * pieces, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / pieces, first = i % pieces * kPiece;
        const int64_t count = pixels - first < kPiece ? pixels - first : kPiece;
        S* out = target + (n * pixels + first) * channels;
        const T* plane = source + n * channels * pixels;
        if (channels_last) {
          unpack(plane + first * channels, out, count * channels);
        } else {
          transpose(plane + first, pixels, out, channels, channels, count);
        }
      }
    });
    for (int64_t i = 0; i < kSlack; ++i) target[batch * channels * pixels + i] = S(0);
  }

  const S* data() const { return data_; }

 private:
  static bool needs_copy(int64_t in_vectors, bool channels_last) {
    return sizeof(T) < 4 || !channels_last || in_vectors % 16 != 0;
  }
  static void unpack(const T* source, S* target, int64_t count) {
    int64_t i = 0;
    for (; i + kLanes<S> <= count; i += kLanes<S>) store(target + i, load(source + i));
    for (; i < count; ++i) target[i] = to_float(source[i]);
  }

  Scratch memory_;
  const S* data_;
};

// Packs the weight of each group as a [tap][depth] x columns matrix: output channels are the columns forward, input
// channels for the gradient of the input.
template <class T>
void pack_weight(const ConvTransposeParams& p, bool forward, Accumulate<T>* packed) {
  using S = Accumulate<T>;
  const int64_t taps = taps_of(p), depth = forward ? p.in_channels : p.out_channels;
  const int64_t columns = forward ? p.out_channels : p.in_channels;
  const int64_t stride_in = p.out_channels * taps;
  const int64_t k_stride = forward ? stride_in : taps, n_stride = forward ? taps : stride_in;
  const int64_t size = packed_size<S>(taps * depth, columns);
  const int64_t panels = (columns + kPanelColumns<S> - 1) / kPanelColumns<S>;
  const T* weight = static_cast<const T*>(p.weight);
  constexpr int64_t kPiece = 16;
  const int64_t pieces = (depth + kPiece - 1) / kPiece;
  parallel_for(p.groups * panels * pieces, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t piece = i % pieces, panel = i / pieces % panels, group = i / pieces / panels;
      const int64_t first = panel * kPanelColumns<S>, width = panel_width<S>(first, columns);
      const int64_t count = columns - first < width ? columns - first : width;
      const int64_t end_k = piece * kPiece + kPiece < depth ? piece * kPiece + kPiece : depth;
      for (int64_t k = piece * kPiece; k < end_k; ++k) {
        const T* source = weight + group * p.in_channels * stride_in + k * k_stride + first * n_stride;
        S* target = packed + group * size + first * taps * depth + k * width;
        transpose(source, n_stride, target, depth * width, count, taps);
        for (int64_t tap = 0; tap < taps && count < width; ++tap) {
          for (int64_t n = count; n < width; ++n) target[tap * depth * width + n] = S(0);
        }
      }
    }
  });
}

template <class T>
void gather(const ConvTransposeParams& p, bool forward) {
  using S = Accumulate<T>;
  GatherProblem<S, T> problem{};
  for (int i = 0; i < 3; ++i) problem.axes[i] = gather_axis(p.axes[i], forward);
  problem.batch = p.batch;
  problem.groups = p.groups;
  problem.depth = forward ? p.in_channels : p.out_channels;
  problem.columns = forward ? p.out_channels : p.in_channels;
  problem.bias = static_cast<const S*>(p.bias);
  problem.relu = p.relu;
  problem.target = static_cast<T*>(forward ? p.output : p.input);
  problem.target_channels_last = forward ? p.output_channels_last : p.input_channels_last;
  const int64_t packed_elements = p.groups * packed_size<S>(taps_of(p) * problem.depth, problem.columns);
  const Scratch packed(p.packed == nullptr ? packed_elements * sizeof(S) : 0);
  if (p.packed == nullptr) pack_weight<T>(p, forward, packed.as<S>());
  problem.packed = p.packed == nullptr ? packed.as<S>() : static_cast<const S*>(p.packed);
  const int64_t pixels = p.batch == 0 ? 0 : pixels_of(p, forward) / p.batch;
  const ChannelsLast<T> source(forward ? p.input : p.output, p.batch, p.groups * problem.depth, pixels,
                               forward ? p.input_channels_last : p.output_channels_last, 0);
  problem.source = source.data();
  gather_all(problem);
}

// The forward where conv_pixels_cpu.h serves.
template <class T>
void forward_by_pixels(const ConvTransposeParams& p) {
  using S = Accumulate<T>;
  const int64_t elements = p.groups * packed_size<S>(taps_of(p) * p.in_channels, p.out_channels);
  const Scratch packed(p.packed == nullptr ? (elements + kPixelRows) * sizeof(S) : 0);
  if (p.packed == nullptr) pack_weight<T>(p, true, packed.as<S>());
  PixelProblem<S, T> problem{};
  for (int i = 0; i < 3; ++i) problem.axes[i] = p.axes[i];
  problem.batch = p.batch;
  problem.groups = p.groups;
  problem.depth = p.in_channels;
  problem.columns = p.out_channels;
  problem.source = static_cast<const T*>(p.input);
  problem.packed = p.packed == nullptr ? packed.as<S>() : static_cast<const S*>(p.packed);
  problem.bias = static_cast<const S*>(p.bias);
  problem.relu = p.relu;
  problem.target = static_cast<T*>(p.output);
  multiply_pixels(problem);
}

template <class T>
void forward(const ConvTransposeParams& p) {
  const bool planes = !p.input_channels_last && !p.output_channels_last;
  if (planes && taps_lie_apart(p.axes)) return forward_by_pixels<T>(p);
  gather<T>(p, true);
}

template <class T>
void weight_gradient(const ConvTransposeParams& p) {
  using S = Accumulate<T>;
  const int64_t batch = p.batch == 0 ? 1 : p.batch;
  const ChannelsLast<T> input(p.input, p.batch, p.groups * p.in_channels, pixels_of(p, true) / batch,
                              p.input_channels_last, p.in_channels);
  const ChannelsLast<T> output(p.output, p.batch, p.groups * p.out_channels, pixels_of(p, false) / batch,
                               p.output_channels_last, p.out_channels);
  accumulate_weight<S, T>(p, input.data(), output.data(), static_cast<T*>(p.weight));
}

}  // namespace

void conv_transpose_pack_cpu(const ConvTransposeParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    pack_weight<T>(params, params.packs_forward, static_cast<Accumulate<T>*>(params.packed));
  });
}

void conv_transpose_forward_cpu(const ConvTransposeParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { forward<typename decltype(tag)::type>(params); });
}

void conv_transpose_backward_input_cpu(const ConvTransposeParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { gather<typename decltype(tag)::type>(params, false); });
}

void conv_transpose_backward_weight_cpu(const ConvTransposeParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { weight_gradient<typename decltype(tag)::type>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

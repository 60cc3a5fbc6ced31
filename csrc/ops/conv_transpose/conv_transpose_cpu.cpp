// Transposed convolution on the CPU. See conv_transpose.h for the meaning, conv_gather_cpu.h for the design.
#include "ops/conv_transpose/conv_gather_cpu.h"
#include "ops/conv_transpose/conv_layout_cpu.h"
#include "ops/conv_transpose/conv_pixels_cpu.h"
#include "ops/conv_transpose/conv_weight_cpu.h"
#include "ops/conv_transpose/conv_wide_cpu.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

int64_t pixels_of(const ConvTransposeParams& p, bool input) {
  int64_t count = p.batch;
  for (const ConvAxis& axis : p.axes) count *= input ? axis.input : axis.output;
  return count;
}

template <class E, class T>
void gather(const ConvTransposeParams& p, bool forward) {
  using S = Accumulate<T>;
  const int64_t channels = forward ? p.in_channels : p.out_channels;
  GatherProblem<E, T> problem{};
  for (int i = 0; i < 3; ++i) problem.axes[i] = gather_axis(p.axes[i], forward);
  problem.batch = p.batch;
  problem.groups = p.groups;
  problem.depth = factors_to_elements<E>(channels);
  problem.columns = forward ? p.out_channels : p.in_channels;
  problem.bias = static_cast<const S*>(p.bias);
  problem.relu = p.relu;
  problem.target = static_cast<T*>(forward ? p.output : p.input);
  problem.target_channels_last = forward ? p.output_channels_last : p.input_channels_last;
  const Scratch packed(p.packed == nullptr ? bytes_of<E>(packed_elements<E>(p, forward)) : 0);
  if (p.packed == nullptr) pack_weight<E, T>(p, forward, packed.as<E>());
  problem.packed = p.packed == nullptr ? packed.as<E>() : static_cast<const E*>(p.packed);
  const int64_t pixels = p.batch == 0 ? 0 : pixels_of(p, forward) / p.batch;
  const ChannelsLast<E, T> source(forward ? p.input : p.output, p.batch, p.groups, channels, pixels,
                                  forward ? p.input_channels_last : p.output_channels_last, false);
  problem.source = source.data();
  gather_all(problem);
}

// The forward where conv_pixels_cpu.h serves.
template <class E, class T>
void forward_by_pixels(const ConvTransposeParams& p) {
  using S = Accumulate<T>;
  const Scratch packed(p.packed == nullptr ? bytes_of<E>(packed_elements<E>(p, true) + kPixelRows) : 0);
  if (p.packed == nullptr) pack_weight<E, T>(p, true, packed.as<E>());
  PixelProblem<E, T> problem{};
  for (int i = 0; i < 3; ++i) problem.axes[i] = p.axes[i];
  problem.batch = p.batch;
  problem.groups = p.groups;
  problem.channels = p.in_channels;
  problem.columns = p.out_channels;
  problem.depth = factors_to_elements<E>(p.in_channels);
  problem.source = static_cast<const T*>(p.input);
  problem.packed = p.packed == nullptr ? packed.as<E>() : static_cast<const E*>(p.packed);
  problem.bias = static_cast<const S*>(p.bias);
  problem.relu = p.relu;
  problem.target = static_cast<T*>(p.output);
  multiply_pixels(problem);
}

template <class E, class T>
void forward(const ConvTransposeParams& p) {
  const bool planes = !p.input_channels_last && !p.output_channels_last;
  if (planes && taps_lie_apart(p.axes)) return forward_by_pixels<E, T>(p);
  gather<E, T>(p, true);
}

template <class E, class T>
void weight_gradient(const ConvTransposeParams& p) {
  const int64_t batch = p.batch == 0 ? 1 : p.batch;
  constexpr bool kInVectors = !kIsPair<E>;
  const ChannelsLast<E, T> input(p.input, p.batch, p.groups, p.in_channels, pixels_of(p, true) / batch,
                                 p.input_channels_last, kInVectors);
  const ChannelsLast<E, T> output(p.output, p.batch, p.groups, p.out_channels, pixels_of(p, false) / batch,
                                  p.output_channels_last, kInVectors);
  // Pairs of channels are channels in order again, an even number of them.
  constexpr int64_t kFactors = sizeof(E) / sizeof(Factor<E>);
  WeightSources<E> sources{};
  sources.input = static_cast<const Factor<E>*>(static_cast<const void*>(input.data()));
  sources.output = static_cast<const Factor<E>*>(static_cast<const void*>(output.data()));
  sources.in_group = kFactors * factors_to_elements<E>(p.in_channels);
  sources.out_group = kFactors * factors_to_elements<E>(p.out_channels);
  sources.in_width = p.groups * sources.in_group;
  sources.out_width = p.groups * sources.out_group;
  accumulate_weight(p, sources, static_cast<T*>(p.weight));
}

// Whether one of the products of conv_wide_cpu.h has done the work.
template <class Product>
bool served_wide(const ConvTransposeParams& params, const Product& product) {
  const ConvTransposeParams p = with_columns_as_x(params);
  if (!is_wide(p)) return false;
  bool done = false;
  dispatch_floating(p.dtype, [&](auto tag) { done = product(p, tag); });
  return done;
}

}  // namespace

void conv_transpose_pack_cpu(const ConvTransposeParams& params) {
  dispatch_factors(params.dtype, [&](auto factor, auto tag) {
    using E = typename decltype(factor)::type;
    pack_weight<E, typename decltype(tag)::type>(params, params.packs_forward, static_cast<E*>(params.packed));
  });
}

void conv_transpose_forward_cpu(const ConvTransposeParams& params) {
  if (served_wide(params, [](const auto& p, auto tag) { return forward_wide<typename decltype(tag)::type>(p); }))
    return;
  dispatch_factors(params.dtype, [&](auto factor, auto tag) {
    forward<typename decltype(factor)::type, typename decltype(tag)::type>(params);
  });
}

void conv_transpose_backward_input_cpu(const ConvTransposeParams& params) {
  const auto wide = [](const auto& p, auto tag) { return input_gradient_wide<typename decltype(tag)::type>(p); };
  if (served_wide(params, wide)) return;
  dispatch_factors(params.dtype, [&](auto factor, auto tag) {
    gather<typename decltype(factor)::type, typename decltype(tag)::type>(params, false);
  });
}

void conv_transpose_backward_weight_cpu(const ConvTransposeParams& params) {
  const auto wide = [](const auto& p, auto tag) { return weight_gradient_wide<typename decltype(tag)::type>(p); };
  if (served_wide(params, wide)) return;
  dispatch_factors(params.dtype, [&](auto factor, auto tag) {
    weight_gradient<typename decltype(factor)::type, typename decltype(tag)::type>(params);
  });
}

}  // namespace fastcv::FASTCV_VARIANT

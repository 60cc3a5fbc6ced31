// Convolution on the CPU. See conv2d.h for the meaning; conv2d_direct_cpu.h and conv2d_winograd_cpu.h for the design.
#include "ops/conv2d/conv2d_depthwise_cpu.h"
#include "ops/conv2d/conv2d_direct_cpu.h"
#include "ops/conv2d/conv2d_narrow_cpu.h"
#include "ops/conv2d/conv2d_pack_cpu.h"
#include "ops/conv2d/conv2d_winograd_cpu.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

template <class T, class S>
void pack(const Conv2dParams& p, S* packed) {
  if constexpr (sizeof(S) == sizeof(float)) {
    if (p.tile == 2) return pack_transformed<2, T>(p, packed);
    if (p.tile == 4) return pack_transformed<4, T>(p, packed);
  }
  pack_direct<T>(p, packed);
}

template <class T>
void forward(const Conv2dParams& p) {
  using S = Accumulate<T>;
  const int64_t in = p.groups * p.in_channels, out = p.groups * p.out_channels;
  const ChannelsInnermost<T> input(const_cast<void*>(p.input), p.batch, in, p.axes[0].input * p.axes[1].input,
                                   p.input_channels_last);
  const int64_t pixels = p.axes[0].output * p.axes[1].output;
  const ChannelsInnermost<T> residual(const_cast<void*>(p.residual), p.batch, out, pixels, p.output_channels_last);
  const ChannelsInnermost<T> output(p.output, p.batch, out, pixels, p.output_channels_last);
  const Scratch packed(p.packed == nullptr ? bytes_of<S>(conv2d_packed_elements(p, p.tile)) : 0);
  if (p.packed == nullptr) pack<T>(p, packed.as<S>());
  input.read();
  residual.read();
  Conv2dProblem<S> problem{};
  for (int i = 0; i < 2; ++i) problem.axes[i] = p.axes[i];
  problem.batch = p.batch;
  problem.groups = p.groups;
  problem.channels = p.in_channels;
  problem.columns = p.out_channels;
  problem.source = input.data();
  problem.packed = p.packed == nullptr ? packed.as<S>() : static_cast<const S*>(p.packed);
  problem.bias = static_cast<const S*>(p.bias);
  problem.residual = residual.data();
  problem.target = output.data();
  problem.epilogue = {p.activation, static_cast<S>(p.negative_slope)};
  bool done = false;
  if constexpr (sizeof(S) == sizeof(float)) {
    if (p.tile == 2) convolve_by_tiles<2>(problem), done = true;
    if (p.tile == 4) convolve_by_tiles<4>(problem), done = true;
  }
  if (!done && is_depthwise(p)) {
    convolve_depthwise(problem);
  } else if (!done && is_narrow(problem)) {
    convolve_narrow(problem);
  } else if (!done) {
    convolve_directly(problem);
  }
  output.write();
}

}  // namespace

void conv2d_pack_cpu(const Conv2dParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    advise_huge_pages(params.output, conv2d_packed_elements(params, params.tile) * sizeof(Accumulate<T>));
    pack<T>(params, static_cast<Accumulate<T>*>(params.output));
  });
}

void conv2d_forward_cpu(const Conv2dParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const int64_t pixels = params.batch * params.axes[0].output * params.axes[1].output;
    advise_huge_pages(params.output, pixels * params.groups * params.out_channels * sizeof(T));
    forward<T>(params);
  });
}

}  // namespace fastcv::FASTCV_VARIANT

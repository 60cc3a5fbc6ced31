// Convolution on the CPU. See conv2d.h for the meaning; conv2d_direct_cpu.h and conv2d_winograd_cpu.h for the design.
#include "ops/conv2d/conv2d_depthwise_cpu.h"
#include "ops/conv2d/conv2d_direct_cpu.h"
#include "ops/conv2d/conv2d_narrow_cpu.h"
#include "ops/conv2d/conv2d_pack_cpu.h"
#include "ops/conv2d/conv2d_winograd_cpu.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

template <class T, class E>
struct MapType {
  using type = E;
};
#if defined(__AVX512F__)
template <class T, bool kTwin>
struct MapType<T, BFloat16Pair<kTwin>> {
  using type = T;
};
#endif

// E is what products are made of: the type of the sums, or pairs of bfloat16 where serves_pairs.
template <class T, class E>
void pack(const Conv2dParams& p, E* packed) {
  if constexpr (!kIsPair<E>) {
    if constexpr (sizeof(E) == sizeof(float)) {
      if (p.tile == 2) return pack_transformed<2, T>(p, packed);
      if (p.tile == 4) return pack_transformed<4, T>(p, packed);
      if (p.tile == 6) return pack_transformed<6, T>(p, packed);
      if (p.tile == kStridedTile) return pack_transformed<kStridedTile, T>(p, packed);
    }
    if (is_depthwise(p)) return pack_depthwise<T>(p, packed);
  }
  pack_direct<T>(p, packed);
}

template <class S>
void convolve(const Conv2dProblem<S>& problem, int tile) {
  if constexpr (sizeof(S) == sizeof(float)) {
    if (tile == 2) return convolve_by_tiles<2>(problem);
    if (tile == 4) return convolve_by_tiles<4>(problem);
    if (tile == 6) return convolve_by_tiles<6>(problem);
    if (tile == kStridedTile) return convolve_by_tiles<kStridedTile>(problem);
  }
  if (problem.groups > 1 && problem.channels == 1 && problem.columns == 1) return convolve_depthwise(problem);
  const bool taken_over = problem.residual != nullptr && (problem.residual == problem.target || is_enlarged(problem));
  if (is_narrow(problem) && !taken_over) return convolve_narrow(problem);
  convolve_directly(problem);
}

template <class T, class E>
void forward(const Conv2dParams& p) {
  using S = Accumulate<E>;
  using Map = typename MapType<T, E>::type;  // what the kernels read and write
  const int64_t in = p.groups * p.in_channels, out = p.groups * p.out_channels;
  const ChannelsInnermost<T, Map> input(const_cast<void*>(p.input), p.batch, in, p.axes[0].input * p.axes[1].input,
                                        p.input_channels_last);
  const int64_t pixels = p.axes[0].output * p.axes[1].output;
  const int64_t added = p.residual == nullptr ? 0 : p.residual_size[0] * p.residual_size[1];
  const ChannelsInnermost<T, Map> residual(const_cast<void*>(p.residual), p.batch, out, added, p.output_channels_last);
  const ChannelsInnermost<T, Map> output(p.output, p.batch, out, pixels, p.output_channels_last);
  const Scratch packed(p.packed == nullptr ? bytes_of<E>(conv2d_packed_elements(p, p.tile)) : 0);
  if (p.packed == nullptr) pack<T>(p, packed.as<E>());
  input.read();
  residual.read();
  Conv2dProblem<E, Map> problem{};
  for (int i = 0; i < 2; ++i) problem.axes[i] = p.axes[i];
  problem.batch = p.batch;
  problem.groups = p.groups;
  problem.channels = factors_to_elements<E>(p.in_channels);
  problem.columns = p.out_channels;
  problem.source = static_cast<const E*>(static_cast<const void*>(input.data()));
  problem.packed = p.packed == nullptr ? packed.as<E>() : static_cast<const E*>(p.packed);
  problem.bias = static_cast<const S*>(p.bias);
  problem.residual = residual.data();
  for (int i = 0; i < 2; ++i) problem.residual_size[i] = p.residual_size[i];
  problem.target = output.data();
  problem.epilogue = {p.activation, static_cast<S>(p.negative_slope)};
  if constexpr (kIsPair<E>) {
    convolve_directly(problem);
  } else {
    convolve(problem, p.tile);
  }
  output.write();
}

// Calls body(TypeTag<E>, TypeTag<T>).
template <class Body>
void dispatch_products(const Conv2dParams& p, const Body& body) {
  if (serves_pairs(p)) return dispatch_factors(p.dtype, body);
  dispatch_floating(p.dtype, [&](auto tag) { body(TypeTag<Accumulate<typename decltype(tag)::type>>{}, tag); });
}

}  // namespace

void conv2d_pack_cpu(const Conv2dParams& params) {
  dispatch_products(params, [&](auto factor, auto tag) {
    using E = typename decltype(factor)::type;
    advise_huge_pages(params.output, conv2d_packed_elements(params, params.tile) * sizeof(E));
    pack<typename decltype(tag)::type>(params, static_cast<E*>(params.output));
  });
}

void conv2d_forward_cpu(const Conv2dParams& params) {
  dispatch_products(params, [&](auto factor, auto tag) {
    using T = typename decltype(tag)::type;
    const int64_t pixels = params.batch * params.axes[0].output * params.axes[1].output;
    advise_huge_pages(params.output, pixels * params.groups * params.out_channels * sizeof(T));
    forward<T, typename decltype(factor)::type>(params);
  });
}

}  // namespace fastcv::FASTCV_VARIANT

// Products of bfloat16 in pairs: two products per lane and instruction, added to a float (AVX512-BF16). CPU translation
// units only, and only those of the AVX-512 variant; bf16_products() in cpu_variants.h says when to use it.
//
// The instruction, VDPBF16PS, as Intel's manual (volume 2) defines it, for each of the 16 lanes:
//
//   sum += a.odd * b.odd       then       sum += a.even * b.even
//
// each step a fused multiply-add, rounded to nearest even. Subnormal operands and results count as zeros of their sign;
// the MXCSR register has no say in any of it and learns nothing. The twin below does the same with AVX-512 alone, so
// that layouts, tails and dispatch are tested on processors without the instruction. Two things it leaves out: a result
// that only rounding lifts to the smallest normal number, 2^-126, may be that number or zero; and which of several NaNs
// comes through (nothing that is stored as bfloat16 tells).
#pragma once

#include "core/cpu_variants.h"
#include "core/simd.h"

namespace fastcv::FASTCV_VARIANT {

template <class T>
constexpr bool kIsPair = false;

// One factor of those that a T holds.
template <class T>
struct FactorType {
  using type = T;
};
template <class T>
using Factor = typename FactorType<T>::type;

// How many T hold `count` factors.
template <class T>
inline int64_t factors_to_elements(int64_t count) {
  return kIsPair<T> ? ceil_div(count, 2) : count;
}

#if defined(__AVX512F__)

// Two neighbouring factors of one sum, as they lie in a tensor: the even one in the low half.
typedef uint32_t PairBits __attribute__((aligned(2), may_alias));
template <bool kTwin>
struct BFloat16Pair {
  PairBits bits;
};

template <bool kTwin>
constexpr bool kIsPair<BFloat16Pair<kTwin>> = true;

template <bool kTwin>
struct FactorType<BFloat16Pair<kTwin>> {
  using type = bfloat16;
};

template <bool kTwin>
struct PairVector {
  __m512i bits;
};
template <bool kTwin>
struct VectorOf<BFloat16Pair<kTwin>> {
  using type = PairVector<kTwin>;
};

template <bool kTwin>
FASTCV_INLINE PairVector<kTwin> load(const BFloat16Pair<kTwin>* source) {
  return {_mm512_loadu_si512(source)};
}
template <bool kTwin>
FASTCV_INLINE void store(BFloat16Pair<kTwin>* target, PairVector<kTwin> value) {
  _mm512_storeu_si512(target, value.bits);
}
template <bool kTwin>
FASTCV_INLINE PairVector<kTwin> broadcast(BFloat16Pair<kTwin> value) {
  return {_mm512_set1_epi32(static_cast<int>(value.bits))};
}

FASTCV_INLINE Vector<float> without_subnormals(Vector<float> value) {
  const __m512i bits = _mm512_castps_si512(value);
  const __mmask16 subnormal = _mm512_testn_epi32_mask(bits, _mm512_set1_epi32(0x7f800000));
  return _mm512_castsi512_ps(_mm512_mask_and_epi32(bits, subnormal, bits, _mm512_set1_epi32(INT32_MIN)));
}
FASTCV_INLINE Vector<float> multiply_add_flushed(__m512i a, __m512i b, Vector<float> c) {
  const Vector<float> factor_a = without_subnormals(_mm512_castsi512_ps(a));
  const Vector<float> factor_b = without_subnormals(_mm512_castsi512_ps(b));
  return without_subnormals(multiply_add(factor_a, factor_b, without_subnormals(c)));
}

// Adds both products of each lane. Assembly, because the intrinsic can be used only in functions compiled for
// AVX512-BF16, and these are parts of templates that are also compiled for other types and for any AVX-512. Always part
// of those, so that no function by itself has the instruction.
template <bool kTwin>
FASTCV_INLINE Vector<float> multiply_add(PairVector<kTwin> a, PairVector<kTwin> b, Vector<float> sum) {
  if constexpr (kTwin) {
    const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    sum = multiply_add_flushed(_mm512_and_si512(a.bits, high), _mm512_and_si512(b.bits, high), sum);
    return multiply_add_flushed(_mm512_slli_epi32(a.bits, 16), _mm512_slli_epi32(b.bits, 16), sum);
  } else {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a.bits), "v"(b.bits));
    return sum;
  }
}

// target[i] = (even[i], odd[i]), or (even[i], 0) where odd is null.
template <bool kTwin>
FASTCV_INLINE void pair_rows(const bfloat16* even, const bfloat16* odd, int64_t count, BFloat16Pair<kTwin>* target) {
  constexpr int64_t kWidth = kLanes<float>;
  for (int64_t i = 0; i < count; i += kWidth) {
    const int64_t left = count - i;
    const __mmask16 lanes = static_cast<__mmask16>(left >= kWidth ? 0xffff : (1 << left) - 1);
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, even + i));
    __m512i high = _mm512_setzero_si512();
    if (odd != nullptr) high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, odd + i));
    _mm512_mask_storeu_epi32(target + i, lanes, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }
}

#endif

// Element k, and of pairs elements 2 k and 2 k + 1, of `count` ones, `step` apart.
template <class T, class From>
inline T gather_factors(const From* source, int64_t step, int64_t k, int64_t count) {
  if constexpr (kIsPair<T>) {
    const uint32_t odd = 2 * k + 1 < count ? source[(2 * k + 1) * step].bits : 0;
    return {source[2 * k * step].bits | odd << 16};
  } else {
    return to_float(source[k * step]);
  }
}

// Calls body(TypeTag<E>, TypeTag<T>) with the type of the factors that a matrix product is made of, and that of the
// tensors: pairs for bfloat16 where bf16_products() asks for them, else the type of the sums.
template <class Body>
inline void dispatch_factors(DType dtype, const Body& body) {
#if defined(__AVX512F__)
  if (dtype == DType::kBFloat16) {
    const Bf16Products products = bf16_products();
    if (products == Bf16Products::kInstruction) return body(TypeTag<BFloat16Pair<false>>{}, TypeTag<bfloat16>{});
    if (products == Bf16Products::kTwin) return body(TypeTag<BFloat16Pair<true>>{}, TypeTag<bfloat16>{});
  }
#endif
  dispatch_floating(dtype, [&](auto tag) { body(TypeTag<Accumulate<typename decltype(tag)::type>>{}, tag); });
}

}  // namespace fastcv::FASTCV_VARIANT

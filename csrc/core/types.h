// Element types and how each is read, written and accumulated, on both devices.
#pragma once

#include <cstdint>

#include "core/platform.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#elif defined(__F16C__)
#include <immintrin.h>
#endif

namespace fastcv {

enum class DType : uint8_t { kFloat16, kBFloat16, kFloat32, kFloat64, kInt32, kInt64, kUInt8, kBool, kOther };

namespace FASTCV_VARIANT {

// Storage only: two bytes with an interpretation. Arithmetic happens in float.
struct float16 {
  uint16_t bits;
};
struct bfloat16 {
  uint16_t bits;
};

// What sums of T are kept in.
template <class T>
struct AccumulateType {
  using type = float;
};
template <>
struct AccumulateType<double> {
  using type = double;
};
template <class T>
using Accumulate = typename AccumulateType<T>::type;

template <class To, class From>
FASTCV_HD To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof(to));
  return to;
}

FASTCV_HD float to_float(float value) {
  return value;
}
FASTCV_HD double to_float(double value) {
  return value;
}

FASTCV_HD float to_float(bfloat16 value) {
  return bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

FASTCV_HD float to_float(float16 value) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(value.bits));
#elif defined(__F16C__)
  return _cvtsh_ss(value.bits);
#elif defined(__aarch64__) && !defined(__CUDACC__)
  return static_cast<float>(bit_cast<__fp16>(value.bits));
#else
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const uint32_t magnitude = value.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return bit_cast<float>(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));  // Inf, NaN
  if (magnitude >= 0x0400u) return bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));          // normal
  const float subnormal = static_cast<float>(magnitude) * 5.9604644775390625e-8f;                       // x 2^-24
  return sign != 0 ? -subnormal : subnormal;
#endif
}

// Rounds to nearest, ties to even, as torch does.
template <class T>
FASTCV_HD T from_float(Accumulate<T> value) {
  return static_cast<T>(value);
}

template <>
FASTCV_HD bfloat16 from_float<bfloat16>(float value) {
  const uint32_t bits = bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fc0};  // NaN
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

template <>
FASTCV_HD float16 from_float<float16>(float value) {
#if defined(__CUDA_ARCH__)
  return {__half_as_ushort(__float2half_rn(value))};
#elif defined(__F16C__)
  return {static_cast<uint16_t>(_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT))};
#elif defined(__aarch64__) && !defined(__CUDACC__)
  return {bit_cast<uint16_t>(static_cast<__fp16>(value))};
#else
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};   // NaN
  if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // rounds to Inf
  if (magnitude < 0x38800000u) {
    // Subnormal: adding 0.5 lets the float adder round to the right bit.
    const float shifted = bit_cast<float>(magnitude) + 0.5f;
    return {static_cast<uint16_t>(sign | (bit_cast<uint32_t>(shifted) - 0x3f000000u))};
  }
  const uint32_t odd = (magnitude >> 13) & 1u;
  return {static_cast<uint16_t>(sign | ((magnitude - (112u << 23) + 0x0fffu + odd) >> 13))};
#endif
}

// a * b + c, rounded once where the hardware does so at no cost. Contraction is off everywhere: fusing is asked for.
FASTCV_HD float multiply_add(float a, float b, float c) {
#if defined(__CUDA_ARCH__) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}
FASTCV_HD double multiply_add(double a, double b, double c) {
#if defined(__CUDA_ARCH__) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}

// The smaller and the greater of two; the second where one is a NaN. Of vectors lane by lane.
template <class A, class B>
constexpr FASTCV_HD auto least(A a, B b) {
  return a < b ? a : b;
}
template <class A, class B>
constexpr FASTCV_HD auto greatest(A a, B b) {
  return a > b ? a : b;
}

// How many parts of `size` hold `count` things, and how many things those parts hold. None, or fewer, where `count` is
// negative: the quotient is rounded up.
template <class A, class B>
constexpr FASTCV_HD auto ceil_div(A count, B size) {
  return count / size + (count % size > 0);
}
template <class A, class B>
constexpr FASTCV_HD auto round_up(A count, B size) {
  return ceil_div(count, size) * size;
}
static_assert(ceil_div(7, 3) == 3 && ceil_div(6, 3) == 2 && ceil_div(-2, 3) == 0 && ceil_div(-4, 3) == -1);

// A few neighbouring elements, moved as one: in loads and stores of at most 16 bytes.
template <class T, int kCount>
struct alignas(least<int>(sizeof(T) * kCount, 16)) Pack {
  T value[kCount];
};

template <class T>
struct TypeTag {
  using type = T;
};

// Calls body(TypeTag<T>{}) with the C++ type of a floating dtype; the bindings have refused all others.
template <class Body>
void dispatch_floating(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::kFloat16:
      return body(TypeTag<float16>{});
    case DType::kBFloat16:
      return body(TypeTag<bfloat16>{});
    case DType::kFloat32:
      return body(TypeTag<float>{});
    case DType::kFloat64:
      return body(TypeTag<double>{});
    default:
      return;
  }
}

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

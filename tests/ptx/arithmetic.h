// Values of PTX instructions that C++ has no operator for; from the PTX ISA, whose section each names.
#pragma once

#include <cstdint>
#include <limits>

namespace fastcv::ptx {

using int128_t = __int128;
using uint128_t = unsigned __int128;

// "mov": the same bits as another type.
template <class To, class From>
inline To as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof(to));
  return to;
}

// ---- integers -------------------------------------------------------------------------------------------------------

template <class T>
T negate(T value) {
  return T(0 - as<uint64_t>(int64_t(value)));
}
template <class T>
uint32_t leading_zeros(T value) {
  if (value == 0) return 8 * sizeof(T);
  return uint32_t(__builtin_clzll(value)) - (64 - 8 * unsigned(sizeof(T)));
}
template <class T>
T reverse_bits(T value) {
  T reversed = 0;
  for (unsigned i = 0; i < 8 * sizeof(T); ++i) reversed |= (value >> i & 1) << (8 * sizeof(T) - 1 - i);
  return reversed;
}
// "bfi": the low `length` bits of a, in place of those of b from `position` on.
template <class T>
T insert_bits(T a, T b, uint32_t position, uint32_t length) {
  T result = b;
  position &= 0xff, length &= 0xff;
  for (unsigned i = 0; i < length && position + i < 8 * sizeof(T); ++i) {
    const T bit = T(1) << (position + i);
    result = (a >> i & 1) != 0 ? result | bit : result & ~bit;
  }
  return result;
}

// ---- floating point -------------------------------------------------------------------------------------------------

inline bool unordered(double a, double b) {
  return a != a || b != b;
}

// "Floating Point Instructions": those of f32 give one NaN, those of f64 keep what a NaN holds.
inline float canonical(float value) {
  return value == value ? value : as<float>(0x7fffffffu);
}
inline double canonical(double value) {
  return value;
}

inline float fused(float a, float b, float c) {
  return __builtin_fmaf(a, b, c);
}
inline double fused(double a, double b, double c) {
  return __builtin_fma(a, b, c);
}
inline float absolute(float value) {
  return __builtin_fabsf(value);
}
inline double absolute(double value) {
  return __builtin_fabs(value);
}
inline float square_root(float value) {
  return __builtin_sqrtf(value);
}
inline double square_root(double value) {
  return __builtin_sqrt(value);
}

// "copysign": the sign of a with the magnitude of b.
inline float copy_sign(float a, float b) {
  return __builtin_copysignf(b, a);
}
inline double copy_sign(double a, double b) {
  return __builtin_copysign(b, a);
}

// "min", "max": of a number and a NaN the number; -0 is less than +0.
template <class T>
T minimum(T a, T b) {
  if (a != a && b != b) return canonical(a);
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return __builtin_signbit(a) ? a : b;
  return a < b ? a : b;
}
template <class T>
T maximum(T a, T b) {
  if (a != a && b != b) return canonical(a);
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return __builtin_signbit(a) ? b : a;
  return a > b ? a : b;
}

// In another rounding mode.
float add_toward_zero(float a, float b);
double add_toward_zero(double a, double b);
float fused_downward(float a, float b, float c);

// Approximations, rounded here from the exact value; what is subnormal counts as zero.
float reciprocal_flushed(float value);
double reciprocal_upper_half(double value);
float power_of_two_flushed(float value);

// ---- conversions ----------------------------------------------------------------------------------------------------

// "cvt": the integer towards zero, the nearest of T's range. A NaN gives 0; the highest bit alone where it comes from
// f64 or goes to 64 bits.
template <class T, class F>
T to_integer(F value) {
  using Limits = std::numeric_limits<T>;
  if (value != value) {
    return sizeof(F) == 8 || sizeof(T) == 8 ? T(uint64_t{1} << (8 * sizeof(T) - 1)) : T(0);
  }
  if (value >= F(Limits::max())) return Limits::max();
  if (value <= F(Limits::min())) return Limits::min();
  return T(value);
}

float round_to_even(float value);
double round_to_even(double value);
inline float round_toward_zero(float value) {
  return __builtin_truncf(value);
}
inline double round_toward_zero(double value) {
  return __builtin_trunc(value);
}
inline float round_down(float value) {
  return __builtin_floorf(value);
}
inline double round_down(double value) {
  return __builtin_floor(value);
}
inline float round_up(float value) {
  return __builtin_ceilf(value);
}
inline double round_up(double value) {
  return __builtin_ceil(value);
}

// ".sat": to [0, 1]; a NaN gives +0.
inline float saturate(float value) {
  return value > 0 ? (value < 1 ? value : 1.0f) : 0.0f;
}

// The formats of "Fundamental Types" and "Alternate Floating-Point Data Formats", as bits.
float half_to_float(uint16_t bits);
uint16_t float_to_half(float value);
float bfloat_to_float(uint16_t bits);
uint16_t float_to_bfloat(float value);
uint32_t float_to_tf32(float value);  // ties away from zero

}  // namespace fastcv::ptx

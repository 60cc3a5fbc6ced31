// Compiled with -frounding-math: it changes the rounding mode.
#include "ptx/arithmetic.h"

#include <cfenv>
#include <cmath>

namespace fastcv::ptx {

namespace {

template <class Operation>
auto rounded(int mode, Operation operation) {
  const int before = std::fegetround();
  std::fesetround(mode);
  volatile auto result = operation();
  std::fesetround(before);
  return result;
}

float flushed(float value) {
  return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0f, value) : value;
}
double flushed(double value) {
  return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0, value) : value;
}

// The magnitude as a multiple of the distance between its neighbours in a format with so many bits of mantissa and this
// lowest exponent: {exponent, multiple}, the multiple not yet rounded.
struct Scaled {
  int exponent;
  double multiple;
};
Scaled scaled(float value, int mantissa, int lowest) {
  const double magnitude = std::fabs(static_cast<double>(value));
  int exponent = magnitude == 0 ? lowest : std::ilogb(magnitude);
  if (exponent < lowest) exponent = lowest;
  return {exponent, std::ldexp(magnitude, mantissa - exponent)};
}

// Rounds to the nearest, ties to even, in a format of 16 bits.
uint16_t to_16_bits(float value, int mantissa, int lowest, uint16_t infinity) {
  if (value != value) return 0x7fff;
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isinf(value)) return sign | infinity;
  const Scaled exact = scaled(value, mantissa, lowest);
  const double multiple = std::nearbyint(exact.multiple);
  // A number is (biased exponent, multiple without its leading bit); one more than the largest is the infinity.
  const double bits = std::ldexp(exact.exponent - lowest, mantissa) + multiple;
  return sign | (bits >= infinity ? infinity : static_cast<uint16_t>(bits));
}

}  // namespace

// The operands through volatile variables: the compiler may not move the sum out of the rounding mode.
float add_toward_zero(float a, float b) {
  volatile float x = a, y = b;
  return canonical(rounded(FE_TOWARDZERO, [&] { return static_cast<float>(x + y); }));
}
double add_toward_zero(double a, double b) {
  volatile double x = a, y = b;
  return rounded(FE_TOWARDZERO, [&] { return static_cast<double>(x + y); });
}
float fused_downward(float a, float b, float c) {
  volatile float x = a, y = b, z = c;
  return canonical(rounded(FE_DOWNWARD, [&] { return std::fma(x, y, z); }));
}

float reciprocal_flushed(float value) {
  return canonical(flushed(1 / flushed(value)));
}
double reciprocal_upper_half(double value) {
  const double result = flushed(1 / flushed(value));
  if (result != result) return result;
  return as<double>(as<uint64_t>(result) & 0xffffffff00000000u);
}
float power_of_two_flushed(float value) {
  const float result = static_cast<float>(std::exp2(static_cast<double>(flushed(value))));
  return canonical(flushed(result));
}

float round_to_even(float value) {
  return std::nearbyint(value);
}
double round_to_even(double value) {
  return std::nearbyint(value);
}

float half_to_float(uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 0x3ff;
  const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 31) return mantissa != 0 ? as<float>(0x7fffffffu) : sign * HUGE_VALF;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  return sign * std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
}
uint16_t float_to_half(float value) {
  return to_16_bits(value, 10, -14, 0x7c00);
}

float bfloat_to_float(uint16_t bits) {
  return as<float>(static_cast<uint32_t>(bits) << 16);
}
uint16_t float_to_bfloat(float value) {
  return to_16_bits(value, 7, -126, 0x7f80);
}

uint32_t float_to_tf32(float value) {
  if (value != value) return 0x7fffffff;
  if (std::isinf(value)) return as<uint32_t>(value);
  const Scaled exact = scaled(value, 10, -126);
  const double rounded_away = std::floor(exact.multiple + 0.5);
  const float magnitude = static_cast<float>(std::ldexp(rounded_away, exact.exponent - 10));
  return as<uint32_t>(std::copysign(magnitude, value));
}

}  // namespace fastcv::ptx

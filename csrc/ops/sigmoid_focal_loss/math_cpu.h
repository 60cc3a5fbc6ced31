// Elementary functions of vectors. CPU translation units only; each is accurate to 2 units in the last place.
#pragma once

#include "core/simd.h"

namespace fastcv::FASTCV_VARIANT {

// exp(x) for x <= 0; 0 below the range of normal numbers. x = n ln 2 + r with |r| <= ln 2 / 2; n comes from adding a
// number so large that the sum's last bit is worth one, and goes into the exponent's bits.
inline Vector<float> exp_of_nonpositive(Vector<float> x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
  const Vector<float> shifted = x * 1.44269504088896341f + kRound;
  const Vector<float> n = shifted - kRound;
  Vector<float> r = x - n * 0.693359375f;  // exact: ln 2 in two parts, the first of 9 bits
  r = r + n * 2.12194440e-4f;
  constexpr float kCoefficients[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                     4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
  Vector<float> sum{};
  for (float coefficient : kCoefficients) {
    sum = multiply_add(sum, r, broadcast(coefficient));
  }
  sum = multiply_add(sum, r * r, r) + 1.0f;
  typedef uint32_t Bits __attribute__((vector_size(kVectorBytes)));
  const Vector<float> scale = bit_cast<Vector<float>>((bit_cast<Bits>(shifted) + 127u) << 23);
  return x < broadcast(-87.0f) ? Vector<float>{} : sum * scale;
}

inline Vector<double> exp_of_nonpositive(Vector<double> x) {
  constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  const Vector<double> shifted = x * 1.44269504088896340736 + kRound;
  const Vector<double> n = shifted - kRound;
  Vector<double> r = x - n * 6.93145751953125e-1;
  r = r - n * 1.42860682030941723212e-6;
  double factorial = 6227020800.0;  // 13!
  Vector<double> sum = broadcast(1.0 / factorial);
  for (int k = 13; k > 1; --k) {
    factorial /= k;
    sum = multiply_add(sum, r, broadcast(1.0 / factorial));
  }
  sum = multiply_add(sum, r, broadcast(1.0));
  typedef uint64_t Bits __attribute__((vector_size(kVectorBytes)));
  const Vector<double> scale = bit_cast<Vector<double>>((bit_cast<Bits>(shifted) + uint64_t{1023}) << 52);
  return x < broadcast(-708.0) ? Vector<double>{} : sum * scale;
}

// log(1 + x) for 0 <= x <= 1, as 2 atanh(s) with s = x / (2 + x) <= 1/3, by its series.
template <class S>
inline Vector<S> log1p_of_unit(Vector<S> x) {
  constexpr int kTerms = sizeof(S) == 4 ? 8 : 17;
  const Vector<S> s = x / (x + S(2));
  const Vector<S> square = s * s;
  Vector<S> sum = broadcast(S(1) / S(2 * kTerms - 1));
  for (int k = kTerms - 2; k > 0; --k) sum = multiply_add(sum, square, broadcast(S(1) / S(2 * k + 1)));
  const Vector<S> twice = s + s;
  return multiply_add(sum * square, twice, twice);
}

}  // namespace fastcv::FASTCV_VARIANT

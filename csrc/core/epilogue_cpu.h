// What follows the sums of a convolution: an addition and an activation. CPU translation units only.
#pragma once

#include "core/epilogue.h"
#include "core/simd.h"

namespace fastcv::FASTCV_VARIANT {

// e^x in float32, to 2 units in the last place: 2^n * e^r with |r| <= ln 2 / 2, e^r as a polynomial of degree 6.
FASTCV_INLINE Vector<float> exponential(Vector<float> x) {
  const Vector<float> high = broadcast(88.72f), low = broadcast(-87.3f), magic = broadcast(12582912.0f);  // 1.5 * 2^23
  const Vector<float> inside = x > high ? high : x < low ? low : x;
  const Vector<float> shifted = multiply_add(inside, broadcast(1.44269504f), magic);
  const Vector<float> n = shifted - magic;
  Vector<float> r = multiply_add(n, broadcast(-0.693359375f), inside);
  r = multiply_add(n, broadcast(2.12194440e-4f), r);
  Vector<float> e = broadcast(1.9875691500e-4f);
  e = multiply_add(e, r, broadcast(1.3981999507e-3f));
  e = multiply_add(e, r, broadcast(8.3334519073e-3f));
  e = multiply_add(e, r, broadcast(4.1665795894e-2f));
  e = multiply_add(e, r, broadcast(1.6666665459e-1f));
  e = multiply_add(e, r, broadcast(5.0000001201e-1f));
  e = multiply_add(e, r * r, r + broadcast(1.0f));
  IntegerVector<float> exponent;
  __builtin_memcpy(&exponent, &shifted, sizeof(exponent));
  exponent = (exponent << 23) + (127 << 23);  // the low bits of `shifted` are n
  Vector<float> power;
  __builtin_memcpy(&power, &exponent, sizeof(power));
  e *= power;
  return x > high ? broadcast(__builtin_inff()) : e;
}
FASTCV_INLINE Vector<double> exponential(Vector<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = __builtin_exp(x[i]);
  return x;
}

template <class S>
struct Epilogue {
  Activation activation;
  S slope;
};

// NaN comes through all of them.
template <Activation kActivation, class S>
FASTCV_INLINE Vector<S> activate(Vector<S> x, [[maybe_unused]] Vector<S> slope) {
  if constexpr (kActivation == Activation::kRelu) return greatest(Vector<S>{}, x);
  if constexpr (kActivation == Activation::kLeakyRelu) return x > Vector<S>{} ? x : x * slope;
  if constexpr (kActivation == Activation::kSilu) return x / (exponential(-x) + broadcast(S(1)));
  return x;
}

template <Activation kActivation>
struct ActivationTag {
  static constexpr Activation value = kActivation;
};

// Calls body(ActivationTag<...>{}).
template <class Body>
FASTCV_INLINE void dispatch_activation(Activation activation, const Body& body) {
  switch (activation) {
    case Activation::kRelu:
      return body(ActivationTag<Activation::kRelu>{});
    case Activation::kLeakyRelu:
      return body(ActivationTag<Activation::kLeakyRelu>{});
    case Activation::kSilu:
      return body(ActivationTag<Activation::kSilu>{});
    default:
      return body(ActivationTag<Activation::kNone>{});
  }
}

// The first `count` lanes, the others zero; and to memory.
template <class T>
FASTCV_INLINE Vector<Accumulate<T>> load_lanes(const T* source, int64_t count) {
  T lanes[kLanes<Accumulate<T>>] = {};
  __builtin_memcpy(lanes, source, count * sizeof(T));
  return load(lanes);
}
template <class T>
FASTCV_INLINE void store_lanes(T* target, Vector<Accumulate<T>> value, int64_t count) {
  T lanes[kLanes<Accumulate<T>>];
  store(lanes, value);
  __builtin_memcpy(target, lanes, count * sizeof(T));
}

// Rows of sums, `width` from one to the next, to rows of `target`, which may be the same. `residual` is null or lies like
// `target`.
template <class T, class S>
void finish_rows(const S* sums, int64_t width, const T* residual, T* target, int64_t step, int64_t rows,
                 int64_t columns, Epilogue<S> epilogue) {
  const bool in_place = static_cast<const void*>(sums) == static_cast<const void*>(target);
  if (in_place && residual == nullptr && epilogue.activation == Activation::kNone) return;
  dispatch_activation(epilogue.activation, [&](auto tag) {
    constexpr Activation kActivation = decltype(tag)::value;
    const Vector<S> slope = broadcast(epilogue.slope);
    for (int64_t i = 0; i < rows; ++i) {
      const S* row = sums + i * width;
      const T* other = residual == nullptr ? nullptr : residual + i * step;
      T* out = target + i * step;
      int64_t n = 0;
      for (; n + kLanes<S> <= columns; n += kLanes<S>) {
        Vector<S> value = load(row + n);
        if (other != nullptr) value += load(other + n);
        store(out + n, activate<kActivation, S>(value, slope));
      }
      if (n == columns) continue;
      Vector<S> value = load_lanes(row + n, columns - n);
      if (other != nullptr) value += load_lanes(other + n, columns - n);
      store_lanes(out + n, activate<kActivation, S>(value, slope), columns - n);
    }
  });
}

}  // namespace fastcv::FASTCV_VARIANT

// Short vectors of the instruction set in use: GCC/Clang vector types, with conversions and fused multiply-add written
// out. CPU translation units only.
#pragma once

#include <cstdint>

#include "core/types.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace fastcv::FASTCV_VARIANT {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vector = typename VectorOf<T>::type;  // T is float or double
template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

// Lanes of memory of any element type, as a vector of what T accumulates in.
template <class T>
FASTCV_HD Vector<Accumulate<T>> load(const T* source) {
  if constexpr (sizeof(T) >= 4) {
    Vector<T> value;
    __builtin_memcpy(&value, source, sizeof(value));
    return value;
  } else {
    Vector<float> value;
    for (int i = 0; i < kLanes<float>; ++i) value[i] = to_float(source[i]);
    return value;
  }
}

template <class T>
FASTCV_HD void store(T* target, Vector<Accumulate<T>> value) {
  if constexpr (sizeof(T) >= 4) {
    __builtin_memcpy(target, &value, sizeof(value));
  } else {
    for (int i = 0; i < kLanes<float>; ++i) target[i] = from_float<T>(value[i]);
  }
}

#if defined(__AVX512F__)
template <>
FASTCV_HD Vector<float> load<float16>(const float16* source) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
}
template <>
FASTCV_HD void store<float16>(float16* target, Vector<float> value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
}
template <>
FASTCV_HD Vector<float> load<bfloat16>(const bfloat16* source) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
template <>
FASTCV_HD void store<bfloat16>(bfloat16* target, Vector<float> value) {
  const __m512i bits = _mm512_castps_si512(value);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded =
      _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
  const __m512i result = _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc0));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), _mm512_cvtepi32_epi16(result));
}
#elif defined(__AVX2__)
template <>
FASTCV_HD Vector<float> load<float16>(const float16* source) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
}
template <>
FASTCV_HD void store<float16>(float16* target, Vector<float> value) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(target), _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
}
template <>
FASTCV_HD Vector<float> load<bfloat16>(const bfloat16* source) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
#endif

// Copies to memory that nobody reads soon without reading its cache lines first. The thread that did so calls
// finish_past_caches before another one may look.
FASTCV_HD void copy_past_caches(void* target, const void* source, int64_t bytes) {
#if defined(__SSE2__)
  char* to = static_cast<char*>(target);
  const char* from = static_cast<const char*>(source);
  const int64_t misaligned = static_cast<int64_t>(-reinterpret_cast<uintptr_t>(to) % kVectorBytes);
  const int64_t head = misaligned < bytes ? misaligned : bytes;
  __builtin_memcpy(to, from, head);
  int64_t i = head;
  for (; i + kVectorBytes <= bytes; i += kVectorBytes) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i), _mm512_loadu_si512(from + i));
#elif defined(__AVX2__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i),
                        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i)));
#else
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
#endif
  }
  __builtin_memcpy(to + i, from + i, bytes - i);
#else
  __builtin_memcpy(target, source, bytes);
#endif
}

FASTCV_HD void finish_past_caches() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

template <class T>
FASTCV_HD Vector<T> broadcast(T value) {
  return value - Vector<T>{};
}

// a * b + c, fused where the instruction set has it.
FASTCV_HD Vector<float> multiply_add(Vector<float> a, Vector<float> b, Vector<float> c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}
FASTCV_HD Vector<double> multiply_add(Vector<double> a, Vector<double> b, Vector<double> c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_pd(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_pd(a, b, c);
#else
  return a * b + c;
#endif
}

}  // namespace fastcv::FASTCV_VARIANT

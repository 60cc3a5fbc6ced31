// Stores that pass the caches by, for memory that nobody reads soon. CPU translation units only.
#pragma once

#include "core/simd.h"

namespace fastcv::FASTCV_VARIANT {

// Copies to memory that nobody reads soon without reading its cache lines first. The thread that did so calls
// finish_past_caches before another one may look.
FASTCV_INLINE void copy_past_caches(void* target, const void* source, int64_t bytes) {
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

// The same for one vector; `target` is aligned to kVectorBytes.
FASTCV_INLINE void store_past_caches(float* target, Vector<float> value) {
#if defined(__AVX512F__)
  _mm512_stream_ps(target, value);
#elif defined(__AVX2__)
  _mm256_stream_ps(target, value);
#elif defined(__SSE2__)
  _mm_stream_ps(target, value);
#else
  store(target, value);
#endif
}

FASTCV_INLINE void finish_past_caches() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

}  // namespace fastcv::FASTCV_VARIANT

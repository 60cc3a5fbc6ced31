// Short vectors of the instruction set in use: GCC/Clang vector types, with conversions and fused multiply-add written
// out. CPU translation units only.
#pragma once

#include <cstdint>

#include "core/types.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

// Vectors that the registers hold, which says how large a block of sums a kernel may keep.
#if defined(__AVX512F__) || defined(__aarch64__)
#define FASTCV_VECTOR_REGISTERS 32
#else
#define FASTCV_VECTOR_REGISTERS 16
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

// An integer as wide as T, for indices and masks; and a vector of them, which is what comparing vectors of T gives.
template <class T>
struct IntegerOf {
  using type = int32_t;
};
template <>
struct IntegerOf<double> {
  using type = int64_t;
};
template <class T>
using Integer = typename IntegerOf<T>::type;
template <class T>
using IntegerVector = decltype(Vector<T>{} < Vector<T>{});

// Lanes of memory of any element type, as a vector of what T accumulates in.
template <class T>
FASTCV_INLINE Vector<Accumulate<T>> load(const T* source) {
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
FASTCV_INLINE void store(T* target, Vector<Accumulate<T>> value) {
  if constexpr (sizeof(T) >= 4) {
    __builtin_memcpy(target, &value, sizeof(value));
  } else {
    for (int i = 0; i < kLanes<float>; ++i) target[i] = from_float<T>(value[i]);
  }
}

#if defined(__AVX512F__)
template <>
FASTCV_INLINE Vector<float> load<float16>(const float16* source) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
}
template <>
FASTCV_INLINE void store<float16>(float16* target, Vector<float> value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
}
template <>
FASTCV_INLINE Vector<float> load<bfloat16>(const bfloat16* source) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
template <>
FASTCV_INLINE void store<bfloat16>(bfloat16* target, Vector<float> value) {
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
FASTCV_INLINE Vector<float> load<float16>(const float16* source) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
}
template <>
FASTCV_INLINE void store<float16>(float16* target, Vector<float> value) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(target), _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
}
template <>
FASTCV_INLINE Vector<float> load<bfloat16>(const bfloat16* source) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
#elif defined(__aarch64__)
template <>
FASTCV_INLINE Vector<float> load<float16>(const float16* source) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&source->bits)));
}
template <>
FASTCV_INLINE void store<float16>(float16* target, Vector<float> value) {
  vst1_u16(&target->bits, vreinterpret_u16_f16(vcvt_f16_f32(value)));
}
template <>
FASTCV_INLINE Vector<float> load<bfloat16>(const bfloat16* source) {
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&source->bits), 16));
}
template <>
FASTCV_INLINE void store<bfloat16>(bfloat16* target, Vector<float> value) {
  const uint32x4_t bits = vreinterpretq_u32_f32(value);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  const uint32x4_t result = vbslq_u32(vceqq_f32(value, value), rounded, vdupq_n_u32(0x7fc00000));
  vst1_u16(&target->bits, vshrn_n_u32(result, 16));
}
#endif

template <class T>
FASTCV_INLINE Vector<T> broadcast(T value) {
  return value - Vector<T>{};
}

#if defined(__AVX512F__)
// The compiler makes a comparison and a blend of these.
FASTCV_INLINE Vector<float> least(Vector<float> a, Vector<float> b) {
  return _mm512_min_ps(a, b);
}
FASTCV_INLINE Vector<float> greatest(Vector<float> a, Vector<float> b) {
  return _mm512_max_ps(a, b);
}
FASTCV_INLINE Vector<double> least(Vector<double> a, Vector<double> b) {
  return _mm512_min_pd(a, b);
}
FASTCV_INLINE Vector<double> greatest(Vector<double> a, Vector<double> b) {
  return _mm512_max_pd(a, b);
}
#endif

// Whether a > b in any lane.
#if defined(__AVX512F__)
FASTCV_INLINE bool any_above(Vector<float> a, Vector<float> b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0;
}
FASTCV_INLINE bool any_above(Vector<double> a, Vector<double> b) {
  return _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ) != 0;
}
#else
// Whether a lane of a comparison's result (all ones or all zeros) is set.
template <class Mask>
FASTCV_INLINE bool any_lane(Mask mask) {
  typedef uint64_t Words __attribute__((vector_size(kVectorBytes)));
  const Words words = (Words)mask;
#if defined(__AVX2__)
  return _mm256_movemask_epi8((__m256i)words) != 0;
#else
  return (words[0] | words[1]) != 0;
#endif
}
template <class V>
FASTCV_INLINE bool any_above(V a, V b) {
  return any_lane(a > b);
}
#endif

// A bit for each lane of a comparison's result.
FASTCV_INLINE uint32_t lane_bits(IntegerVector<float> mask) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask(reinterpret_cast<__m512i>(mask));
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(mask)));
#elif defined(__aarch64__)
  return vaddvq_u32(reinterpret_cast<uint32x4_t>(mask) & uint32x4_t{1, 2, 4, 8});
#else
  uint32_t bits = 0;
  for (int i = 0; i < kLanes<float>; ++i) bits |= (mask[i] != 0 ? 1u : 0u) << i;
  return bits;
#endif
}
FASTCV_INLINE uint32_t lane_bits(IntegerVector<double> mask) {
#if defined(__AVX512F__)
  return _mm512_movepi64_mask(reinterpret_cast<__m512i>(mask));
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_pd(reinterpret_cast<__m256d>(mask)));
#elif defined(__aarch64__)
  return static_cast<uint32_t>(vaddvq_u64(reinterpret_cast<uint64x2_t>(mask) & uint64x2_t{1, 2}));
#else
  uint32_t bits = 0;
  for (int i = 0; i < kLanes<double>; ++i) bits |= (mask[i] != 0 ? 1u : 0u) << i;
  return bits;
#endif
}

// A bit for each lane where a > b.
#if defined(__AVX512F__)
FASTCV_INLINE uint32_t lanes_above(Vector<float> a, Vector<float> b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
}
FASTCV_INLINE uint32_t lanes_above(Vector<double> a, Vector<double> b) {
  return _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ);
}
#elif defined(__AVX2__)
FASTCV_INLINE uint32_t lanes_above(Vector<float> a, Vector<float> b) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)));
}
FASTCV_INLINE uint32_t lanes_above(Vector<double> a, Vector<double> b) {
  return static_cast<uint32_t>(_mm256_movemask_pd(_mm256_cmp_pd(a, b, _CMP_GT_OQ)));
}
#elif defined(__aarch64__)
template <class V>
FASTCV_INLINE uint32_t lanes_above(V a, V b) {
  return lane_bits(a > b);
}
#else
template <class V>
FASTCV_INLINE uint32_t lanes_above(V a, V b) {
  uint32_t lanes = 0;
  for (int i = 0; i < kVectorBytes / static_cast<int>(sizeof(a[0])); ++i) lanes |= (a[i] > b[i] ? 1u : 0u) << i;
  return lanes;
}
#endif

// Copies those of a vector of indices whose bits are set, one behind the other. May write a whole vector.
#if defined(__AVX512F__)
FASTCV_INLINE void pack_lanes(const int32_t* source, uint32_t lanes, int32_t* target) {
  _mm512_storeu_si512(target, _mm512_maskz_compress_epi32(static_cast<__mmask16>(lanes), _mm512_loadu_si512(source)));
}
FASTCV_INLINE void pack_lanes(const int64_t* source, uint32_t lanes, int64_t* target) {
  _mm512_storeu_si512(target, _mm512_maskz_compress_epi64(static_cast<__mmask8>(lanes), _mm512_loadu_si512(source)));
}
#else
template <class T>
FASTCV_INLINE void pack_lanes(const T* source, uint32_t lanes, T* target) {
  for (; lanes != 0; lanes &= lanes - 1) *target++ = source[__builtin_ctz(lanes)];
}
#endif

// a * b + c, fused where the instruction set has it.
FASTCV_INLINE Vector<float> multiply_add(Vector<float> a, Vector<float> b, Vector<float> c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}
FASTCV_INLINE Vector<double> multiply_add(Vector<double> a, Vector<double> b, Vector<double> c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_pd(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_pd(a, b, c);
#elif defined(__aarch64__)
  return vfmaq_f64(c, a, b);
#else
  return a * b + c;
#endif
}

// Adds the halves of a vector to vectors of doubles.
FASTCV_INLINE void add_halves(Vector<double>& low, Vector<double>& high, Vector<float> value) {
#if defined(__aarch64__)  // where the compiler would convert half a vector lane by lane
  low += vcvt_f64_f32(vget_low_f32(value));
  high += vcvt_high_f64_f32(value);
#else
  typedef float Half __attribute__((vector_size(kVectorBytes / 2)));
  Half halves[2];
  __builtin_memcpy(halves, &value, sizeof(value));
  low += __builtin_convertvector(halves[0], Vector<double>);
  high += __builtin_convertvector(halves[1], Vector<double>);
#endif
}

// ---- runs of elements ----

// Where in a run: the kLanes<A> elements from i on, or element i by itself. A is what the elements accumulate in.
template <class A>
struct VectorAt {
  using Value = Vector<A>;
  int64_t i;

  template <class T>
  FASTCV_INLINE Value load(const T* run) const {
    return FASTCV_VARIANT::load(run + i);
  }
  template <class T>
  FASTCV_INLINE void store(T* run, Value value) const {
    FASTCV_VARIANT::store(run + i, value);
  }
  FASTCV_INLINE static Value broadcast(A value) { return FASTCV_VARIANT::broadcast(value); }
};
template <class A>
struct ElementAt {
  using Value = A;
  int64_t i;

  template <class T>
  FASTCV_INLINE Value load(const T* run) const {
    return to_float(run[i]);
  }
  template <class T>
  FASTCV_INLINE void store(T* run, Value value) const {
    run[i] = from_float<T>(value);
  }
  FASTCV_INLINE static Value broadcast(A value) { return value; }
};

// Calls body(at) for all of [0, count): with whole vectors, then with the elements that are left.
template <class A, class Body>
FASTCV_INLINE void for_each_vector(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes<A> <= count; i += kLanes<A>) body(VectorAt<A>{i});
  for (; i < count; ++i) body(ElementAt<A>{i});
}

// target[i] = source[i], for types that accumulate in the same type. The two lie apart: where `count` is not a number
// of whole vectors, the last one is moved back to end at the end.
template <class From, class To>
FASTCV_INLINE void convert_run(const From* source, int64_t count, To* target) {
  using A = Accumulate<From>;
  static_assert(sizeof(A) == sizeof(Accumulate<To>));
  if (count < kLanes<A>) {
    for (int64_t i = 0; i < count; ++i) target[i] = from_float<To>(to_float(source[i]));
    return;
  }
  for (int64_t i = 0; i < count; i += kLanes<A>) {
    const int64_t at = least(i, count - kLanes<A>);
    store(target + at, load(source + at));
  }
}

}  // namespace fastcv::FASTCV_VARIANT

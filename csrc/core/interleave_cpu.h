// Taking pairs of neighbouring elements apart and putting them together. CPU translation units only.
#pragma once

#include "core/transpose_cpu.h"

namespace fastcv::FASTCV_VARIANT {

template <class V, int... kLane>
inline void interleave(V even, V odd, V* low, V* high, Lanes<kLane...>) {
  constexpr int kCount = sizeof...(kLane);
  *low = __builtin_shufflevector(even, odd, (kLane / 2 + kLane % 2 * kCount)...);
  *high = __builtin_shufflevector(even, odd, (kCount / 2 + kLane / 2 + kLane % 2 * kCount)...);
}

template <class V, int... kLane>
inline void deinterleave(V low, V high, V* even, V* odd, Lanes<kLane...>) {
  *even = __builtin_shufflevector(low, high, (2 * kLane)...);
  *odd = __builtin_shufflevector(low, high, (2 * kLane + 1)...);
}

// low, high = even[0], odd[0], even[1], odd[1] ...; S is the type of an element.
template <class S>
inline void interleave(Vector<S> even, Vector<S> odd, Vector<S>* low, Vector<S>* high) {
  interleave(even, odd, low, high, typename MakeLanes<kLanes<S>>::type{});
}

// The way back.
template <class S>
inline void deinterleave(Vector<S> low, Vector<S> high, Vector<S>* even, Vector<S>* odd) {
  deinterleave(low, high, even, odd, typename MakeLanes<kLanes<S>>::type{});
}

// Rows of four elements, as many as a vector has lanes: first[i], second[i], third[i], fourth[i] = row i.
template <class S, class T>
inline void load_quadruples(const T* rows, Vector<S>* first, Vector<S>* second, Vector<S>* third, Vector<S>* fourth) {
  Vector<S> even[2], odd[2];  // elements of the rows
  for (int half = 0; half < 2; ++half) {
    const T* source = rows + 2 * half * kLanes<S>;
    deinterleave<S>(load(source), load(source + kLanes<S>), &even[half], &odd[half]);
  }
  deinterleave<S>(even[0], even[1], first, third);
  deinterleave<S>(odd[0], odd[1], second, fourth);
}

}  // namespace fastcv::FASTCV_VARIANT

// Taking pairs of neighbouring elements apart and putting them together. CPU translation units only.
#pragma once

#include "core/transpose_cpu.h"

namespace fastcv::FASTCV_VARIANT {

template <class V, int... kLane>
FASTCV_HD void interleave(V even, V odd, V* low, V* high, Lanes<kLane...>) {
  constexpr int kCount = sizeof...(kLane);
  *low = __builtin_shufflevector(even, odd, (kLane / 2 + kLane % 2 * kCount)...);
  *high = __builtin_shufflevector(even, odd, (kCount / 2 + kLane / 2 + kLane % 2 * kCount)...);
}

template <class V, int... kLane>
FASTCV_HD void deinterleave(V low, V high, V* even, V* odd, Lanes<kLane...>) {
  *even = __builtin_shufflevector(low, high, (2 * kLane)...);
  *odd = __builtin_shufflevector(low, high, (2 * kLane + 1)...);
}

// low, high = even[0], odd[0], even[1], odd[1] ...; S is the type of an element.
template <class S>
FASTCV_HD void interleave(Vector<S> even, Vector<S> odd, Vector<S>* low, Vector<S>* high) {
  interleave(even, odd, low, high, typename MakeLanes<kLanes<S>>::type{});
}

// The way back.
template <class S>
FASTCV_HD void deinterleave(Vector<S> low, Vector<S> high, Vector<S>* even, Vector<S>* odd) {
  deinterleave(low, high, even, odd, typename MakeLanes<kLanes<S>>::type{});
}

}  // namespace fastcv::FASTCV_VARIANT

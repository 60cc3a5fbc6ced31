// Thresholds in [0, 1], given in double precision, for numbers of another type.
#pragma once

#include "core/types.h"

namespace fastcv::FASTCV_VARIANT {

// The largest T that is not above the threshold: for a quotient q of type T, q > threshold just when q > this.
template <class T>
FASTCV_HD T round_down(double threshold) {
  T rounded = static_cast<T>(threshold);
  if constexpr (sizeof(T) == 4) {
    // thresholds are in [0, 1]; one that rounded up is positive, so the number before it has the next smaller bits
    if (static_cast<double>(rounded) > threshold) rounded = bit_cast<float>(bit_cast<uint32_t>(rounded) - 1u);
  }
  return rounded;
}

}  // namespace fastcv::FASTCV_VARIANT

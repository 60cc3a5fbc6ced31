// floor, ceil and round (half away from zero) of the C library, for both kinds of numbers: overloads of the C++ library
// would be inline functions of their own, see core/cpu_variants.h.
#pragma once

#include <math.h>

#include "core/platform.h"

namespace fastcv::FASTCV_VARIANT {

FASTCV_HD float floor_of(float value) {
  return floorf(value);
}
FASTCV_HD double floor_of(double value) {
  return floor(value);
}
FASTCV_HD float ceil_of(float value) {
  return ceilf(value);
}
FASTCV_HD double ceil_of(double value) {
  return ceil(value);
}
FASTCV_HD float round_of(float value) {
  return roundf(value);
}
FASTCV_HD double round_of(double value) {
  return round(value);
}

}  // namespace fastcv::FASTCV_VARIANT

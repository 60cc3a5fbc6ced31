// How prefix sums (exclusive_scan.cuh) divide their items. Bindings allocate by it, so nothing here needs CUDA.
#pragma once

#include <cstdint>

#include "core/platform.h"

namespace fastcv::FASTCV_VARIANT {

constexpr int kScanBlock = 1024;  // threads of a block, one item each

// How many sums a scan over blocks of `items` has: one per block, and that of all.
constexpr FASTCV_HD int64_t scan_sums(int64_t items) {
  return (items + kScanBlock - 1) / kScanBlock + 1;
}

}  // namespace fastcv::FASTCV_VARIANT

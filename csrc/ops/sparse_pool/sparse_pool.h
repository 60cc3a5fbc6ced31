// Pooling over a kernel map: the largest, or the mean, of the features of the sites under a kernel (Graham et al. 2018,
// "3D Semantic Segmentation with Submanifold Sparse Convolutional Networks", section 3).
//
//   features    (N, C)   contiguous
//   neighbours  (K, M)   int32: the row of features that output row m sees through kernel element k; negative: none
//   reverse     (K, N)   int32: the output row that sees row n of the features through kernel element k; negative: none
//   output      (M, C)   contiguous
//   argmax      (M, C)   int32: the row that the largest value comes from, -1 for a site without neighbours
//
// Forward walks `neighbours`, backward walks `reverse` in the same way: each row of the result is owned by one task and
// summed in the order of k, so there are no atomics and the bits do not depend on the number of threads. The largest
// value is what max_pool3d calls so: NaN is larger than all; of equal values, or of several NaN, the first along k
// counts. Without neighbours both give 0. The mean is over the neighbours that are there, or over K if
// `count_missing`.
//
// A row number beyond the source is a ValueError on the CPU; on CUDA, where looking would cost a synchronisation, there
// is no such neighbour.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"

namespace fastcv {

// target[t] is pooled from source[map[k, t]], k = 0, 1, ...: forward, the target is the output and the map
// `neighbours`; backward, the target is grad_features, the source grad_output and the map `reverse`.
struct SparsePoolParams {
  void* target;               // (targets, channels)
  const void* source;         // (sources, channels)
  const int32_t* map;         // (volume, targets)
  int32_t* argmax;            // forward (targets, channels), or null; backward (sources, channels)
  int32_t* counts;            // (sources): how many neighbours each source row has; for the backward of the mean
  const int32_t* neighbours;  // (count_volume, sources): what `counts` is made from
  DType dtype;
  int64_t targets, sources, channels, volume, count_volume;
  bool count_missing;
};

FASTCV_DECLARE_KERNEL(sparse_max_pool_forward, SparsePoolParams);
FASTCV_DECLARE_KERNEL(sparse_max_pool_backward, SparsePoolParams);
FASTCV_DECLARE_KERNEL(sparse_avg_pool_forward, SparsePoolParams);
FASTCV_DECLARE_KERNEL(sparse_avg_pool_backward, SparsePoolParams);

namespace FASTCV_VARIANT {

// Whether a value takes the place of the largest so far.
template <class A>
FASTCV_HD bool is_larger(A value, A largest) {
  return !(value <= largest) && largest == largest;
}

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

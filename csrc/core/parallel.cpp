#include "core/parallel.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace fastcv {

int max_threads() {
#if defined(_OPENMP)
  return omp_get_max_threads();
#else
  return 1;
#endif
}

void parallel_for_range(int64_t count, int64_t grain, RangeBody body, void* context) {
  if (count <= 0) return;
  if (grain < 1) grain = 1;
  const int64_t pieces = (count + grain - 1) / grain;
#if defined(_OPENMP)
  if (pieces > 1 && omp_get_max_threads() > 1 && !omp_in_parallel()) {
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const int64_t begin = piece * grain;
      body(context, begin, begin + grain < count ? begin + grain : count);
    }
    return;
  }
#endif
  for (int64_t piece = 0; piece < pieces; ++piece) {
    const int64_t begin = piece * grain;
    body(context, begin, begin + grain < count ? begin + grain : count);
  }
}

}  // namespace fastcv

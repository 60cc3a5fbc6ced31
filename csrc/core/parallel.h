// CPU threading: the threads of torch.set_num_threads(), through the one OpenMP runtime that torch brings.
#pragma once

#include <cstdint>

#include "core/platform.h"

namespace fastcv {

// Calls body(context, begin, end) for pieces of [0, count) of at most `grain` items each, handed out in order to
// whichever thread is free. Pieces must be independent of each other, so that the result does not depend on the number
// of threads. Runs on the calling thread when there is only one piece. When a piece throws, pieces that have not begun
// are left out, and the first exception goes on from here once no piece runs any more.
using RangeBody = void (*)(void* context, int64_t begin, int64_t end);
void parallel_for_range(int64_t count, int64_t grain, RangeBody body, void* context);

// How many threads parallel_for_range may use now.
int max_threads();

namespace FASTCV_VARIANT {

template <class Body>
void parallel_for(int64_t count, int64_t grain, const Body& body) {
  parallel_for_range(
      count, grain, [](void* context, int64_t begin, int64_t end) { (*static_cast<const Body*>(context))(begin, end); },
      const_cast<Body*>(&body));
}

}  // namespace FASTCV_VARIANT
}  // namespace fastcv

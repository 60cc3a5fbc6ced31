#include "core/parallel.h"

#include <atomic>
#include <exception>

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

#if defined(_OPENMP)
namespace {

// No exception may leave a parallel region: the first is carried out of it.
class CarriedException {
 public:
  // Inside a catch clause.
  void take() noexcept {
    if (!taken_.exchange(true, std::memory_order_relaxed)) exception_ = std::current_exception();
  }
  bool is_there() const { return taken_.load(std::memory_order_relaxed); }
  // After the region, whose end orders what its threads wrote.
  void throw_again() const {
    if (exception_ != nullptr) std::rethrow_exception(exception_);
  }

 private:
  std::atomic<bool> taken_{false};
  std::exception_ptr exception_;
};

}  // namespace
#endif

void parallel_for_range(int64_t count, int64_t grain, RangeBody body, void* context) {
  if (count <= 0) return;
  if (grain < 1) grain = 1;
  const int64_t pieces = (count - 1) / grain + 1;
  const auto run = [=](int64_t piece) {
    const int64_t begin = piece * grain;
    body(context, begin, count - begin > grain ? begin + grain : count);
  };
#if defined(_OPENMP)
  if (pieces > 1 && omp_get_max_threads() > 1 && !omp_in_parallel()) {
    CarriedException carried;
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t piece = 0; piece < pieces; ++piece) {
      if (carried.is_there()) continue;
      try {
        run(piece);
      } catch (...) {
        carried.take();
      }
    }
    return carried.throw_again();
  }
#endif
  for (int64_t piece = 0; piece < pieces; ++piece) run(piece);
}

}  // namespace fastcv

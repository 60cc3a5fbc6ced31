// Products by warpgroups of four warps, of sm_90a, each with a twin in plain C++ for the emulator: for kernels that are
// launched on a device of that architecture alone (`runs_on_sm_90a`).
//
//   fence_registers(sums)              before the first product, and after sums were accessed
//   multiply_warpgroup<T>(sums, a, b)  64 rows x 256 columns: sums += a * b, 16 deep, halves with float sums
//   commit_products()                  closes a group of products
//   wait_for_products<n>(sums)         until at most n groups are under way; the sums may not be accessed before
//   fence_async_proxy()                what this thread has written to shared memory, or has waited for, may now be read
//                                      by products; a barrier must follow before others multiply
//
// A matrix lies in shared memory as rows of kSwizzledHalves halves, 128 bytes, from a multiple of 1024 on. Unit u of 16
// bytes of row r lies in place u ^ (r % 8) of its row, so that eight rows of one unit are in 32 banks. A SwizzledMatrix
// names the first of 16 halves to multiply; from(16) names the next.
//
// Sums as PTX numbers them: of 16 rows of each warp, sums[i] is row lane / 4 + 8 * (i / 2 % 2), column
// 8 * (i / 4) + 2 * (lane % 4) + i % 2.
#pragma once

#include <cstdint>

#include "core/cuda/mma.cuh"

namespace fastcv::FASTCV_VARIANT {

constexpr int kSwizzledHalves = 64, kSwizzledUnits = 8, kSwizzleBytes = 1024;
constexpr int kWarpgroupRows = 64, kWarpgroupColumns = 256, kWarpgroupDepth = 16, kWarpgroupThreads = 128;
constexpr int kWarpgroupSums = kWarpgroupRows * kWarpgroupColumns / kWarpgroupThreads;

using WarpgroupSums = float[kWarpgroupSums];

// Of a row, the halves before unit `unit`.
inline __device__ int swizzled_place(int row, int unit) {
  return (unit ^ row % 8) * (kSwizzledHalves / kSwizzledUnits);
}

#if defined(__CUDACC__)

// Keeps the compiler from moving an access to the sums over this point.
__device__ __forceinline__ void pin_sums(WarpgroupSums& sums) {
#pragma unroll
  for (int i = 0; i < kWarpgroupSums; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

__device__ __forceinline__ void fence_registers(WarpgroupSums& sums) {
  pin_sums(sums);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kGroups>
__device__ __forceinline__ void wait_for_products(WarpgroupSums& sums) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroups) : "memory");
  pin_sums(sums);
}
__device__ __forceinline__ void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// A matrix in shared memory. Groups of eight rows 1024 bytes apart, mode 1: units of 16 bytes swizzled over 128.
template <class T>
struct SwizzledMatrix {
  uint64_t descriptor;
  __device__ __forceinline__ explicit SwizzledMatrix(const T* matrix)
      : descriptor(static_cast<uint64_t>(__cvta_generic_to_shared(matrix)) >> 4 | uint64_t{1} << 16 |
                   uint64_t{kSwizzleBytes >> 4} << 32 | uint64_t{1} << 62) {}
  // The one that begins `halves` further, a multiple of eight.
  __device__ __forceinline__ SwizzledMatrix from(int halves) const {
    SwizzledMatrix other = *this;
    other.descriptor += static_cast<unsigned>(halves / 8);
    return other;
  }
};

#define FASTCV_SUMS_4(i) "+f"(sums[i]), "+f"(sums[i + 1]), "+f"(sums[i + 2]), "+f"(sums[i + 3])
#define FASTCV_SUMS_16(i) FASTCV_SUMS_4(i), FASTCV_SUMS_4(i + 4), FASTCV_SUMS_4(i + 8), FASTCV_SUMS_4(i + 12)
#define FASTCV_WGMMA(type)                                                                                          \
  asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type                                         \
               " {"                                                                                                 \
               "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                             \
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                   \
               "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                   \
               "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "                   \
               "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "                   \
               "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "                   \
               "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "       \
               "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"     \
               "}, %128, %129, 1, 1, 1, 0, 0;"                                                                      \
               : FASTCV_SUMS_16(0), FASTCV_SUMS_16(16), FASTCV_SUMS_16(32), FASTCV_SUMS_16(48), FASTCV_SUMS_16(64), \
                 FASTCV_SUMS_16(80), FASTCV_SUMS_16(96), FASTCV_SUMS_16(112)                                        \
               : "l"(a.descriptor), "l"(b.descriptor)                                                               \
               : "memory")

template <class T>
__device__ __forceinline__ void multiply_warpgroup(WarpgroupSums& sums, SwizzledMatrix<T> a, SwizzledMatrix<T> b);

template <>
__device__ __forceinline__ void multiply_warpgroup<float16>(WarpgroupSums& sums, SwizzledMatrix<float16> a,
                                                            SwizzledMatrix<float16> b) {
  FASTCV_WGMMA("f16");
}
template <>
__device__ __forceinline__ void multiply_warpgroup<bfloat16>(WarpgroupSums& sums, SwizzledMatrix<bfloat16> a,
                                                             SwizzledMatrix<bfloat16> b) {
  FASTCV_WGMMA("bf16");
}

#undef FASTCV_WGMMA
#undef FASTCV_SUMS_16
#undef FASTCV_SUMS_4

#else

inline void fence_registers(WarpgroupSums&) {}
inline void commit_products() {}
template <int kGroups>
void wait_for_products(WarpgroupSums&) {}
inline void fence_async_proxy() {}

template <class T>
struct SwizzledMatrix {
  const T* first;
  explicit SwizzledMatrix(const T* matrix) : first(matrix) {}
  SwizzledMatrix from(int halves) const { return SwizzledMatrix(first + halves); }
};

// The 16 halves of a row, as floats.
template <class T>
void swizzled_row(const T* matrix, int row, float (&to)[kWarpgroupDepth]) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(matrix);
  const int first_unit = static_cast<int>(address % (2 * kSwizzledHalves) / 16);
  const T* const from = matrix - 8 * first_unit + row * kSwizzledHalves;
  for (int i = 0; i < kWarpgroupDepth; ++i) to[i] = to_float(from[swizzled_place(row, first_unit + i / 8) + i % 8]);
}

// The sum runs in the order of the depth.
template <class T>
void multiply_warpgroup(WarpgroupSums& sums, SwizzledMatrix<T> a, SwizzledMatrix<T> b) {
  for (const T* first : {a.first, b.first}) {
    emulator::check_alignment(first - reinterpret_cast<uintptr_t>(first) % 128 / sizeof(T), kSwizzleBytes);
  }
  const int lane = static_cast<int>(lane_id()), warp = static_cast<int>(threadIdx.x) / 32 % 4;
  float rows[2][kWarpgroupDepth], column[kWarpgroupDepth];
  for (int h = 0; h < 2; ++h) swizzled_row(a.first, 16 * warp + lane / 4 + 8 * h, rows[h]);
  for (int i = 0; i < kWarpgroupSums; i += 4) {
    for (int side = 0; side < 2; ++side) {
      swizzled_row(b.first, 2 * i + 2 * (lane % 4) + side, column);
      for (int h = 0; h < 2; ++h) {
        float& sum = sums[i + 2 * h + side];
        for (int k = 0; k < kWarpgroupDepth; ++k) sum += rows[h][k] * column[k];
      }
    }
  }
}

#endif

}  // namespace fastcv::FASTCV_VARIANT

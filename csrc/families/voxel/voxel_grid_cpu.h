// The voxels of many points at once, in vectors. CPU translation units only.
#pragma once

#include "core/interleave_cpu.h"
#include "families/voxel/voxel_grid.h"

namespace fastcv::FASTCV_VARIANT {

constexpr int kVoxelBatch = 64;  // points at a time: a multiple of all vectors, and their voxels stay in L1

struct VoxelBatch {
  alignas(64) int32_t x[kVoxelBatch];
  alignas(64) int32_t y[kVoxelBatch];
  alignas(64) int32_t z[kVoxelBatch];  // -1 for points outside in whatever coordinate

  Voxel at(int i) const { return {z[i], y[i], x[i]}; }
};

// The cells along one axis of as many coordinates as a vector has.
template <class A>
FASTCV_INLINE void store_cells(Vector<A> values, const VoxelAxis<A>& axis, int32_t* cells) {
  typedef int32_t Integers __attribute__((vector_size(4 * kLanes<A>)));
  const Vector<A> position = (values - axis.origin) / axis.size;
  const auto inside = (position >= Vector<A>{}) & (position < broadcast(axis.limit));
  const Vector<A> cell = inside ? position : broadcast(A(-1));
  const Integers result = __builtin_convertvector(cell, Integers);
  __builtin_memcpy(cells, &result, sizeof(result));
}

// The cells along one axis, of coordinates that lie `stride` elements apart.
template <class T>
FASTCV_INLINE void find_cells(const T* first, int64_t stride, int count, const VoxelAxis<Accumulate<T>>& axis,
                              int32_t* cells) {
  using A = Accumulate<T>;
  alignas(64) A values[kVoxelBatch];
  for (int i = 0; i < count; ++i) values[i] = to_float(first[i * stride]);
  for (int i = count; i < round_up(count, kLanes<A>); ++i) values[i] = A(0);
  for (int i = 0; i < count; i += kLanes<A>) store_cells(load(values + i), axis, cells + i);
}

// The voxels of `count` <= kVoxelBatch points, whose rows are `stride` elements long.
template <class T>
FASTCV_INLINE void find_voxels(const T* rows, int64_t stride, int count, const VoxelAxes<Accumulate<T>>& axes,
                               VoxelBatch& batch) {
  using A = Accumulate<T>;
  if (stride == 4 && count == kVoxelBatch) {
    for (int i = 0; i < kVoxelBatch; i += kLanes<A>) {
      Vector<A> x, y, z, w;
      load_quadruples<A>(rows + 4 * i, &x, &y, &z, &w);
      store_cells(x, axes.x, batch.x + i);
      store_cells(y, axes.y, batch.y + i);
      store_cells(z, axes.z, batch.z + i);
    }
  } else {
    find_cells(rows, stride, count, axes.x, batch.x);
    find_cells(rows + 1, stride, count, axes.y, batch.y);
    find_cells(rows + 2, stride, count, axes.z, batch.z);
  }
  for (int i = 0; i < kVoxelBatch; ++i) batch.z[i] |= (batch.x[i] | batch.y[i]) >> 31;
}

}  // namespace fastcv::FASTCV_VARIANT

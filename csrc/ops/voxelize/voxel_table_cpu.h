// What both ways of voxelising on the CPU share: numbers of voxels in a hash table, and the writing of rows.
#pragma once

#include "core/hash.h"
#include "core/memory.h"
#include "families/voxel/voxel_grid_cpu.h"
#include "ops/voxelize/voxelize.h"

namespace fastcv::FASTCV_VARIANT {

template <class Key>
constexpr Key kNone = static_cast<Key>(~Key{0});

// 0 or 1, and no branch: whether a point is the first of its voxel cannot be predicted, and a wrong guess costs as much
// as the whole point.
FASTCV_INLINE uint32_t as_number(bool condition) {
  uint32_t number = condition;
  asm("" : "+r"(number));
  return number;
}

// A hash table with linear probing, at most half full. What no key has is ~0, so that kNone finds it.
template <class Key>
struct Table {
  struct Entry {
    Key key;
    uint32_t value;
  };

  explicit Table(int64_t keys)
      : mask(static_cast<Key>(hash_capacity(keys) - 1)), memory(bytes()), entries(memory.as<Entry>()) {
    __builtin_memset(static_cast<void*>(entries), 0xff, bytes());
  }

  FASTCV_INLINE Key slot_of(Key key) const { return hash_key(key) & mask; }
  FASTCV_INLINE void prefetch(Key slot) const { __builtin_prefetch(entries + slot, 1); }

  // The entry of the key, or the one to put it in.
  FASTCV_INLINE Entry& find(Key key, Key slot) const {
    while (as_number((entries[slot].key != key) & (entries[slot].key != kNone<Key>)) != 0) slot = (slot + 1) & mask;
    return entries[slot];
  }

  // The value of the key, which is `next` where it is new: then `next` goes up by one.
  FASTCV_INLINE uint32_t enter(Key key, Key slot, uint32_t& next) const {
    Entry& entry = find(key, slot);
    const uint32_t is_new = as_number(entry.key != key);
    const uint32_t value = entry.value + (next - entry.value) * is_new;
    entry.key = key;
    entry.value = value;
    next += is_new;
    return value;
  }

  const Key mask;
  const Scratch memory;
  Entry* const entries;

 private:
  size_t bytes() const { return (static_cast<size_t>(mask) + 1) * sizeof(Entry); }
};

// The dense number of the voxel, within its cloud.
template <class Key>
FASTCV_INLINE Key key_of(const VoxelBatch& batch, int i, const VoxelGrid& grid) {
  const Key plane = static_cast<Key>(batch.z[i]) * static_cast<Key>(grid.cells[1]) + static_cast<Key>(batch.y[i]);
  const Key key = plane * static_cast<Key>(grid.cells[0]) + static_cast<Key>(batch.x[i]);
  return batch.z[i] < 0 ? kNone<Key> : key;
}

template <class T>
FASTCV_INLINE void copy_row(const T* from, int64_t features, T* to) {
  if (features == 4) {  // x, y, z and reflectance
    __builtin_memcpy(to, from, 4 * sizeof(T));
  } else {
    for (int64_t i = 0; i < features; ++i) to[i] = from[i];
  }
}

FASTCV_INLINE void write_coords(const VoxelizeParams& p, int64_t row, int64_t cloud, const Voxel& voxel) {
  int32_t* coords = p.coords + row * p.coords_width;
  if (p.coords_width == 4) *coords++ = static_cast<int32_t>(cloud);
  coords[0] = voxel.z;
  coords[1] = voxel.y;
  coords[2] = voxel.x;
}

}  // namespace fastcv::FASTCV_VARIANT

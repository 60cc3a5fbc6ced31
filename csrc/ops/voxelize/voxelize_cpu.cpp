// Voxelisation on the CPU.
//
// Few voxels: one walk over the points with a hash table of the voxels so far, which never has more than max_voxels
// entries and so stays in the cache; 64 points at a time get their voxels, in vectors, and the table entries of the
// next 64 are fetched ahead. The points are copied to their places at once. Nothing that cannot be predicted is a
// branch.
//
// Many voxels: a walk would wait for memory at every point. The points are split by the hash of their voxel into parts
// whose tables fit the cache (stably, in parallel). Each part numbers its voxels and marks their first points; counting
// the marks before a first point gives the number of its voxel. Then each part copies its points. All steps are
// parallel, none depends on the number of threads. What is known per point is written in streams; the only scattered
// accesses are those to the marks, points and rows of a part, in ascending order, asked for ahead.
//
// Napkin maths, F1 (120 000 points of 16 bytes, 40 000 voxels of 5): 1.9 MB read, 3.2 MB + 0.6 MB written, 0.3 ms at
// 20 GB/s. A table of 1 MB: 120 000 look-ups at 14 cycles of the second-level cache, overlapped: 0.4 ms.
// Split, three points to a voxel: per point 16 bytes read, 12 of keys and points written and read, 64 of the point's
// line read; per voxel two lines of its row and one of its count, fetched and written back: 260 bytes a point in all.
#include "core/memory.h"
#include "families/voxel/voxel_grid_cpu.h"
#include "ops/voxelize/voxel_table_cpu.h"
#include "ops/voxelize/voxelize.h"
#include "ops/voxelize/voxelize_split_cpu.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int64_t kFewVoxels = int64_t{1} << 17;  // above, the points are split

// Points that are dealt with together.
template <class Key>
struct KeyBatch {
  int count;
  VoxelBatch voxels;
  Key keys[kVoxelBatch], slots[kVoxelBatch];
  uint32_t owners[kVoxelBatch];     // the voxel of each point; ~0 where there is none
  int32_t newest[kVoxelBatch + 1];  // the first points of new voxels
};

// Fetches memory that is to be written, as much as the first-level cache has room for; it may reach beyond its end.
void ask_for(const void* memory, int64_t bytes) {
  constexpr int64_t kMost = 16384;
  for (int64_t i = 0; i < bytes && i < kMost; i += 64) __builtin_prefetch(static_cast<const char*>(memory) + i, 1);
}

// Finds the keys of the points [base, end), as many as fit, and fetches their table entries.
template <class T, class Key>
void fetch_keys(const VoxelizeParams& p, const VoxelAxes<Accumulate<T>>& axes, const Table<Key>& table, int64_t base,
                int64_t end, KeyBatch<Key>& batch) {
  batch.count = static_cast<int>(end - base < kVoxelBatch ? end - base : kVoxelBatch);
  find_voxels(static_cast<const T*>(p.points) + base * p.stride, p.stride, batch.count, axes, batch.voxels);
  for (int i = 0; i < batch.count; ++i) {
    batch.keys[i] = key_of<Key>(batch.voxels, i, p.grid);
    batch.slots[i] = table.slot_of(batch.keys[i]);
  }
  for (int i = 0; i < batch.count; ++i) table.prefetch(batch.slots[i]);
}

// Enters the points' voxels, of which there were `found` and may be `most`. Returns how many there are.
template <class Key>
FASTCV_INLINE uint32_t enter_voxels(const Table<Key>& table, uint32_t found, uint32_t most, KeyBatch<Key>& batch) {
  const uint32_t before = found;
  if (most - found >= kVoxelBatch) {
    for (int i = 0; i < batch.count; ++i) {
      batch.newest[found - before] = i;
      batch.owners[i] = table.enter(batch.keys[i], batch.slots[i], found);
    }
  } else {
    for (int i = 0; i < batch.count; ++i) {
      batch.newest[found - before] = i;
      batch.owners[i] = found < most ? table.enter(batch.keys[i], batch.slots[i], found)
                                     : table.find(batch.keys[i], batch.slots[i]).value;
    }
  }
  return found;
}

// Copies points from `rows` to their voxels, those that are too many to `spare`.
template <class T, class Key>
FASTCV_INLINE void copy_points(const VoxelizeParams& p, const T* rows, const KeyBatch<Key>& batch, T* voxels,
                               int32_t* num_points, T* spare) {
  const int64_t voxel_elements = p.max_points * p.features;
  const int32_t max_points = static_cast<int32_t>(p.max_points);
  const uintptr_t nowhere = reinterpret_cast<uintptr_t>(spare);
  for (int i = 0; i < batch.count; ++i) {
    const int64_t voxel = batch.owners[i];
    if (batch.owners[i] == ~uint32_t{0}) continue;
    const int32_t members = num_points[voxel];
    const uint32_t is_full = as_number(members >= max_points);
    num_points[voxel] = members + 1 - static_cast<int32_t>(is_full);
    const uintptr_t place = reinterpret_cast<uintptr_t>(voxels + voxel * voxel_elements + members * p.features);
    copy_row(rows + i * p.stride, p.features, reinterpret_cast<T*>(place + (nowhere - place) * is_full));
  }
}

// Few voxels: the points [begin, end) of a cloud, one after the other, to rows from `row`. Returns the number of
// voxels.
template <class T, class Key>
int64_t voxelize_few(const VoxelizeParams& p, int64_t cloud, int64_t begin, int64_t end, int64_t row) {
  const uint32_t most = static_cast<uint32_t>(end - begin < p.max_voxels ? end - begin : p.max_voxels);
  if (most == 0) return 0;  // the outputs may be null
  const VoxelAxes<Accumulate<T>> axes(p.grid);
  const Table<Key> table(most);
  const int64_t voxel_elements = p.max_points * p.features;
  T* const voxels = static_cast<T*>(p.voxels) + row * voxel_elements;
  int32_t* const num_points = p.num_points + row;
  const Scratch spare(bytes_of<T>(p.features));

  KeyBatch<Key> batches[2];  // this one, and the next, whose table entries are on their way
  uint32_t found = 0;
  int64_t fresh = 0;  // voxels that the last points had found
  int turn = 0;
  if (begin < end) fetch_keys<T>(p, axes, table, begin, end, batches[0]);
  for (int64_t base = begin; base < end; base += kVoxelBatch, turn ^= 1) {
    KeyBatch<Key>& batch = batches[turn];
    if (base + kVoxelBatch < end) fetch_keys<T>(p, axes, table, base + kVoxelBatch, end, batches[turn ^ 1]);
    // What the last points took is about what these will take: asked for now, the rows are there when they are written.
    ask_for(voxels + found * voxel_elements, fresh * voxel_elements * static_cast<int64_t>(sizeof(T)));
    ask_for(p.coords + (row + found) * p.coords_width, fresh * p.coords_width * 4);
    const uint32_t before = found;
    found = enter_voxels(table, found, most, batch);
    fresh = found - before;
    __builtin_memset(static_cast<void*>(voxels + before * voxel_elements), 0,
                     static_cast<size_t>(fresh * voxel_elements) * sizeof(T));
    for (uint32_t voxel = before; voxel < found; ++voxel) {
      num_points[voxel] = 0;
      write_coords(p, row + voxel, cloud, batch.voxels.at(batch.newest[voxel - before]));
    }
    copy_points(p, static_cast<const T*>(p.points) + base * p.stride, batch, voxels, num_points, spare.as<T>());
  }
  return found;
}

// Rows [row, row + count) that have no voxel: zeros, -1 as coordinates.
template <class T>
void clear_rows(const VoxelizeParams& p, int64_t row, int64_t count) {
  if (count == 0) return;  // the outputs may be null
  const int64_t elements = p.max_points * p.features;
  __builtin_memset(static_cast<T*>(p.voxels) + row * elements, 0, static_cast<size_t>(count * elements) * sizeof(T));
  __builtin_memset(p.num_points + row, 0, static_cast<size_t>(count) * 4);
  __builtin_memset(p.coords + row * p.coords_width, 0xff, static_cast<size_t>(count * p.coords_width) * 4);
}

template <class T, class Key>
void run(const VoxelizeParams& p) {
  advise_huge_pages(p.voxels, static_cast<size_t>(p.rows * p.max_points * p.features) * sizeof(T));
  int64_t row = 0;
  for (int64_t cloud = 0; cloud < p.clouds.count; ++cloud) {
    const int64_t begin = p.clouds.offsets != nullptr ? p.clouds.offsets[cloud] : 0;
    const int64_t end = p.clouds.offsets != nullptr ? p.clouds.offsets[cloud + 1] : p.count;
    const bool few = end - begin < kFewVoxels || p.max_voxels < kFewVoxels;
    const int64_t found = few ? voxelize_few<T, Key>(p, cloud, begin, end, row)
                              : SplitCloud<T, Key>(p, cloud, begin, end, row).voxelize();
    p.counts[cloud] = found;
    row += found;
    if (!p.padded) continue;
    clear_rows<T>(p, row, p.max_voxels - found);
    row += p.max_voxels - found;
  }
}

template <class T>
void run_with_keys(const VoxelizeParams& p) {
  const double volume = static_cast<double>(p.grid.cells[0]) * static_cast<double>(p.grid.cells[1]) *
                        static_cast<double>(p.grid.cells[2]);
  if (volume < 4294967295.0) {
    run<T, uint32_t>(p);
  } else {
    run<T, uint64_t>(p);
  }
}

}  // namespace

void voxelize_cpu(const VoxelizeParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) { run_with_keys<typename decltype(tag)::type>(params); });
}

}  // namespace fastcv::FASTCV_VARIANT

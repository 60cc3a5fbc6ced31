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
#include "core/parallel.h"
#include "core/voxel_grid_cpu.h"
#include "ops/voxelize/voxelize.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int64_t kFewVoxels = int64_t{1} << 17;  // above, the points are split
constexpr int64_t kPointsPerPart = int64_t{1} << 13;
constexpr int64_t kMostParts = 512;
constexpr int64_t kGrain = int64_t{1} << 15;  // points of a block

template <class Key>
constexpr Key kNone = static_cast<Key>(~Key{0});

// 0 or 1, and no branch: whether a point is the first of its voxel cannot be predicted, and a wrong guess costs as much
// as the whole point.
FASTCV_HD uint32_t as_number(bool condition) {
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

  explicit Table(int64_t keys) : mask(mask_for(keys)), memory(bytes()), entries(memory.as<Entry>()) {
    __builtin_memset(static_cast<void*>(entries), 0xff, bytes());
  }

  FASTCV_HD Key slot_of(Key key) const { return mix_key(key) & mask; }
  FASTCV_HD void prefetch(Key slot) const { __builtin_prefetch(entries + slot, 1); }

  // The entry of the key, or the one to put it in.
  FASTCV_HD Entry& find(Key key, Key slot) const {
    while (as_number((entries[slot].key != key) & (entries[slot].key != kNone<Key>)) != 0) slot = (slot + 1) & mask;
    return entries[slot];
  }

  // The value of the key, which is `next` where it is new: then `next` goes up by one.
  FASTCV_HD uint32_t enter(Key key, Key slot, uint32_t& next) const {
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
  static Key mask_for(int64_t keys) {
    int64_t size = 64;
    while (size < 2 * keys) size *= 2;
    return static_cast<Key>(size - 1);
  }
  size_t bytes() const { return (static_cast<size_t>(mask) + 1) * sizeof(Entry); }
};

// The dense number of the voxel, within its cloud.
template <class Key>
FASTCV_HD Key key_of(const VoxelBatch& batch, int i, const VoxelGrid& grid) {
  const Key plane = static_cast<Key>(batch.z[i]) * static_cast<Key>(grid.cells[1]) + static_cast<Key>(batch.y[i]);
  const Key key = plane * static_cast<Key>(grid.cells[0]) + static_cast<Key>(batch.x[i]);
  return batch.z[i] < 0 ? kNone<Key> : key;
}

template <class Key>
struct KeyBatch {
  int count;
  VoxelBatch voxels;
  Key keys[kVoxelBatch], slots[kVoxelBatch];
};

template <class T>
FASTCV_HD void copy_row(const T* from, int64_t features, T* to) {
  if (features == 4) {  // x, y, z and reflectance
    __builtin_memcpy(to, from, 4 * sizeof(T));
  } else {
    for (int64_t i = 0; i < features; ++i) to[i] = from[i];
  }
}

void write_coords(const VoxelizeParams& p, int64_t row, int64_t cloud, const Voxel& voxel) {
  int32_t* coords = p.coords + row * p.coords_width;
  if (p.coords_width == 4) *coords++ = static_cast<int32_t>(cloud);
  coords[0] = voxel.z;
  coords[1] = voxel.y;
  coords[2] = voxel.x;
}

// Fetches memory that is to be written, as much as the first-level cache has room for; it may reach beyond its end.
void ask_for(const void* memory, int64_t bytes) {
  constexpr int64_t kMost = 16384;
  for (int64_t i = 0; i < bytes && i < kMost; i += 64) __builtin_prefetch(static_cast<const char*>(memory) + i, 1);
}

// Points [begin, end) of a cloud, to rows from `row`. Returns how many voxels there are.
template <class T, class Key>
int64_t walk(const VoxelizeParams& p, int64_t cloud, int64_t begin, int64_t end, int64_t row) {
  const VoxelAxes<Accumulate<T>> axes(p.grid);
  const uint32_t most = static_cast<uint32_t>(end - begin < p.max_voxels ? end - begin : p.max_voxels);
  const Table<Key> table(most);
  const int64_t voxel_elements = p.max_points * p.features;
  T* const voxels = static_cast<T*>(p.voxels) + row * voxel_elements;
  int32_t* const num_points = p.num_points + row;
  const int32_t max_points = static_cast<int32_t>(p.max_points);
  const Scratch spare(static_cast<size_t>(p.features) * sizeof(T));  // for points that are too many for their voxel
  const uintptr_t nowhere = reinterpret_cast<uintptr_t>(spare.as<T>());

  uint32_t found = 0;
  KeyBatch<Key> batches[2];  // this one, and the next, whose table entries are on their way
  const auto fetch = [&](int64_t base, KeyBatch<Key>& batch) {
    batch.count = static_cast<int>(end - base < kVoxelBatch ? end - base : kVoxelBatch);
    find_voxels(static_cast<const T*>(p.points) + base * p.stride, p.stride, batch.count, axes, batch.voxels);
    for (int i = 0; i < batch.count; ++i) {
      batch.keys[i] = key_of<Key>(batch.voxels, i, p.grid);
      batch.slots[i] = table.slot_of(batch.keys[i]);
    }
    for (int i = 0; i < batch.count; ++i) table.prefetch(batch.slots[i]);
  };
  if (begin < end) fetch(begin, batches[0]);
  uint32_t owners[kVoxelBatch];     // the voxel of each point; ~0 where there is none
  int32_t newest[kVoxelBatch + 1];  // the first points of new voxels
  int64_t fresh = 0;                // voxels that the last points had found
  int turn = 0;
  for (int64_t base = begin; base < end; base += kVoxelBatch, turn ^= 1) {
    const KeyBatch<Key>& batch = batches[turn];
    const int count = batch.count;
    const Key *const keys = batch.keys, *const slots = batch.slots;
    const T* const rows = static_cast<const T*>(p.points) + base * p.stride;
    if (base + kVoxelBatch < end) fetch(base + kVoxelBatch, batches[turn ^ 1]);
    // What the last points took is about what these will take: asked for now, the rows are there when they are written.
    ask_for(voxels + found * voxel_elements, fresh * voxel_elements * static_cast<int64_t>(sizeof(T)));
    ask_for(p.coords + (row + found) * p.coords_width, fresh * p.coords_width * 4);
    const uint32_t before = found;
    if (most - found >= kVoxelBatch) {
      for (int i = 0; i < count; ++i) {
        newest[found - before] = i;
        owners[i] = table.enter(keys[i], slots[i], found);
      }
    } else {
      for (int i = 0; i < count; ++i) {
        newest[found - before] = i;
        owners[i] = found < most ? table.enter(keys[i], slots[i], found) : table.find(keys[i], slots[i]).value;
      }
    }
    fresh = found - before;
    __builtin_memset(static_cast<void*>(voxels + before * voxel_elements), 0,
                     static_cast<size_t>((found - before) * voxel_elements) * sizeof(T));
    for (uint32_t voxel = before; voxel < found; ++voxel) {
      num_points[voxel] = 0;
      write_coords(p, row + voxel, cloud, batch.voxels.at(newest[voxel - before]));
    }
    for (int i = 0; i < count; ++i) {
      const int64_t voxel = owners[i];
      if (owners[i] == ~uint32_t{0}) continue;
      const int32_t members = num_points[voxel];
      const uint32_t is_full = as_number(members >= max_points);
      num_points[voxel] = members + 1 - static_cast<int32_t>(is_full);
      const uintptr_t place = reinterpret_cast<uintptr_t>(voxels + voxel * voxel_elements + members * p.features);
      copy_row(rows + i * p.stride, p.features, reinterpret_cast<T*>(place + (nowhere - place) * is_full));
    }
  }
  return found;
}

// A point and its voxel: first the voxel's key, then its number within the part.
template <class Key>
struct PointOf {
  Key voxel;
  uint32_t point;
};

// Which points are the first of their voxel. How many come before one is the number of its voxel.
struct FirstPoints {
  uint8_t* marks;    // one per point
  uint64_t* words;   // the same, 64 points a word
  uint32_t* before;  // per word

  FASTCV_HD uint32_t rank(uint32_t point) const {
    const uint64_t below = words[point >> 6] & ((uint64_t{1} << (point & 63)) - 1);
    return before[point >> 6] + static_cast<uint32_t>(__builtin_popcountll(below));
  }
};

// Numbers the voxels of a part, whose points are in input order, marks the first point of each and lists them. Returns
// how many.
template <class Key>
int64_t number_part(PointOf<Key>* points, int64_t count, uint8_t* marks, uint32_t* first) {
  if (count == 0) return 0;
  const Table<Key> table(count);
  constexpr int kAhead = 8;
  uint32_t found = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (i + kAhead < count) table.prefetch(table.slot_of(points[i + kAhead].voxel));
    const Key key = points[i].voxel;
    first[found] = points[i].point;
    points[i].voxel = static_cast<Key>(table.enter(key, table.slot_of(key), found));
  }
  for (uint32_t voxel = 0; voxel < found; ++voxel) marks[first[voxel]] = 1;
  return found;
}

// Copies the points of a part, whose cloud begins at `source`, to rows from `row`, and counts them.
template <class T, class Key>
void write_part(const VoxelizeParams& p, const T* source, int64_t row, const PointOf<Key>* points, int64_t count,
                const uint32_t* first, int64_t voxel_count, const FirstPoints& firsts) {
  struct Row {
    uint32_t number;
    int32_t members;
  };
  const int64_t voxel_elements = p.max_points * p.features;
  const int64_t voxel_bytes = voxel_elements * static_cast<int64_t>(sizeof(T));
  const int32_t max_points = static_cast<int32_t>(p.max_points);
  T* const voxels = static_cast<T*>(p.voxels) + row * voxel_elements;
  int32_t* const num_points = p.num_points + row;
  const Scratch row_memory(static_cast<size_t>(voxel_count) * sizeof(Row));
  Row* const rows = row_memory.as<Row>();
  for (int64_t voxel = 0; voxel < voxel_count; ++voxel) {
    const uint32_t number = firsts.rank(first[voxel]);
    rows[voxel] = {number, number < p.max_voxels ? 0 : max_points};  // full are those that are too many
  }
  constexpr int kPointsAhead = 16, kVoxelsAhead = 8;
  int64_t found = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (i + kPointsAhead < count) __builtin_prefetch(source + points[i + kPointsAhead].point * p.stride);
    const T* const point = source + points[i].point * p.stride;
    const int64_t voxel = static_cast<int64_t>(points[i].voxel);
    const Row target = rows[voxel];
    if (voxel == found) {
      if (++found + kVoxelsAhead < voxel_count && rows[found + kVoxelsAhead].members == 0) {
        const int64_t next = rows[found + kVoxelsAhead].number;
        const char* const memory = reinterpret_cast<const char*>(voxels + next * voxel_elements);
        __builtin_prefetch(memory, 1);
        __builtin_prefetch(memory + voxel_bytes - 1, 1);
        __builtin_prefetch(num_points + next, 1);
      }
      if (target.members == 0) {
        __builtin_memset(static_cast<void*>(voxels + target.number * voxel_elements), 0,
                         static_cast<size_t>(voxel_bytes));
      }
    }
    if (target.members == max_points) continue;
    rows[voxel].members = target.members + 1;
    copy_row(point, p.features, voxels + target.number * voxel_elements + target.members * p.features);
  }
  for (int64_t voxel = 0; voxel < voxel_count; ++voxel) {
    if (rows[voxel].number < p.max_voxels) num_points[rows[voxel].number] = rows[voxel].members;
  }
}

template <class T, class Key>
int64_t split(const VoxelizeParams& p, int64_t cloud, int64_t begin, int64_t end, int64_t row) {
  const int64_t count = end - begin;
  const T* const points = static_cast<const T*>(p.points) + begin * p.stride;
  int64_t parts = 2;
  int part_bits = 1;
  while (parts < kMostParts && parts * kPointsPerPart < count) {
    parts *= 2;
    ++part_bits;
  }
  const int64_t blocks = (count + kGrain - 1) / kGrain;
  const auto block_end = [=](int64_t block) { return (block + 1) * kGrain < count ? (block + 1) * kGrain : count; };
  constexpr int kKeyBits = 8 * static_cast<int>(sizeof(Key));
  const auto part_of = [=](Key key) { return static_cast<int64_t>(mix_key(key) >> (kKeyBits - part_bits)); };
  const size_t n = static_cast<size_t>(count), words = static_cast<size_t>(blocks * (kGrain / 64));
  const Scratch key_memory(n * sizeof(Key)), sorted_memory(n * sizeof(PointOf<Key>));
  const Scratch mark_memory(words * 64), word_memory(words * 12), first_memory((n + static_cast<size_t>(parts)) * 4);
  const Scratch place_memory(static_cast<size_t>(blocks * parts + blocks + 2 * parts + 1) * 8);
  Key* const keys = key_memory.as<Key>();
  PointOf<Key>* const sorted = sorted_memory.as<PointOf<Key>>();
  uint64_t* const first_words = word_memory.as<uint64_t>();
  const FirstPoints firsts{mark_memory.as<uint8_t>(), first_words, reinterpret_cast<uint32_t*>(first_words + words)};
  int64_t* const places = place_memory.as<int64_t>();  // [block][part]
  int64_t* const part_begin = places + blocks * parts;
  int64_t* const voxels_in_part = part_begin + parts + 1;
  int64_t* const voxels_before = voxels_in_part + parts;  // [block]

  const VoxelAxes<Accumulate<T>> axes(p.grid);
  parallel_for(blocks, 1, [&](int64_t block, int64_t) {
    int64_t* const counts = places + block * parts;
    for (int64_t part = 0; part < parts; ++part) counts[part] = 0;
    VoxelBatch batch;
    for (int64_t base = block * kGrain; base < block_end(block); base += kVoxelBatch) {
      const int64_t left = block_end(block) - base;
      const int size = static_cast<int>(left < kVoxelBatch ? left : kVoxelBatch);
      find_voxels(points + base * p.stride, p.stride, size, axes, batch);
      for (int i = 0; i < size; ++i) {
        const Key key = key_of<Key>(batch, i, p.grid);
        keys[base + i] = key;
        if (key != kNone<Key>) ++counts[part_of(key)];
      }
    }
    __builtin_memset(firsts.marks + block * kGrain, 0, kGrain);
  });
  int64_t sum = 0;
  for (int64_t part = 0; part < parts; ++part) {
    part_begin[part] = sum;
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t here = places[block * parts + part];
      places[block * parts + part] = sum;
      sum += here;
    }
  }
  part_begin[parts] = sum;
  parallel_for(blocks, 1, [&](int64_t block, int64_t) {
    int64_t* const next = places + block * parts;
    for (int64_t i = block * kGrain; i < block_end(block); ++i) {
      if (keys[i] != kNone<Key>) sorted[next[part_of(keys[i])]++] = {keys[i], static_cast<uint32_t>(i)};
    }
  });
  parallel_for(parts, 1, [&](int64_t part, int64_t) {
    const int64_t from = part_begin[part];
    uint32_t* const first = first_memory.as<uint32_t>() + from + part;  // room for one more than there are points
    voxels_in_part[part] = number_part(sorted + from, part_begin[part + 1] - from, firsts.marks, first);
  });
  parallel_for(blocks, 1, [&](int64_t block, int64_t) {
    int64_t found = 0;
    for (int64_t word = block * (kGrain / 64); word < (block + 1) * (kGrain / 64); ++word) {
      uint64_t bits = 0;
      for (int byte = 0; byte < 8; ++byte) {  // eight marks become eight bits
        uint64_t eight;
        __builtin_memcpy(&eight, firsts.marks + word * 64 + byte * 8, 8);
        bits |= (eight * 0x0102040810204080ull >> 56) << (8 * byte);
      }
      firsts.words[word] = bits;
      found += __builtin_popcountll(bits);
    }
    voxels_before[block] = found;
  });
  int64_t found = 0;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t here = voxels_before[block];
    voxels_before[block] = found;
    found += here;
  }
  parallel_for(blocks, 1, [&](int64_t block, int64_t) {
    int64_t voxel = voxels_before[block];
    for (int64_t word = block * (kGrain / 64); word < (block + 1) * (kGrain / 64); ++word) {
      firsts.before[word] = static_cast<uint32_t>(voxel);
      for (uint64_t left = firsts.words[word]; left != 0; left &= left - 1, ++voxel) {
        if (voxel >= p.max_voxels) continue;
        const T* const point = points + (word * 64 + __builtin_ctzll(left)) * p.stride;
        write_coords(p, row + voxel, cloud, voxel_of(point, axes));
      }
    }
  });
  parallel_for(parts, 1, [&](int64_t part, int64_t) {
    const int64_t from = part_begin[part];
    const uint32_t* const first = first_memory.as<uint32_t>() + from + part;
    write_part(p, points, row, sorted + from, part_begin[part + 1] - from, first, voxels_in_part[part], firsts);
  });
  return found < p.max_voxels ? found : p.max_voxels;
}

template <class T, class Key>
void run(const VoxelizeParams& p) {
  advise_huge_pages(p.voxels, static_cast<size_t>(p.rows * p.max_points * p.features) * sizeof(T));
  int64_t row = 0;
  for (int64_t cloud = 0; cloud < p.clouds.count; ++cloud) {
    const int64_t begin = p.clouds.offsets != nullptr ? p.clouds.offsets[cloud] : 0;
    const int64_t end = p.clouds.offsets != nullptr ? p.clouds.offsets[cloud + 1] : p.count;
    const bool few = end - begin < kFewVoxels || p.max_voxels < kFewVoxels;
    const int64_t found = few ? walk<T, Key>(p, cloud, begin, end, row) : split<T, Key>(p, cloud, begin, end, row);
    p.counts[cloud] = found;
    row += found;
    if (!p.padded) continue;
    const int64_t unused = p.max_voxels - found;
    const int64_t elements = p.max_points * p.features;
    __builtin_memset(static_cast<T*>(p.voxels) + row * elements, 0, static_cast<size_t>(unused * elements) * sizeof(T));
    __builtin_memset(p.num_points + row, 0, static_cast<size_t>(unused) * 4);
    __builtin_memset(p.coords + row * p.coords_width, 0xff, static_cast<size_t>(unused * p.coords_width) * 4);
    row += unused;
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

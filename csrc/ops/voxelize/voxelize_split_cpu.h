// Voxelising a cloud of many voxels on the CPU, by splitting its points: see voxelize_cpu.cpp.
#pragma once

#include "core/memory.h"
#include "core/parallel.h"
#include "families/voxel/voxel_grid_cpu.h"
#include "ops/voxelize/voxel_table_cpu.h"
#include "ops/voxelize/voxelize.h"

namespace fastcv::FASTCV_VARIANT {

constexpr int64_t kPointsPerPart = int64_t{1} << 13;
constexpr int64_t kMostParts = 512;
constexpr int64_t kBlockPoints = int64_t{1} << 15;
constexpr int64_t kBlockWords = kBlockPoints / 64;

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

  FASTCV_INLINE uint32_t rank(uint32_t point) const {
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
  const Scratch row_memory(bytes_of<Row>(voxel_count));
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

// The points [begin, end) of a cloud on their way to rows from `row`. Points are split into parts by the hash of their
// voxel, stably; blocks are points as they come. No step depends on the number of threads.
template <class T, class Key>
class SplitCloud {
 public:
  SplitCloud(const VoxelizeParams& p, int64_t cloud, int64_t begin, int64_t end, int64_t row)
      : p_(p),
        cloud_(cloud),
        row_(row),
        count_(end - begin),
        points_(static_cast<const T*>(p.points) + begin * p.stride),
        axes_(p.grid),
        part_bits_(bits_for(end - begin)),
        parts_(int64_t{1} << part_bits_),
        blocks_((count_ + kBlockPoints - 1) / kBlockPoints),
        keys_(elements(count_) * sizeof(Key)),
        sorted_(elements(count_) * sizeof(PointOf<Key>)),
        places_(elements(blocks_ * parts_) * 8),
        part_begin_(elements(parts_ + 1) * 8),
        voxels_in_part_(elements(parts_) * 8),
        voxels_before_(elements(blocks_) * 8),
        first_of_voxel_(elements(count_ + parts_) * 4),
        marks_(elements(blocks_ * kBlockPoints)),
        words_(elements(blocks_ * kBlockWords) * 8),
        before_(elements(blocks_ * kBlockWords) * 4),
        firsts_{marks_.as<uint8_t>(), words_.as<uint64_t>(), before_.as<uint32_t>()} {}

  // Returns how many voxels there are.
  int64_t voxelize() {
    find_keys();
    place_parts();
    sort_points();
    number_parts();
    count_firsts();
    const int64_t found = number_blocks();
    rank_firsts();
    write_parts();
    return found < p_.max_voxels ? found : p_.max_voxels;
  }

 private:
  static int bits_for(int64_t count) {
    int bits = 1;
    while (int64_t{1} << bits < kMostParts && (int64_t{1} << bits) * kPointsPerPart < count) ++bits;
    return bits;
  }
  static size_t elements(int64_t count) { return static_cast<size_t>(count); }

  int64_t block_end(int64_t block) const {
    const int64_t end = (block + 1) * kBlockPoints;
    return end < count_ ? end : count_;
  }
  FASTCV_INLINE static int64_t part_of(Key key, int part_bits) {
    return static_cast<int64_t>(hash_key(key) >> (8 * static_cast<int>(sizeof(Key)) - part_bits));
  }

  // The key of every point, and in `places` [block][part] how many points of each part a block has.
  void find_keys() const {
    parallel_for(blocks_, 1, [&](int64_t block, int64_t) {
      Key* const keys = keys_.as<Key>();
      int64_t* const counts = places_.as<int64_t>() + block * parts_;
      const int part_bits = part_bits_;
      for (int64_t part = 0; part < parts_; ++part) counts[part] = 0;
      VoxelBatch batch;
      const int64_t end = block_end(block);
      for (int64_t base = block * kBlockPoints; base < end; base += kVoxelBatch) {
        const int size = static_cast<int>(end - base < kVoxelBatch ? end - base : kVoxelBatch);
        find_voxels(points_ + base * p_.stride, p_.stride, size, axes_, batch);
        for (int i = 0; i < size; ++i) {
          const Key key = key_of<Key>(batch, i, p_.grid);
          keys[base + i] = key;
          if (key != kNone<Key>) ++counts[part_of(key, part_bits)];
        }
      }
      __builtin_memset(firsts_.marks + block * kBlockPoints, 0, kBlockPoints);
    });
  }

  // Turns the counts into the places where each block's points of a part begin.
  void place_parts() const {
    int64_t* const places = places_.as<int64_t>();
    int64_t* const part_begin = part_begin_.as<int64_t>();
    int64_t sum = 0;
    for (int64_t part = 0; part < parts_; ++part) {
      part_begin[part] = sum;
      for (int64_t block = 0; block < blocks_; ++block) {
        const int64_t here = places[block * parts_ + part];
        places[block * parts_ + part] = sum;
        sum += here;
      }
    }
    part_begin[parts_] = sum;
  }

  void sort_points() const {
    parallel_for(blocks_, 1, [&](int64_t block, int64_t) {
      const Key* const keys = keys_.as<Key>();
      PointOf<Key>* const sorted = sorted_.as<PointOf<Key>>();
      int64_t* const next = places_.as<int64_t>() + block * parts_;
      const int part_bits = part_bits_;
      const int64_t end = block_end(block);
      for (int64_t i = block * kBlockPoints; i < end; ++i) {
        if (keys[i] == kNone<Key>) continue;
        sorted[next[part_of(keys[i], part_bits)]++] = {keys[i], static_cast<uint32_t>(i)};
      }
    });
  }

  // The first points of a part's voxels; there is room for one more than it has points.
  uint32_t* first_of_voxel(int64_t part) const {
    return first_of_voxel_.as<uint32_t>() + part_begin_.as<int64_t>()[part] + part;
  }
  PointOf<Key>* points_of(int64_t part) const { return sorted_.as<PointOf<Key>>() + part_begin_.as<int64_t>()[part]; }
  int64_t points_in(int64_t part) const {
    return part_begin_.as<int64_t>()[part + 1] - part_begin_.as<int64_t>()[part];
  }

  void number_parts() const {
    parallel_for(parts_, 1, [&](int64_t part, int64_t) {
      voxels_in_part_.as<int64_t>()[part] =
          number_part(points_of(part), points_in(part), firsts_.marks, first_of_voxel(part));
    });
  }

  // Marks become bits; in `voxels_before` how many a block has.
  void count_firsts() const {
    parallel_for(blocks_, 1, [&](int64_t block, int64_t) {
      int64_t found = 0;
      for (int64_t word = block * kBlockWords; word < (block + 1) * kBlockWords; ++word) {
        uint64_t bits = 0;
        for (int byte = 0; byte < 8; ++byte) {  // eight marks become eight bits
          uint64_t eight;
          __builtin_memcpy(&eight, firsts_.marks + word * 64 + byte * 8, 8);
          bits |= (eight * 0x0102040810204080ull >> 56) << (8 * byte);
        }
        firsts_.words[word] = bits;
        found += __builtin_popcountll(bits);
      }
      voxels_before_.as<int64_t>()[block] = found;
    });
  }

  // Turns those counts into the numbers of the blocks' first voxels. Returns how many voxels there are.
  int64_t number_blocks() const {
    int64_t* const voxels_before = voxels_before_.as<int64_t>();
    int64_t found = 0;
    for (int64_t block = 0; block < blocks_; ++block) {
      const int64_t here = voxels_before[block];
      voxels_before[block] = found;
      found += here;
    }
    return found;
  }

  // How many first points come before each word, and the coordinates of the voxels.
  void rank_firsts() const {
    parallel_for(blocks_, 1, [&](int64_t block, int64_t) {
      int64_t voxel = voxels_before_.as<int64_t>()[block];
      for (int64_t word = block * kBlockWords; word < (block + 1) * kBlockWords; ++word) {
        firsts_.before[word] = static_cast<uint32_t>(voxel);
        for (uint64_t left = firsts_.words[word]; left != 0; left &= left - 1, ++voxel) {
          if (voxel >= p_.max_voxels) continue;
          const T* const point = points_ + (word * 64 + __builtin_ctzll(left)) * p_.stride;
          write_coords(p_, row_ + voxel, cloud_, voxel_of(point, axes_));
        }
      }
    });
  }

  void write_parts() const {
    parallel_for(parts_, 1, [&](int64_t part, int64_t) {
      write_part(p_, points_, row_, points_of(part), points_in(part), first_of_voxel(part),
                 voxels_in_part_.as<int64_t>()[part], firsts_);
    });
  }

  const VoxelizeParams& p_;
  const int64_t cloud_, row_, count_;
  const T* const points_;
  const VoxelAxes<Accumulate<T>> axes_;
  const int part_bits_;
  const int64_t parts_, blocks_;
  const Scratch keys_, sorted_, places_, part_begin_, voxels_in_part_, voxels_before_, first_of_voxel_;
  const Scratch marks_, words_, before_;
  const FirstPoints firsts_;
};

}  // namespace fastcv::FASTCV_VARIANT

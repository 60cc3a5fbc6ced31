// Voxelisation on CUDA. See voxelize.h for the meaning.
//
// Finding: every point enters its voxel in a hash table and leaves its index there if it is the smallest (atomic_min).
// A prefix sum over "is the first point of its voxel" then numbers the voxels in order of appearance. Filling: every
// point offers its index to the M places of its voxel, each of which keeps the smallest it has seen and hands on the
// other; what is left, the M smallest in order, does not depend on the order of arrival. Last, a thread per place
// copies its point. There is no serial kernel; one scan of P / 1024 counts runs in one block.
//
// Napkin maths, 1 000 000 points of 16 bytes into voxels of 5: the points are read twice (32 MB), 12 bytes per table
// slot (2^21 slots) are cleared and about 3 sectors of 32 bytes touched per point (25 + 96 MB), places and result of
// 160 000 voxels are written (16 MB): 170 MB, 40 us at 4.3 TB/s.
#include "core/cuda/exclusive_scan.cuh"
#include "core/cuda/hash.cuh"
#include "ops/voxelize/voxelize.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int kBlockSize = 256;
constexpr int32_t kNoPoint = 0x7fffffff;

// The parts of the workspace; see VoxelizeWorkspace.
struct Finding {
  int64_t capacity;
  uint64_t* keys;
  int32_t* firsts;
  int32_t* slots;
  int32_t* block_sums;
  int32_t* cloud_sums;
  int64_t* cloud_rows;

  Finding(void* memory, const VoxelizeWorkspace& parts)
      : capacity(parts.slots),
        keys(part<uint64_t>(memory, parts.keys)),
        firsts(part<int32_t>(memory, parts.firsts)),
        slots(part<int32_t>(memory, parts.slot_of)),
        block_sums(part<int32_t>(memory, parts.block_sums)),
        cloud_sums(part<int32_t>(memory, parts.cloud_sums)),
        cloud_rows(part<int64_t>(memory, parts.cloud_rows)) {}

 private:
  template <class T>
  static T* part(void* memory, int64_t begin) {
    return reinterpret_cast<T*>(static_cast<char*>(memory) + begin);
  }
};

template <class Value>
__global__ void __launch_bounds__(kBlockSize, 2) fill_kernel(Value* values, int64_t count, Value value) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  if (i < count) values[i] = value;
}

template <class T>
__global__ void __launch_bounds__(kBlockSize, 2) voxelize_enter_kernel(const VoxelizeParams p, const Finding finding) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  if (i >= p.count) return;
  const VoxelAxes<Accumulate<T>> axes(p.grid);
  const Voxel voxel = voxel_of(static_cast<const T*>(p.points) + i * p.stride, axes);
  const int64_t cloud = cloud_of(i, p.clouds);
  int32_t slot = -1;
  if (voxel.is_inside() && cloud >= 0) {
    const uint64_t key = voxel_key(cloud, voxel, p.grid);
    slot = static_cast<int32_t>(hash_insert(finding.keys, static_cast<uint64_t>(finding.capacity), key));
    atomic_min(finding.firsts + slot, static_cast<int32_t>(i));
  }
  finding.slots[i] = slot;
}

__device__ __forceinline__ bool is_first(const Finding& finding, int64_t i, int64_t count) {
  if (i >= count) return false;
  const int32_t slot = finding.slots[i];
  return slot >= 0 && finding.firsts[slot] == static_cast<int32_t>(i);
}

__global__ void __launch_bounds__(kScanBlock, 1) voxelize_count_kernel(const Finding finding, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kScanBlock + threadIdx.x;
  const int firsts = block_count(is_first(finding, i, count));
  if (threadIdx.x == 0) finding.block_sums[blockIdx.x] = firsts;
}

// The keys have done their work: their places take the numbers of the voxels.
__global__ void __launch_bounds__(kScanBlock, 1) voxelize_number_kernel(const Finding finding, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kScanBlock + threadIdx.x;
  const bool first = is_first(finding, i, count);
  int total;
  const int rank = block_rank<kScanBlock>(first, total);
  if (first) finding.keys[finding.slots[i]] = static_cast<uint64_t>(finding.block_sums[blockIdx.x] + rank);
}

// A block per cloud boundary: how many first points come before it.
__global__ void __launch_bounds__(kScanBlock, 1) voxelize_clouds_kernel(const VoxelizeParams p, const Finding finding) {
  int64_t boundary = p.clouds.offsets != nullptr ? p.clouds.offsets[blockIdx.x] : blockIdx.x == 0 ? 0 : p.count;
  boundary = boundary < 0 ? 0 : boundary > p.count ? p.count : boundary;
  const int64_t block = boundary / kScanBlock;
  const int64_t i = block * kScanBlock + threadIdx.x;
  const int before = block_count(i < boundary && is_first(finding, i, p.count));
  if (threadIdx.x == 0) finding.cloud_sums[blockIdx.x] = finding.block_sums[block] + before;
}

__global__ void __launch_bounds__(kBlockSize, 2) voxelize_counts_kernel(const VoxelizeParams p, const Finding finding) {
  const int64_t cloud = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  if (cloud >= p.clouds.count) return;
  int64_t found = finding.cloud_sums[cloud + 1] - finding.cloud_sums[cloud];
  found = found < 0 ? 0 : found > p.max_voxels ? p.max_voxels : found;
  p.counts[cloud] = found;
  finding.cloud_rows[cloud] = p.padded ? p.max_voxels : found;
}

// The row of the voxel of a point, or -1.
__device__ __forceinline__ int64_t row_of(const VoxelizeParams& p, const Finding& finding, int64_t i) {
  const int32_t slot = finding.slots[i];
  if (slot < 0) return -1;
  const int64_t cloud = cloud_of(i, p.clouds);
  const int64_t number = static_cast<int64_t>(finding.keys[slot]) - finding.cloud_sums[cloud];
  if (number < 0 || number >= p.max_voxels) return -1;
  const int64_t row = finding.cloud_rows[cloud] + number;
  return row < p.rows ? row : -1;
}

__global__ void __launch_bounds__(kBlockSize, 2)
    voxelize_members_kernel(const VoxelizeParams p, const Finding finding) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kBlockSize + threadIdx.x;
  if (i >= p.count) return;
  const int64_t row = row_of(p, finding, i);
  if (row < 0) return;
  int32_t* const places = p.members + row * p.max_points;
  int32_t point = static_cast<int32_t>(i);
  for (int64_t place = 0; place < p.max_points && point != kNoPoint; ++place) {
    // Places only ever fall, so one that is below already needs no atomic operation.
    if (*static_cast<volatile int32_t*>(places + place) < point) continue;
    const int32_t before = atomic_min(places + place, point);
    if (before > point) point = before;
  }
}

template <class T>
__global__ void __launch_bounds__(kBlockSize, 2) voxelize_fill_kernel(const VoxelizeParams p, int64_t rows_per_block) {
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * rows_per_block;
  const int64_t rows = p.rows - begin < rows_per_block ? p.rows - begin : rows_per_block;
  const VoxelAxes<Accumulate<T>> axes(p.grid);
  for (int64_t r = threadIdx.x; r < rows; r += kBlockSize) {
    const int64_t row = begin + r;
    const int32_t* const places = p.members + row * p.max_points;
    int32_t members = 0;
    while (members < p.max_points && places[members] != kNoPoint) ++members;
    p.num_points[row] = members;
    Voxel voxel{-1, -1, -1};
    int64_t cloud = -1;
    if (members > 0) {
      voxel = voxel_of(static_cast<const T*>(p.points) + places[0] * p.stride, axes);
      cloud = cloud_of(places[0], p.clouds);
    }
    int32_t* coords = p.coords + row * p.coords_width;
    if (p.coords_width == 4) *coords++ = static_cast<int32_t>(cloud);
    coords[0] = voxel.z;
    coords[1] = voxel.y;
    coords[2] = voxel.x;
  }
  // Elements of a block are numbered in 32 bits.
  const uint32_t features = static_cast<uint32_t>(p.features);
  const uint32_t elements = static_cast<uint32_t>(rows * p.max_points) * features;
  const int32_t* const members = p.members + begin * p.max_points;
  T* const voxels = static_cast<T*>(p.voxels) + begin * p.max_points * p.features;
  for (uint32_t e = threadIdx.x; e < elements; e += kBlockSize) {
    const uint32_t place = e / features;
    const int32_t point = members[place];
    voxels[e] = point == kNoPoint ? T{} : static_cast<const T*>(p.points)[point * p.stride + (e - place * features)];
  }
}

template <class T>
void find(const VoxelizeParams& p, const Finding& finding, Stream stream) {
  const int64_t blocks = grid_size(p.count, kScanBlock);
  const int64_t capacity = finding.capacity;
  const Extent each{kBlockSize};
  launch(fill_kernel<uint64_t>, {{grid_size(capacity, kBlockSize)}, each}, stream, finding.keys, capacity, kEmptySlot);
  launch(fill_kernel<int32_t>, {{grid_size(capacity, kBlockSize)}, each}, stream, finding.firsts, capacity, kNoPoint);
  launch(voxelize_enter_kernel<T>, {{grid_size(p.count, kBlockSize)}, each}, stream, p, finding);
  launch(voxelize_count_kernel, {{blocks}, {kScanBlock}}, stream, finding, p.count);
  launch(exclusive_scan_kernel<int32_t>, {{1}, {kScanBlock}}, stream, finding.block_sums, blocks);
  launch(voxelize_number_kernel, {{blocks}, {kScanBlock}}, stream, finding, p.count);
  launch(voxelize_clouds_kernel, {{p.clouds.count + 1}, {kScanBlock}}, stream, p, finding);
  launch(voxelize_counts_kernel, {{grid_size(p.clouds.count, kBlockSize)}, each}, stream, p, finding);
  launch(exclusive_scan_kernel<int64_t>, {{1}, {kScanBlock}}, stream, finding.cloud_rows, p.clouds.count);
}

template <class T>
void fill(const VoxelizeParams& p, const Finding& finding, Stream stream) {
  const int64_t places = p.rows * p.max_points;
  launch(fill_kernel<int32_t>, {{grid_size(places, kBlockSize)}, {kBlockSize}}, stream, p.members, places, kNoPoint);
  launch(voxelize_members_kernel, {{grid_size(p.count, kBlockSize)}, {kBlockSize}}, stream, p, finding);
  int64_t rows_per_block = kBlockSize * 8 / (p.max_points * p.features);
  if (rows_per_block < 1) rows_per_block = 1;
  launch(voxelize_fill_kernel<T>, {{grid_size(p.rows, rows_per_block)}, {kBlockSize}}, stream, p, rows_per_block);
}

}  // namespace
}  // namespace fastcv::FASTCV_VARIANT

namespace fastcv {

void voxelize_cuda(const VoxelizeParams& params, Stream stream) {
  using namespace FASTCV_VARIANT;
  const Finding finding(params.workspace, VoxelizeWorkspace(params.count, params.clouds.count));
  dispatch_floating(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (params.find) find<T>(params, finding, stream);
    if (params.fill) fill<T>(params, finding, stream);
  });
}

}  // namespace fastcv

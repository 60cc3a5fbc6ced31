// Launching a kernel: launch(kernel, {grid, block, shared_bytes}, stream, params).
//
//   launch(scale_kernel, {grid_size(count, kBlockSize), kBlockSize}, stream, params);
//   launch(tile_kernel, {{tiles_x, tiles_y, images}, {32, 8}, tile_bytes}, stream, params);
//
// An empty grid is no launch. The device of the stream is current during the call and the caller's device afterwards.
// A failure throws std::runtime_error with the line of the launch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "core/cuda/call_site.h"
#include "core/platform.h"
#include "core/stream.h"
#include "core/types.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>

#include <map>
#include <mutex>
#include <utility>
#elif defined(FASTCV_EMULATED)
#include "emulator/runtime.h"
#if defined(FASTCV_PTX)
#include "ptx/launch.h"  // the emulator runs what nvcc has made of the kernels
#endif
#else
#error "core/cuda headers are for nvcc, or for the emulator of the tests (FASTCV_EMULATED)"
#endif

namespace fastcv::FASTCV_VARIANT {

// A number of blocks or threads along each axis. int64, so that a size too large is refused and not cut off.
struct Extent {
  constexpr Extent(int64_t x, int64_t y = 1, int64_t z = 1) : x(x), y(y), z(z) {}
  int64_t x, y, z;
};

struct LaunchShape {
  constexpr LaunchShape(Extent grid, Extent block, size_t shared_bytes = 0, CallSite site = CallSite::here())
      : grid(grid), block(block), shared_bytes(shared_bytes), site(site) {}
  Extent grid, block;
  size_t shared_bytes;  // of dynamic shared memory
  CallSite site;
  bool is_for_sm_90 = false;  // the device is one: 227 KiB of shared memory, where 99 are what every device has
};

constexpr int64_t kMaxGridX = 0x7fffffff;

// Blocks of `per_block` items that cover `items`. Kernels for more than kMaxGridX blocks walk the grid in strides.
inline int64_t grid_size(int64_t items, int64_t per_block) {
  const int64_t blocks = ceil_div(items, per_block);
  if (items < 0 || per_block <= 0 || blocks > kMaxGridX) {
    throw std::runtime_error("a grid of " + std::to_string(items) + " items, " + std::to_string(per_block) +
                             " a block, has more than 2^31 - 1 blocks");
  }
  return blocks;
}

[[noreturn]] inline void throw_launch_error(const LaunchShape& shape, const std::string& reason) {
  const auto text = [](Extent e) {
    return "(" + std::to_string(e.x) + ", " + std::to_string(e.y) + ", " + std::to_string(e.z) + ")";
  };
  throw std::runtime_error("the kernel launch at " + std::string(shape.site.file) + ":" +
                           std::to_string(shape.site.line) + " failed: " + reason + "; grid " + text(shape.grid) +
                           ", block " + text(shape.block) + ", dynamic shared memory " +
                           std::to_string(shape.shared_bytes) + " bytes");
}

// The limits that all supported devices have in common.
inline void check_launch_shape(const LaunchShape& shape) {
  const Extent &grid = shape.grid, &block = shape.block;
  if (grid.x < 0 || grid.y < 0 || grid.z < 0 || grid.x > kMaxGridX || grid.y > 65535 || grid.z > 65535) {
    throw_launch_error(shape, "a grid has at most (2^31 - 1, 65535, 65535) blocks");
  }
  if (block.x < 1 || block.y < 1 || block.z < 1 || block.x > 1024 || block.y > 1024 || block.z > 64 ||
      block.x * block.y * block.z > 1024) {
    throw_launch_error(shape, "a block has 1 to 1024 threads, at most (1024, 1024, 64)");
  }
}

// What a launch may depend on.
struct Device {
  bool is_sm_90;  // for which kernels of sm_90a are compiled, that no later device runs
  int multiprocessors;
};

#if defined(__CUDACC__)

inline Device device_of(const Stream& stream) {
  const auto attribute = [&](cudaDeviceAttr which) {
    int value = 0;
    if (cudaDeviceGetAttribute(&value, which, stream.device) != cudaSuccess) {
      static_cast<void>(cudaGetLastError());  // the launch will tell
    }
    return value;
  };
  return {attribute(cudaDevAttrComputeCapabilityMajor) == 9 && attribute(cudaDevAttrComputeCapabilityMinor) == 0,
          attribute(cudaDevAttrMultiProcessorCount)};
}

// Makes `device` current for a scope.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    check(cudaGetDevice(&previous_));
    if (previous_ != device) check(cudaSetDevice(device));
    changed_ = previous_ != device;
  }
  ~DeviceGuard() {
    if (changed_) static_cast<void>(cudaSetDevice(previous_));
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  static void check(cudaError_t error) {
    if (error == cudaSuccess) return;
    static_cast<void>(cudaGetLastError());
    throw std::runtime_error(std::string("cannot use the CUDA device: ") + cudaGetErrorString(error));
  }
  int previous_ = 0;
  bool changed_ = false;
};

inline const char* launch_hint(cudaError_t error) {
  switch (error) {
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorUnsupportedPtxVersion:
      return " (fastcv was not built for this GPU: rebuild with its architecture in FASTCV_CUDA_ARCHITECTURES)";
    case cudaErrorInsufficientDriver:
      return " (the NVIDIA driver is older than the CUDA version fastcv was built with)";
    case cudaErrorLaunchOutOfResources:
    case cudaErrorInvalidValue:
    case cudaErrorInvalidConfiguration:
      return " (the block may need more shared memory or registers than this GPU has)";
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
      return " (an earlier kernel failed: CUDA_LAUNCH_BLOCKING=1 tells which)";
    default:
      return "";
  }
}

inline void check_launch(const LaunchShape& shape, cudaError_t error) {
  if (error == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());  // so that the next CUDA call, perhaps torch's, does not report it again
  throw_launch_error(shape, std::string(cudaGetErrorString(error)) + launch_hint(error));
}

// Lets a kernel have more dynamic shared memory than the 48 KiB that each may take unasked; on the current device. What
// it is allowed only grows, so that no thread takes from another what that one is about to launch with.
inline void allow_shared_bytes(const void* kernel, const LaunchShape& shape, int device) {
  static std::mutex mutex;
  static std::map<std::pair<const void*, int>, size_t> allowed;
  const std::lock_guard<std::mutex> lock(mutex);
  size_t& bytes = allowed[{kernel, device}];
  if (shape.shared_bytes <= bytes) return;
  check_launch(shape, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(shape.shared_bytes)));
  bytes = shape.shared_bytes;
}

template <class... Params, class... Args>
void launch(void (*kernel)(Params...), const LaunchShape& shape, Stream stream, Args... args) {
  static_assert((sizeof(Params) + ... + 0) <= 4096, "kernel parameters are limited to 4 KiB");
  check_launch_shape(shape);
  const Extent &grid = shape.grid, &block = shape.block;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  const DeviceGuard guard(stream.device);
  constexpr size_t kDefaultSharedBytes = 48 << 10;
  if (shape.shared_bytes > kDefaultSharedBytes) {
    allow_shared_bytes(reinterpret_cast<const void*>(kernel), shape, stream.device);
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(grid.x, grid.y, grid.z);
  config.blockDim = dim3(block.x, block.y, block.z);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream.handle);
  check_launch(shape, cudaLaunchKernelEx(&config, kernel, args...));
}

#else

inline Device device_of(const Stream&) {
  return {true, 1};
}

template <class... Params, class... Args>
void launch(void (*kernel)(Params...), const LaunchShape& shape, Stream, Args... args) {
  static_assert((sizeof(Params) + ... + 0) <= 4096, "kernel parameters are limited to 4 KiB");
  check_launch_shape(shape);
  const Extent &grid = shape.grid, &block = shape.block;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  const auto extent = [](Extent e) {
    return ::dim3{static_cast<unsigned>(e.x), static_cast<unsigned>(e.y), static_cast<unsigned>(e.z)};
  };
#if defined(FASTCV_PTX)
  ptx::Parameters parameters;
  parameters.add_all<Params...>(args...);
  ptx::launch(reinterpret_cast<const void*>(kernel),
              {extent(grid), extent(block), shape.shared_bytes, shape.site, nullptr, nullptr, shape.is_for_sm_90},
              parameters);
#else
  const auto thread = [&] { kernel(args...); };
  using Thread = decltype(thread);
  emulator::run({extent(grid), extent(block), shape.shared_bytes, shape.site,
                 [](const void* context) { (*static_cast<Thread*>(context))(); }, &thread, shape.is_for_sm_90});
#endif
}

#endif

}  // namespace fastcv::FASTCV_VARIANT

// Checks of point clouds that several bindings share.
#pragma once

#include <string>

#include "core/tensor.h"

namespace fastcv {

// A cloud is (B, N, 3), floating, contiguous, with at most kMostPoints points, so that indices one step past the end
// fit 31 bits.
constexpr int64_t kMostPoints = INT32_MAX - 1024;

inline void check_cloud(Argument cloud, const char* meaning) {
  check_shape(cloud, {kAny, kAny, 3}, meaning);
  check_floating(cloud);
  check_contiguous(cloud);
  if (cloud.view.shape[1] > kMostPoints) {
    throw pybind11::value_error(std::string(cloud.name) + " must have at most 2^31 - 1025 points a cloud, got " +
                                std::to_string(cloud.view.shape[1]));
  }
}

inline void check_cloud_like(Argument cloud, Argument other, const char* meaning) {
  check_cloud(cloud, meaning);
  check_same_dtype(cloud, other);
  check_same_device(cloud, other);
  if (cloud.view.shape[0] != other.view.shape[0]) {
    throw pybind11::value_error(std::string(cloud.name) + " must have as many clouds as " + other.name + " (" +
                                std::to_string(other.view.shape[0]) + "), got " + std::to_string(cloud.view.shape[0]));
  }
}

// The lengths of the clouds, or null. On the CPU each must be in [0, N]; elsewhere looking would cost a
// synchronisation.
inline const int64_t* lengths_of(const pybind11::object& tensor, Argument cloud, const char* name) {
  if (tensor.is_none()) return nullptr;
  const TensorView lengths = view_of(tensor.ptr());
  check_shape({lengths, name}, {cloud.view.shape[0]}, "(B,)");
  check_dtype({lengths, name}, DType::kInt64);
  check_contiguous({lengths, name});
  check_same_device({lengths, name}, cloud);
  const auto* values = static_cast<const int64_t*>(lengths.data);
  for (int64_t b = 0; !lengths.on_cuda && b < cloud.view.shape[0]; ++b) {
    if (values[b] >= 0 && values[b] <= cloud.view.shape[1]) continue;
    throw pybind11::value_error(std::string(name) + " must be between 0 and the " +
                                std::to_string(cloud.view.shape[1]) + " places of " + cloud.name + ", got " +
                                std::to_string(values[b]) + " for cloud " + std::to_string(b));
  }
  return values;
}

}  // namespace fastcv

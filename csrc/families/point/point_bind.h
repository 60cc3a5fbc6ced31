// Checks of point clouds that several bindings share.
#pragma once

#include <string>

#include "core/arguments.h"

namespace fastcv {

// Of a cloud, so that indices one step past the end fit 31 bits.
constexpr int64_t kMostPoints = INT32_MAX - 1024;

// (B, N, 3), floating.
inline void check_cloud(Argument cloud, const char* meaning) {
  check_shape(cloud, {kAny, kAny, 3}, meaning);
  check_floating(cloud);
  const int64_t points = cloud.view.shape[1];
  if (points > kMostPoints) {
    refuse(cloud.name, "have at most " + std::to_string(kMostPoints) + " points per cloud", std::to_string(points));
  }
}

// The number of results per query or cloud.
inline void check_k(int64_t k) {
  check_at_least("k", k, 0);
  if (k > INT32_MAX) refuse("k", "be at most " + std::to_string(INT32_MAX), std::to_string(k));
}

// int32 or int64; kernels read int64.
inline void check_integers(Argument argument) {
  if (argument.view.dtype == DType::kInt64 || argument.view.dtype == DType::kInt32) return;
  refuse_type(argument.name, "be int64 or int32", describe_dtype(argument.view));
}

// The lengths of the clouds as kernels read them; the data is null where there are none. On the CPU each must be in
// [0, N]; elsewhere looking would cost a synchronisation.
inline TensorView checked_lengths(const OptionalTensor& lengths, const char* name, Argument cloud) {
  if (!lengths) return {};
  const Argument argument{lengths, name};
  check_shape(argument, {cloud.view.shape[0]}, "(B,)");
  check_integers(argument);
  check_same_device(argument, cloud);
  TensorView made = converted(lengths, DType::kInt64);
  if (made.on_cuda || made.is_description) return made;
  const int64_t most = cloud.view.shape[1];
  for (int64_t b = 0; b < made.shape[0]; ++b) {
    const int64_t length = made.as<int64_t>()[b];
    if (length >= 0 && length <= most) continue;
    refuse(name, "be between 0 and the " + std::to_string(most) + " places of " + cloud.name,
           std::to_string(length) + " for cloud " + std::to_string(b));
  }
  return made;
}

// What the searches for neighbours have in common, as their kernels read it.
struct NeighbourSearch {
  TensorView query, points, query_lengths, lengths;
  int64_t batch, queries, count, k;

  // Params is that of the op; what is left to it are its results.
  template <class Params>
  Params make_params() const {
    Params params{};
    params.query = query.data;
    params.points = points.data;
    params.query_lengths = query_lengths.as<int64_t>();
    params.lengths = lengths.as<int64_t>();
    params.dtype = points.dtype;
    params.batch = batch;
    params.queries = queries;
    params.count = count;
    params.k = k;
    return params;
  }
};

inline NeighbourSearch checked_search(const TensorView& query, const TensorView& points, int64_t k,
                                      const OptionalTensor& query_lengths, const OptionalTensor& lengths) {
  const Argument asking{query, "query"}, cloud{points, "points"};
  check_cloud(cloud, "(B, N, 3)");
  check_cloud(asking, "(B, Q, 3)");
  check_same_dtype(asking, cloud);
  check_same_device(asking, cloud);
  if (query.shape[0] != points.shape[0]) {
    refuse("query", "have as many clouds as points (" + std::to_string(points.shape[0]) + ")",
           std::to_string(query.shape[0]));
  }
  check_k(k);
  NeighbourSearch search{};
  search.query_lengths = checked_lengths(query_lengths, "query_lengths", asking);
  search.lengths = checked_lengths(lengths, "lengths", cloud);
  search.query = contiguous(query);
  search.points = contiguous(points);
  search.batch = points.shape[0];
  search.queries = query.shape[1];
  search.count = points.shape[1];
  search.k = k;
  return search;
}

}  // namespace fastcv
